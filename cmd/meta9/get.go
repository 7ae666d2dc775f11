package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// wellKnown is a field that guests of any cloud ask for.
type wellKnown struct {
	paths []string                           // the first that is there and not empty has it
	of    func(value []byte) ([]byte, error) // what the field is of that value; nil: the value
	help  string
}

var (
	sshKeys  = wellKnown{paths: []string{"keys/root_authorized_keys"}, help: "public keys of root's, as authorized_keys has them: the key root_authorized_keys"}
	userData = wellKnown{paths: []string{"keys/cloud-init:user-data", "keys/user-data"}, help: "the key cloud-init:user-data, else user-data"}
)

// fields are the well-known fields by their names: those of systemd-imds(1) of systemd 261,
// and those of cloud-init's sources.
var fields = map[string]wellKnown{
	"hostname":        {paths: []string{"keys/hostname", "sdc/hostname", "sdc/alias", "sdc/uuid"}, help: "the key hostname, else the property hostname, the alias, the UUID"},
	"region":          {paths: []string{"sdc/tags.region", "sdc/datacenter_name"}, help: "the VM's tag region, else its datacenter_name"},
	"zone":            {paths: []string{"sdc/tags.zone"}, help: "the VM's tag zone"},
	"ipv4-public":     {paths: []string{"sdc/nics"}, of: publicAddress(netip.Addr.Is4), help: "the first address of its NICs that is public"},
	"ipv6-public":     {paths: []string{"sdc/nics"}, of: publicAddress(netip.Addr.Is6), help: "the same of IPv6"},
	"ssh-key":         sshKeys,
	"ssh-keys":        sshKeys,
	"userdata":        userData,
	"user-data":       userData,
	"userdata-base64": {paths: userData.paths, of: inBase64, help: "the same in base64"},
	"vendor-data":     {paths: []string{"nocloud/vendor-data"}, help: "the operator's, for all guests of an image"},
	"network-config":  {paths: []string{"keys/cloud-init:network-config", "nocloud/network-config"}, help: "the network, as netplan and cloud-init have it (version 2)"},
	"instance-id":     {paths: []string{"sdc/uuid"}, help: "the VM's UUID"},
}

// newGet is `meta9 get`.
func newGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get FIELD",
		Short: "print a well-known field of a guest's VM",
		Long: `Print what this guest's VM has as a field that guests of any cloud ask for, under the
names of systemd-imds(1) and cloud-init. Nothing is added, not even a newline. Where the VM
has no such field the exit code is 1.

Fields:
` + fieldsHelp(),
		Example:           "meta9 get hostname\nmeta9 get ssh-keys >~/.ssh/authorized_keys",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(slices.Sorted(maps.Keys(fields)), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, ok := fields[args[0]]
			if !ok {
				return misused("there is no field %q; there are %s", args[0], strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				value, err := f.read(ctx, c)
				switch {
				case err != nil:
					return err
				case len(value) == 0:
					return fmt.Errorf("this VM has no %s (%s): %w", args[0], f.help, errs.NotFound)
				}
				_, err = a.out.Write(value)
				return err
			})
		},
	}
}

func fieldsHelp() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&b, "  %-15s  %s\n", name, fields[name].help)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// read is the field's value; nil: there is none.
func (f wellKnown) read(ctx context.Context, c *client.Client) ([]byte, error) {
	for _, path := range f.paths {
		value, err := c.ReadFile(ctx, path)
		switch {
		case errors.Is(err, errs.NotFound), err == nil && len(value) == 0:
		case err != nil:
			return nil, err
		case f.of != nil:
			return f.of(value)
		default:
			return value, nil
		}
	}
	return nil, nil
}

func inBase64(value []byte) ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, value), nil
}

// nic is what is looked at of a NIC.
type nic struct {
	IP      string
	IPs     []string
	Primary any // true
}

// publicAddress finds the first address in sdc:nics that is one of the Internet's and of
// a family; the primary NIC's come first.
func publicAddress(family func(netip.Addr) bool) func(value []byte) ([]byte, error) {
	return func(value []byte) ([]byte, error) {
		var nics []nic
		if err := json.Unmarshal(value, &nics); err != nil {
			return nil, fmt.Errorf("sdc/nics: %w", err)
		}
		if i := slices.IndexFunc(nics, func(n nic) bool { return n.Primary == true }); i > 0 {
			nics = append([]nic{nics[i]}, nics...)
		}
		for _, n := range nics {
			for _, text := range append(n.IPs, n.IP) {
				text, _, _ = strings.Cut(text, "/")
				addr, err := netip.ParseAddr(text)
				if err == nil && family(addr) && isPublic(addr) {
					return []byte(addr.String()), nil
				}
			}
		}
		return nil, nil
	}
}

// special are addresses that are none of the Internet's though they are unicast and not
// private (RFC 6890, and IANA's registries of special-purpose addresses).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // behind a provider's NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),    // for documentation
	netip.MustParsePrefix("198.18.0.0/15"),   // for measurements
	netip.MustParsePrefix("198.51.100.0/24"), // for documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // for documentation
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b:1::/48"), // of a network's own NAT
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001:2::/48"),   // for measurements
	netip.MustParsePrefix("2001:db8::/32"), // for documentation
	netip.MustParsePrefix("3fff::/20"),     // for documentation
}

// isPublic tells whether an address is one of the Internet's.
func isPublic(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(addr) })
}
