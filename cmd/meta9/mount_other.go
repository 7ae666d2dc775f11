//go:build !linux

package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"
)

const noMountHelp = `Mount the metadata that meta9d serves, and keep the mount over lost connections. Only
Linux has it, by the kernel's 9P client or by FUSE. On this system, use the other
commands of meta9, or the system's own 9P client, if it has one.`

// errNoMount is what both commands say.
var errNoMount = errors.New("only Linux has meta9 mount, and this is " + runtime.GOOS + "; the other commands of meta9 work here, and so does a 9P client of the system's own")

// newMount takes the place of `meta9 mount` where there is none, and only says so.
func newMount(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "mount [-o OPTION,...] [--foreground] [ADDR] DIR",
		Short:              "mount a VM's metadata, in a Linux guest",
		Example:            "meta9 mount virtio:meta9 /mnt/meta9",
		Long:               noMountHelp,
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return errNoMount },
	}
}

// newUmount takes the place of `meta9 umount` where there is no mount, and only says so.
func newUmount(*app) *cobra.Command {
	return &cobra.Command{
		Use:                "umount [-l] DIR",
		Short:              "unmount what 'meta9 mount' has mounted, in a Linux guest",
		Example:            "meta9 umount /mnt/meta9",
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
