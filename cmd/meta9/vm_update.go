package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

func newVMUpdate(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "update UUID [-f FILE | PROPERTY=VALUE...]",
		Short: "change a VM by properties or a JSON payload",
		Long: `Change a VM as PROPERTY=VALUE or a JSON object says: its members replace the VM's,
null removes one, and set_customer_metadata, remove_customer_metadata,
set_internal_metadata, remove_internal_metadata, set_tags, remove_tags, add_nics,
remove_nics, update_nics, add_disks, remove_disks and update_disks do what they do
for vmadm. A VALUE that begins with { or [ is JSON. All of it happens, or nothing.
When update is done, whoever watches the VM's events is told.`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeUUID,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := uuidArg(cmd, args)
			if err != nil {
				return err
			}
			line, err := a.patch(cmd, file, args[1:])
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

// patch is the update that the arguments or the payload say.
func (a *app) patch(cmd *cobra.Command, file string, args []string) ([]byte, error) {
	switch {
	case len(args) == 0:
		return a.payload(file)
	case cmd.Flags().Changed("file"):
		return nil, misused("-f FILE and PROPERTY=VALUE are two ways to say it")
	}
	var o ordjson.Members
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, vmadmError{code: exitUsage, text: "Bad arguments: unable to split " + arg}
		}
		v, err := valueOf(name, text)
		if err != nil {
			return nil, misused("%s: %w", name, err)
		}
		o = append(o, ordjson.Member{Name: name, Value: v})
	}
	return ordjson.Value{Kind: ordjson.Object, Members: o}.AppendJSON(nil), nil
}

// Properties that are no text, of which a command line has only text.
var (
	numbers = []string{
		"ram", "vcpus", "quota", "cpu_cap", "cpu_shares", "tmpfs", "init_restarts", "vsock_cid", "zfs_io_priority",
		"max_physical_memory", "max_locked_memory", "max_lwps", "max_swap",
	}
	switches = []string{
		"autoboot", "firewall_enabled", "maintain_resolvers", "do_not_inventory", "vsock_unprivileged", "docker",
		"indestructible_delegated", "indestructible_zoneroot",
	}
)

// valueOf is the value that a property gets by a text.
func valueOf(name, text string) (ordjson.Value, error) {
	v := ordjson.Value{Kind: ordjson.String, Text: text}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		return ordjson.Parse([]byte(text))
	}
	parsed, err := ordjson.Parse([]byte(text))
	switch {
	case err != nil:
	case slices.Contains(numbers, name) && parsed.Kind == ordjson.Number,
		slices.Contains(switches, name) && (parsed.Kind == ordjson.True || parsed.Kind == ordjson.False):
		v = parsed
	}
	return v, nil
}
