//go:build !linux

package main

import "testing"

// mountable is false: only Linux has mounts.
func mountable(*testing.T, bool) bool { return false }
