//go:build !guest && !plan9

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/session/client"
)

// newFleet is `meta9 fleet` and what is below it.
func newFleet(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet COMMAND [ARG]...",
		Short: "see and move the VMs of a fleet",
		Long: `Commands for hosts whose meta9d share VMs over one etcd. They speak to the meta9d of this
host; a VM that is given away or claimed goes with its sessions, and its guest notices
nothing but a pause. VM is a UUID, or the alias of a VM at any host of the fleet.`,
		Example: "meta9 fleet status\nmeta9 fleet claim 550e8400-e29b-41d4-a716-446655440000",
		Args:    cobra.NoArgs,
		RunE:    whichCommand,
	}
	a.elsewhere, a.follow = findElsewhere, a.followVM
	cmd.AddCommand(newFleetStatus(a), newFleetWhere(a), newFleetExpect(a), newFleetClaim(a), newFleetRelease(a), newFleetDrain(a), newFleetFence(a))
	return cmd
}

// fleetHost is a line of /fleet/hosts.
type fleetHost struct {
	Host      string   `json:"host"`
	State     string   `json:"state"`
	Here      bool     `json:"here"`
	Draining  bool     `json:"draining,omitempty"`
	Addresses []string `json:"addresses"`
	Version   string   `json:"version"`
}

func newFleetStatus(a *app) *cobra.Command {
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:   "status [-o json]",
		Short: "say how the fleet is, as this host sees it",
		Long: `Say who this host is in the fleet, how it stands with etcd, how many VMs it has, gave away
and got, which hosts live, and how many VMs no living host has ('meta9 fleet where' lists
these). It exits with 1 where etcd cannot be reached, or this host is fenced. With -o json
all of that is one object.`,
		Example:           "meta9 fleet status\nmeta9 fleet status -o json | jq .hosts",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error { return a.fleetStatus(ctx, c, asJSON) })
		},
	}
	outputFlag(cmd, &asJSON)
	return cmd
}

// fleetStatus prints what /ctl and /fleet/hosts say.
func (a *app) fleetStatus(ctx context.Context, c *client.Client, asJSON jsonFlag) error {
	is, err := readStatus(ctx, c, "/ctl")
	if err != nil {
		return err
	}
	if is.text("fleet_host") == "" {
		return errNoFleet
	}
	hosts, hostsErr := readFleetHosts(ctx, c)
	free, freeErr := readClaimable(ctx, c)
	if hostsErr == nil {
		hostsErr = freeErr
	}
	if asJSON {
		own := status{}
		for _, line := range is {
			if name, ok := strings.CutPrefix(line[0], "fleet_"); ok {
				own = append(own, [2]string{name, line[1]})
			}
		}
		err = a.printJSON(own.object(map[string]any{"hosts": hosts, "vms": is.number("vms"), "claimable": len(free.vms), "claimable_more": free.more}))
	} else {
		_, err = fmt.Fprint(a.out, fleetScreen(is, hosts)+free.row())
	}
	how := is.text("fleet_etcd")
	switch {
	case err != nil:
		return err
	case how != "ok":
		return fmt.Errorf("the fleet is not well here: %s", how)
	case is.number("fleet_fenced") > 0:
		return errors.New("the fleet is not well here: this host was fenced; start its meta9d anew")
	}
	return hostsErr
}

