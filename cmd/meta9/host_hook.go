package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// maxDomainXML is how much of a domain is read, in bytes. libvirt's own messages have no
// more.
const maxDomainXML = 4 << 20

func newHostHook(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "hook NAME OPERATION [SUB-OPERATION [EXTRA]]",
		Short: "make the VM of a libvirt domain that is about to start",
		Long: `Do the work of a hook of libvirt's, /etc/libvirt/hooks/qemu.d/meta9, with its arguments
and the domain's XML on standard input: before a domain starts, and when libvirtd finds
one that runs, there is a VM with its UUID and, if it is a new one, its name as the alias.
If the domain has a channel meta9, the VM gets it. What is there already stays as it is,
and other operations do nothing. Where another host of a fleet has the VM, as when the
domain migrates, it comes here with its guest's first byte (meta9 fleet expect). libvirt
is not asked for anything, which a hook must not do. Give it a --timeout: the domain
waits for it.`,
		Example: "meta9 host hook --timeout 2s web0 prepare begin - <web0.xml",
		Args:    cobra.RangeArgs(2, 4),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != "prepare" && args[1] != "reconnect" {
				return nil
			}
			v, sock, err := a.starting(cmd.InOrStdin())
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return v.hook(ctx, c, sock) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

// starting reads the XML of a domain that is about to start; sock is its channel's path.
func (a *app) starting(in io.Reader) (v *attaching, sock string, err error) {
	var is struct {
		devices
		Name string `xml:"name"`
		UUID string `xml:"uuid"`
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDomainXML+1))
	switch {
	case err != nil:
		return nil, "", err
	case len(text) > maxDomainXML:
		return nil, "", fmt.Errorf("the domain's XML has more than %d bytes", maxDomainXML)
	}
	if err := xml.Unmarshal(text, &is); err != nil {
		return nil, "", fmt.Errorf("the domain's XML on standard input: %w", err)
	}
	v = &attaching{app: a, name: is.Name}
	if v.uuid, err = vm.ParseUUID(is.UUID); err != nil {
		return nil, "", fmt.Errorf("the domain's XML on standard input: %w", err)
	}
	if sock, err = is.sock(); err != nil {
		return nil, "", err
	}
	return v, sock, nil
}

// expected makes this host expect the VM (fleet.Fleet.Expect), if another host of the fleet has
// it: then the guest's first byte here claims it. false: the VM is here, or no host has it, or
// this host is in no fleet.
func (v *attaching) expected(ctx context.Context, c *client.Client) (bool, error) {
	if _, _, err := findVM(ctx, c, v.uuid); !errors.As(err, new(noVMError)) {
		return false, err
	}
	_, err := fleetDo(ctx, c, "expect", v.uuid)
	if errors.Is(err, errNoFleet) || errors.Is(err, errs.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// hook makes a VM of the domain, if there is none, and tells it of the channel.
func (v *attaching) hook(ctx context.Context, c *client.Client, sock string) error {
	if elsewhere, err := v.expected(ctx, c); err != nil || elsewhere {
		return err
	}
	if _, err := v.beVM(ctx, c); err != nil || sock == "" {
		return err
	}
	_, props, err := findVM(ctx, c, v.uuid)
	if err != nil || props.Text(vm.Prop9PChardev) == sock+",link" {
		return err
	}
	return v.setChardev(ctx, c, sock+",link")
}
