package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newVMUpdate is `meta9 vm update`.
func newVMUpdate(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "update UUID [-f FILE]",
		Short: "change a VM by a JSON payload",
		Long: `Change a VM as a JSON object says: its members replace the VM's, null removes one,
and set_customer_metadata, remove_customer_metadata, set_internal_metadata,
remove_internal_metadata, set_tags, remove_tags, add_nics, remove_nics, update_nics,
add_disks, remove_disks and update_disks do what they do for vmadm. All of it
happens, or nothing.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeUUID,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := uuidArg(cmd, args[0])
			if err != nil {
				return err
			}
			line, err := a.payload(file)
			if err != nil {
				return err
			}
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return verb(ctx, c, vmPath(uuid, "ctl"), "update", line)
			})
			if err == nil {
				fmt.Fprintln(a.err, "Successfully updated VM", uuid)
			}
			return about(uuid, err)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the payload from `FILE` (default: standard input)")
	return cmd
}