func readFleetHosts(ctx context.Context, c *client.Client) ([]fleetHost, error) {
	hosts := []fleetHost{}
	text, err := c.ReadFile(ctx, "/fleet/hosts")
	if err != nil {
		return hosts, err
	}
	for line := range bytes.Lines(text) {
		var h fleetHost
		if err := json.Unmarshal(line, &h); err != nil {
			return hosts, fmt.Errorf("the server's JSON of a host: %w", err)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// fleetScreen is what `meta9 fleet status` prints without -o json.
func fleetScreen(is status, hosts []fleetHost) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	n := is.number
	draining := ""
	if n("fleet_draining") > 0 {
		draining = ", which gives its VMs away (drain), and takes and makes none"
	}
	row("this host", "%s%s", printable(is.text("fleet_host")), draining)
	row("etcd", "%s", printable(is.text("fleet_etcd")))
	switch since := is.text("fleet_stale_since"); {
	case since != "" && is.text("fleet_reads") == "refuse":
		row("reads", "are refused, since %s (cluster.reads)", printable(since))
	case since != "":
		row("reads", "may be old, since %s", printable(since))
	}
	row("VMs", "%d here, %d expected", n("vms"), n("fleet_expected"))
	row("moves", "%d taken, %d claimed, %d given, %d lost; %d failed", n("fleet_taken"), n("fleet_claimed"), n("fleet_given"), n("fleet_lost"), n("fleet_failed"))
	row("sessions", "%d came along, %d were lost", n("fleet_sessions"), n("fleet_sessions_lost"))
	for _, h := range hosts {
		here := ""
		if h.Here {
			here = ", this one"
		}
		if h.Draining {
			here += ", is being drained and takes no VM"
		}
		at := "reached on itself only"
		if len(h.Addresses) > 0 {
			at = strings.Join(h.Addresses, " ")
		}
		row("host", "%s %s%s; %s; %s", printable(h.Host), printable(h.State), here, printable(orDash(h.Version)), printable(at))
	}
	return b.String()
}

func newFleetWhere(a *app) *cobra.Command {
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:   "where [-o json] [VM...]",
		Short: "say where a VM is, or list those without a living host",
		Long: `Print a line for each VM: its UUID, the host that has it ("-": none, whoever wants it may
claim it), and the epoch, a number that grows with each new owner. "stale since TIME" follows
where the VM is here and may have another owner by now, since this host has no lease in etcd;
where etcd does not answer at all, the epoch is "-".

Without a VM, list the VMs of hosts that do not live (that are lost, or whose meta9d is
stopped) and those that are nobody's, in the whole fleet: their UUIDs, and the host ("-":
nobody's). 'meta9 fleet claim' takes them at once. 10,000 are listed at most; where there
are more, a message says so.`,
		Example: "meta9 fleet where 550e8400-e29b-41d4-a716-446655440000\n" +
			"meta9 fleet where | awk '$2 == \"host2\" {print $1}' | xargs -r meta9 fleet claim",
		ValidArgsFunction: a.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				if len(args) == 0 {
					return a.listClaimable(ctx, c, asJSON)
				}
				for _, name := range args {
					a.fail(about(name, a.fleetWhere(ctx, c, name, asJSON)))
				}
				return nil
			})
		},
	}
	outputFlag(cmd, &asJSON)
	return cmd
}

func (a *app) fleetWhere(ctx context.Context, c *client.Client, name string, asJSON jsonFlag) error {
	is, text, err := findInFleet(ctx, c, name)
	if err != nil {
		return noFleet(ctx, c, err)
	}
	if asJSON {
		return a.printJSON(text)
	}
	epoch, stale := "-", ""
	if is.Epoch > 0 {
		epoch = strconv.FormatUint(is.Epoch, 10)
	}
	if is.Since != "" {
		stale = " stale since " + printable(is.Since)
	}
	_, err = fmt.Fprintf(a.out, "%s %s %s%s\n", is.UUID, printable(orDash(is.Host)), epoch, stale)
	return err
}

// whereabouts is what /fleet/vms/UUID and /fleet/names/ALIAS say.
type whereabouts struct {
	UUID      string
	Host      string // "": nobody's
	Epoch     uint64
	Here      bool
	Own       bool     // of the host that was asked
	Since     string   `json:"stale_since"`
	Addresses []string // of the host's admin, for other hosts
}

// findInFleet finds a VM by its UUID or alias, at whichever host it is.
func findInFleet(ctx context.Context, c *client.Client, name string) (is whereabouts, text []byte, err error) {
	file := "/fleet/names/" + vm.FileName(name)
	if uuid, err := vm.ParseUUID(name); err == nil {
		file = "/fleet/vms/" + uuid
	}
	if text, err = c.ReadFile(ctx, file); err != nil {
		return is, nil, err
	}
	if err := json.Unmarshal(text, &is); err != nil {
		return is, nil, fmt.Errorf("the server's JSON of the VM: %w", err)
	}
	is.UUID, err = vm.ParseUUID(is.UUID)
	return is, text, err
}

// fleetUUID is the UUID of a VM of the fleet, by itself or by its alias.
func fleetUUID(ctx context.Context, c *client.Client, name string) (string, error) {
	if uuid, err := vm.ParseUUID(name); err == nil {
		return uuid, nil
	}
	is, _, err := findInFleet(ctx, c, name)
	return is.UUID, noFleet(ctx, c, err)
}

