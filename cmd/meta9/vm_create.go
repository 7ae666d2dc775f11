package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// newVMCreate is `meta9 vm create`. It sends the payload as it is, with a uuid added if it
// has none: the server checks what is allowed in it.
func newVMCreate(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:               "create [-f FILE]",
		Short:             "create a VM from a JSON payload",
		Long:              "Create a VM from a JSON object: uuid, alias, owner_uuid, ram, nics, disks, tags,\ncustomer_metadata, internal_metadata, and whatever else it has. Without a uuid it gets\na new one, which is printed.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := a.payload(file, "the VM")
			if err != nil {
				return err
			}
			line, uuid := withUUID(line)
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

// withUUID gives a payload that has no uuid a new one, as vmadm does. uuid is for
// messages: what is wrong with a payload the server says.
func withUUID(line []byte) (_ []byte, uuid string) {
	v, err := ordjson.Parse(line)
	if err != nil || v.Kind != ordjson.Object {
		return line, "payload"
	}
	given, ok := v.Members.Get("uuid")
	if ok && given.Kind != ordjson.Null && (given.Kind != ordjson.String || given.Text != "") {
		return line, cmp.Or(given.Text, "payload")
	}
	uuid = vm.NewUUID()
	if ok {
		v.Members = v.Members.With("uuid", ordjson.Str(uuid))
	} else {
		v.Members = append(ordjson.Members{{Name: "uuid", Value: ordjson.Str(uuid)}}, v.Members...)
	}
	return v.AppendJSON(nil), uuid
}
