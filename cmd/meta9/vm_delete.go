package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newVMDelete is `meta9 vm delete`. It writes to the root's ctl, since the VM's own
// goes with the VM.
func newVMDelete(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "delete [-F] VM",
		Aliases:           []string{"destroy"},
		Short:             "delete a VM and its metadata",
		Example:           "meta9 vm delete web0",
		Long:              "Delete a VM and its metadata. Its hypervisor, if it has one, runs on: stop it before.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := a.uuidArg(cmd, args)
			if err != nil {
				return err
			}
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return verb(ctx, c, "/ctl", "delete", []byte(uuid))
			})
			if err == nil {
				fmt.Fprintln(a.err, "Successfully deleted VM", uuid)
			}
			return about(uuid, err)
		},
	}
	cmd.Flags().BoolP("force", "F", false, "for vmadm's users: a deletion asks nobody anyway")
	return cmd
}