// newFleetVMs makes a subcommand that has VMs as arguments. For each it runs the root's verb
// fleet with what words gives, and prints done.
func (a *app) newFleetVMs(use, short, long, example string, words func(ctx context.Context, uuid string) (verb []string, done string)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				for _, name := range args {
					uuid, err := fleetUUID(ctx, c, name)
					verb, done := words(ctx, uuid)
					if err == nil {
						_, err = fleetDo(ctx, c, verb...)
					}
					if err != nil {
						a.fail(about(name, err))
						continue
					}
					if _, err := fmt.Fprintf(a.out, "%s: %s\n", uuid, done); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func newFleetClaim(a *app) *cobra.Command {
	return a.newFleetVMs("claim VM...", "make VMs this host's",
		`Make each VM this host's, with its sessions. The host that has it is asked, and gives it
away unless its own hypervisor says that the VM runs there. The VM of a host that does not
live any more is taken without asking. Done when the VM is served here. A claim that takes
too long (--timeout) fails, and says what it waits for.`,
		"meta9 fleet claim 550e8400-e29b-41d4-a716-446655440000",
		func(ctx context.Context, uuid string) ([]string, string) {
			words := []string{"claim", uuid}
			if end, ok := ctx.Deadline(); ok {
				if left := (time.Until(end) - claimMargin).Truncate(time.Second); left > 0 {
					words = append(words, strconv.Itoa(int(left/time.Second)))
				}
			}
			return words, "here now"
		})
}

// claimMargin is the time that is left to the command when meta9d ends a claim, and says what it has
// waited for.
const claimMargin = 2 * time.Second

func newFleetExpect(a *app) *cobra.Command {
	var undo bool
	cmd := a.newFleetVMs("expect [--undo] VM...", "make the sockets of VMs that will come",
		`Make the sockets of each VM here though another host has it: for a QEMU that is the
destination of a migration, which does not start without them. The first byte that the
guest sends here claims the VM. If none comes within an hour, the sockets go again; with
--undo they go now.`,
		"meta9 fleet expect 550e8400-e29b-41d4-a716-446655440000",
		func(_ context.Context, uuid string) ([]string, string) {
			if undo {
				return []string{"unexpect", uuid}, "expected no longer"
			}
			return []string{"expect", uuid}, "expected"
		})
	cmd.Flags().BoolVar(&undo, "undo", false, "expect it no longer")
	return cmd
}

func newFleetRelease(a *app) *cobra.Command {
	var to string
	cmd := a.newFleetVMs("release [--to HOST] VM...", "give VMs of this host away",
		`Give each VM, with its sessions, to HOST, or, without --to, to nobody: whoever claims it has
it then, without asking this host. HOST serves it at once; one that does not live, or is
being drained, is given none.`,
		"meta9 fleet release --to host2 web0",
		func(_ context.Context, uuid string) ([]string, string) {
			if to == "" {
				return []string{"release", uuid}, "given away"
			}
			return []string{"release", uuid, to}, "given away"
		})
	cmd.Flags().StringVar(&to, "to", "", "give it to `HOST`")
	_ = cmd.RegisterFlagCompletionFunc("to", a.completeFleetHost)
	return cmd
}

func newFleetDrain(a *app) *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "drain [--undo]",
		Short: "give all VMs of this host away",
		Long: `Give all VMs of this host to nobody, so that other hosts can claim them, but those that
its own hypervisor says run here. From then on this host takes, expects and makes none, until
--undo: 'meta9 vm create' fails and says so. It exits with 1 where VMs stay, as while etcd
does not answer; the host is being drained all the same.`,
		Example:           "meta9 fleet drain\nmeta9 fleet drain --undo",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				if undo {
					_, err := fleetDo(ctx, c, "undrain")
					return err
				}
				text, err := fleetDo(ctx, c, "drain")
				if err != nil {
					return err
				}
				var is struct {
					Gone, Stay int
					Why        string
				}
				if err := json.Unmarshal(text, &is); err != nil {
					return fmt.Errorf("it is done, but what it gave could not be read: %w", err)
				}
				if _, err := fmt.Fprintf(a.out, "%d VMs are given away, %d stay\n", is.Gone, is.Stay); err != nil {
					return err
				}
				if is.Stay > 0 {
					return fmt.Errorf("%d VMs stay, and this host is being drained all the same: of the first, %s", is.Stay, is.Why)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "take VMs again")
	return cmd
}

func newFleetFence(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "fence HOST",
		Short: "say that a host is dead",
		Long: `End HOST's life in the fleet at once, for who knows that it does not run: its VMs can be
claimed without waiting for its lease to end. Should its meta9d run after all, it can write
nothing any more for the VMs that others claim, and takes part again when it is started
anew.`,
		Example:           "meta9 fleet fence host2",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeFleetHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				_, err := fleetDo(ctx, c, "fence", args[0])
				return about(args[0], err)
			})
		},
	}
}

// completeFleetHost completes to the name of a host of the fleet.
func (a *app) completeFleetHost(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	c, err := a.connect(ctx, client.Options{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	hosts, _ := readFleetHosts(ctx, c)
	for _, h := range hosts {
		if strings.HasPrefix(h.Host, typed) {
			out = append(out, h.Host)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
