//go:build !unix

package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"
)

// newAgent takes the place of `meta9 agent` where there is none, and only says so.
func newAgent(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "agent",
		Short:              "keep files of a guest as its keys are, on Unix",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("there is no meta9 agent for " + runtime.GOOS + "; 'meta9 watch --exec' works here")
		},
	}
}
