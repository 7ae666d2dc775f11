//go:build !linux

package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"
)

// newCredential takes the place of `meta9 credential` where there is no systemd, and only
// says so.
func newCredential(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "credential",
		Short:              "give systemd's units keys as credentials, on Linux",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("systemd is Linux's alone, and this is " + runtime.GOOS)
		},
	}
}
