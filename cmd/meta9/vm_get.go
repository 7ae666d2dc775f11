package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

func newVMGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "get VM",
		Aliases:           []string{"json"},
		Short:             "print a VM as JSON",
		Example:           "meta9 vm get web0 | jq .nics",
		Long:              "Print the whole VM as JSON, its members in their order and its numbers as they were\nwritten.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := a.uuidArg(cmd, args)
			if err != nil {
				return err
			}
			return about(uuid, a.with(cmd, func(ctx context.Context, c *client.Client) error {
				data, err := c.ReadFile(ctx, vmPath(uuid, "vm.json"))
				if errors.Is(err, errs.NotFound) {
					return notConfigured(uuid)
				}
				if err != nil {
					return err
				}
				return a.printJSON(data)
			}))
		},
	}
}

// notConfigured is what vmadm says of a VM that is not there.
func notConfigured(uuid string) error {
	return vmadmError{code: exitFailed, text: "zoneadm: " + uuid + ": No such zone configured", about: uuid}
}

// printJSON prints JSON for people, indented by two blanks.
func (a *app) printJSON(data []byte) error {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(data), "", "  "); err != nil {
		return fmt.Errorf("the server's JSON: %w", err)
	}
	pretty.WriteByte('\n')
	_, err := a.out.Write(pretty.Bytes())
	return err
}
