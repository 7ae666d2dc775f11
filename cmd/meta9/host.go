package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// newHost is `meta9 host` and what is below it.
func newHost(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "host COMMAND [ARG]...",
		Short:   "do something for all VMs of a host",
		Long:    "Commands for all VMs that the hypervisor of this host knows.",
		Example: "meta9 host adopt --libvirt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused("which host command? There is %s", commandNames(cmd))
		},
	}
	cmd.AddCommand(newHostAdopt(a), newHostHook(a))
	return cmd
}

func newHostAdopt(a *app) *cobra.Command {
	var fromLibvirt bool
	var uri string
	cmd := &cobra.Command{
		Use:   "adopt --libvirt",
		Short: "make a VM of each libvirt domain, and give it its channel",
		Long: `Make a VM of each domain of the host's libvirt that is none yet, with the domain's UUID
and its name as the alias, and give each domain its channel: at once where it runs, and
for its next starts. What is there already stays as it is, so that the command may be
given again at any time. One line is printed for each domain.`,
		Example:           "meta9 host adopt --libvirt",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !fromLibvirt {
				return misused("from where? There is --libvirt")
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				list, err := virsh(ctx, uri, "list", "--all", "--uuid")
				if err != nil {
					return err
				}
				for _, text := range strings.Fields(list) {
					uuid, err := vm.ParseUUID(text)
					if err != nil {
						return fmt.Errorf("virsh list: %w", err)
					}
					v := &attaching{app: a, uri: uri, uuid: uuid, name: uuid}
					done, err := v.adopt(ctx, c)
					if err != nil {
						a.fail(fmt.Errorf("%s: %w", v.name, err)) // the others are not to wait for it
						continue
					}
					fmt.Fprintf(a.out, "%s %s: %s\n", uuid, printable(v.name), done)
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&fromLibvirt, "libvirt", false, "adopt the domains of libvirt")
	f.StringVar(&uri, "connect", systemLibvirt, "ask the libvirt at `URI`")
	return cmd
}

// adopt makes a VM of the domain, if there is none, and gives it its channel.
func (v *attaching) adopt(ctx context.Context, c *client.Client) (done string, err error) {
	d, err := v.domain(ctx)
	if err != nil {
		return "", err
	}
	v.name = d.name
	made := ""
	if _, err := c.Stat(ctx, vmPath(v.uuid)); err != nil {
		payload := ordjson.Value{Kind: ordjson.Object, Members: ordjson.Members{
			{Name: vm.PropUUID, Value: ordjson.Str(v.uuid)}, {Name: vm.PropAlias, Value: ordjson.Str(d.name)},
		}}
		if err := verb(ctx, c, "/ctl", "create", payload.AppendJSON(nil)); err != nil {
			return "", about(v.uuid, err)
		}
		made = "is a VM now; "
	}
	done, err = v.attach(ctx, c, d)
	return made + done, err
}
