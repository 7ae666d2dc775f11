package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newVMGet is `meta9 vm get`. The JSON is only indented, never decoded: that would
// lose the order of members and the text of numbers.
func newVMGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "get UUID",
		Short:             "print a VM as JSON",
		Long:              "Print the whole VM as JSON, its members in their order and its numbers as they were\nwritten.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeUUID,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := uuidArg(cmd, args[0])
			if err != nil {
				return err
			}
			return about(uuid, a.with(cmd, func(ctx context.Context, c *client.Client) error {
				data, err := c.ReadFile(ctx, vmPath(uuid, "vm.json"))
				if err != nil {
					return err
				}
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, bytes.TrimSpace(data), "", "  "); err != nil {
					return fmt.Errorf("%s: the server's JSON: %w", uuid, err)
				}
				pretty.WriteByte('\n')
				_, err = a.out.Write(pretty.Bytes())
				return err
			}))
		},
	}
}
