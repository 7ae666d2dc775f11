//go:build !linux

package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"
)

const noMountHelp = `Mount the metadata that meta9d serves. Only Linux has it; there the kernel's 9P client
is kept mounted over lost connections. On this system, use the other commands of
meta9, or the system's own 9P client, if it has one.`

// errNoMount is what both commands say.
var errNoMount = errors.New("only Linux has meta9 mount, and this is " + runtime.GOOS + "; the other commands of meta9 work here, and so does a 9P client of the system's own")

// newMount stands for meta9 mount, so that it is missed with a reason.
func newMount(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "mount [-o OPTION,...] [--foreground] [ADDR] DIR",
		Short:              "mount a VM's metadata, in a Linux guest",
		Long:               noMountHelp,
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return errNoMount },
	}
}

// newUmount stands for meta9 umount.
func newUmount(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "umount [-l] DIR",
		Short:              "unmount what 'meta9 mount' has mounted, in a Linux guest",
		Long:               noMountHelp,
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return errNoMount },
	}
}

// newMountHelper stands for what mount(8) calls on Linux.
func newMountHelper(a *app) *cobra.Command {
	cmd := newMount(a)
	cmd.Use, cmd.Hidden = helperName, true
	return cmd
}
