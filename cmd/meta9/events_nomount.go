//go:build !linux

package main

import "context"

// mountsOfOurs are none: only Linux has meta9 mount.
func mountsOfOurs() []string { return nil }

func mountedPlace(context.Context, string) (place, error) { return place{}, errNoMount }

func openMount(string) source { panic("there is no mount") }
