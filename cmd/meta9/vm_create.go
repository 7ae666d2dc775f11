package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newVMCreate is `meta9 vm create`. The payload goes as it is, on one line: what is
// allowed in it only the server says.
func newVMCreate(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:               "create [-f FILE]",
		Short:             "create a VM from a JSON payload",
		Long:              "Create a VM from a JSON object: uuid, alias, owner_uuid, ram, nics, disks, tags,\ncustomer_metadata, internal_metadata, and whatever else it has.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := a.payload(file)
			if err != nil {
				return err
			}
			uuid := payloadUUID(line)
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return verb(ctx, c, "/ctl", "create", line)
			})
			if err == nil {
				fmt.Fprintln(a.err, "Successfully created VM", uuid)
			}
			return about(uuid, err)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the payload from `FILE` (default: standard input)")
	return cmd
}

// payloadUUID is the VM that a payload is of, for messages; the server says what
// is wrong with it.
func payloadUUID(line []byte) string {
	var p struct{ UUID string }
	if json.Unmarshal(line, &p) != nil || p.UUID == "" {
		return "payload"
	}
	return p.UUID
}
