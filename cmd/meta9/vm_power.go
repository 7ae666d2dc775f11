package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

func newVMStart(a *app) *cobra.Command {
	return newPower(a, "start", "start", "start a VM, or let it go on")
}

func newVMStop(a *app) *cobra.Command {
	return newPower(a, "stop", "stop", "stop a VM where it is")
}

func newVMReboot(a *app) *cobra.Command {
	return newPower(a, "reboot", "reset", "reboot a VM")
}

// newPower is a command that its hypervisor does; verb is what the VM's ctl calls
// it.
func newPower(a *app, name, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               name + " UUID",
		Short:             short,
		Long:              "Have the VM's hypervisor do it. Where none is attached, this fails and says so.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeUUID,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := uuidArg(cmd, args)
			if err != nil {
				return err
			}
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return c.WriteFile(ctx, vmPath(uuid, "ctl"), []byte(verb+"\n"))
			})
			if err == nil {
				fmt.Fprintf(a.err, "Successfully completed %s for VM %s\n", name, uuid)
			}
			return about(uuid, err)
		},
	}
}
