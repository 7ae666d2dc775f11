package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
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
		RunE:    whichCommand,
	}
	cmd.AddCommand(newHostAdopt(a), newHostHook(a))
	return cmd
}

func newHostAdopt(a *app) *cobra.Command {
	var fromLibvirt bool
	var uri string
	cmd := &cobra.Command{
		Use:   "adopt --libvirt [DOMAIN]...",
		Short: "make a VM of each libvirt domain, and give it its channel",
		Long: `Make a VM of each domain of the host's libvirt that is none yet, or of each DOMAIN (a
name or a UUID), with the domain's UUID and its name as the alias, and give each domain
its channel: at once where it runs, and for its next starts. What is there already stays
as it is, so that the command may be given again at any time. One line is printed for
each domain, which has the time of --timeout for itself.`,
		Example:           "meta9 host adopt --libvirt\nmeta9 host adopt --libvirt web0",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, domains []string) error {
			if !fromLibvirt {
				return misused("from where? There is --libvirt")
			}
			adopted := false
			err := a.with(cmd, func(ctx context.Context, c *client.Client) error {
				uuids, err := domainUUIDs(ctx, uri, domains)
				if err != nil {
					return err
				}
				for _, uuid := range uuids {
					v := &attaching{app: a, uri: uri, uuid: uuid, name: uuid}
					done, err := v.adopt(cmd.Context(), c)
					if stopped := cmd.Context().Err(); stopped != nil {
						return stopped
					}
					if err != nil {
						a.fail(fmt.Errorf("%s: %w", v.name, err)) // the others are not to wait for it
						continue
					}
					adopted = true
					fmt.Fprintf(a.out, "%s %s: %s\n", uuid, printable(v.name), done)
				}
				return nil
			})
			if adopted {
				fmt.Fprint(a.err, inGuest)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&fromLibvirt, "libvirt", false, "adopt the domains of libvirt")
	f.StringVar(&uri, "connect", systemLibvirt, "ask the libvirt at `URI`")
	return cmd
}

// adopt makes a VM of the domain, if there is none, and gives it its channel, in the time
// of --timeout.
func (v *attaching) adopt(ctx context.Context, c *client.Client) (done string, err error) {
	ctx, cancel := v.withTimeout(ctx)
	defer cancel()
	d, err := v.domain(ctx)
	if err != nil {
		return "", err
	}
	v.name = d.name
	made, err := v.beVM(ctx, c)
	if err != nil {
		return "", err
	}
	done, err = v.attach(ctx, c, d)
	return made + done, err
}

// beVM makes a VM of the domain, if there is none, and says so. A name that another VM has,
// or that none can have, is no reason to have no metadata: then the VM has no alias.
func (v *attaching) beVM(ctx context.Context, c *client.Client) (made string, err error) {
	_, err = c.Stat(ctx, vmPath(v.uuid))
	if !errors.Is(err, errs.NotFound) {
		return "", about(v.uuid, err)
	}
	create := func(members ...ordjson.Member) error {
		members = append(ordjson.Members{{Name: vm.PropUUID, Value: ordjson.Str(v.uuid)}}, members...)
		payload := ordjson.Value{Kind: ordjson.Object, Members: members}
		return about(v.uuid, verb(ctx, c, "/ctl", "create", payload.AppendJSON(nil)))
	}
	err = create(ordjson.Member{Name: vm.PropAlias, Value: ordjson.Str(v.name)})
	if errors.Is(err, errs.Invalid) || errors.Is(err, errs.Exists) {
		return "is a VM now, without an alias, since its name is another VM's or cannot be one; ", create()
	}
	return "is a VM now; ", err
}
