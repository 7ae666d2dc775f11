package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

func newStatus(a *app) *cobra.Command {
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:   "status [-o json]",
		Short: "say on one screen how meta9d is",
		Long: `Say which meta9d runs, since when, how it is, how much it has of what, how long the disk
takes for changes, which limits are near (80 %), and by which listeners connections came;
the VMs' own sockets are counted by their kind. It exits with 1 where it is not well.
With -o json all of the admin's ctl is one object.`,
		Example:           "meta9 status\nmeta9 status -o json",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				is, err := readStatus(ctx, c, "/ctl")
				if err != nil {
					return err
				}
				if asJSON {
					if err := a.printJSON(is.json()); err != nil {
						return err
					}
				} else if _, err := fmt.Fprint(a.out, is.screen()); err != nil {
					return err
				}
				if health := is.text("health"); health != "ok" {
					return fmt.Errorf("meta9d is not well: %s", health)
				}
				return nil
			})
		},
	}
	outputFlag(cmd, &asJSON)
	return cmd
}

// status is what a ctl says: a name and a value a line, in their order.
type status [][2]string

func readStatus(ctx context.Context, c *client.Client, ctl string) (is status, err error) {
	text, err := c.ReadFile(ctx, ctl)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "" {
			is = append(is, [2]string{name, value})
		}
	}
	return is, err
}

// text is a value; "" where this meta9d does not say it.
func (is status) text(name string) string {
	for _, line := range is {
		if line[0] == name {
			return line[1]
		}
	}
	return ""
}

// number is a value; 0 where it is none.
func (is status) number(name string) int64 {
	n, _ := strconv.ParseInt(is.text(name), 10, 64)
	return n
}

// json is one object, with numbers as numbers.
func (is status) json() []byte { return is.object(map[string]any{"listeners": is.listeners()}) }

// object is one with more members.
func (is status) object(all map[string]any) []byte {
	for _, line := range is {
		if line[0] == "listener" {
			continue // they are many, and have a member of their own
		}
		if n, err := strconv.ParseInt(line[1], 10, 64); err == nil {
			all[line[0]] = n
		} else {
			all[line[0]] = line[1]
		}
	}
	b, _ := json.Marshal(all) // strings and numbers
	return b
}

// listener is what is said of one: its connections.
type listener struct {
	Name    string `json:"listener"`
	Open    int64  `json:"open"`
	Begun   int64  `json:"accepted"`
	Refused int64  `json:"refused"`
}

// listeners are the lines "listener OPEN ACCEPTED REFUSED NAME".
func (is status) listeners() []listener {
	all := []listener{}
	for _, line := range is {
		words := strings.SplitN(line[1], " ", 4)
		if line[0] != "listener" || len(words) < 4 {
			continue
		}
		l := listener{Name: words[3]}
		for i, to := range []*int64{&l.Open, &l.Begun, &l.Refused} {
			*to, _ = strconv.ParseInt(words[i], 10, 64)
		}
		all = append(all, l)
	}
	return all
}

// nearLimit is how much of a limit, in percent, is worth a line.
const nearLimit = 80

// limited are figures of ctl that have a limit, in ctl, too.
var limited = []struct {
	name, limit, says string
	amount            func(int64) string
}{
	{"bytes", "bytes_limit", "names and values of all VMs (limits.bytes)", size},
	{"connections", "connections_limit", "9P connections (limits.connections)", count},
	{"sessions_parked", "sessions_parked_limit", "sessions that have lost their connection (limits.parked_sessions)", count},
	{"memory_in_flight", "memory_limit", "memory of requests (limits.memory)", size},
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

// screen is for people.
func (is status) screen() string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	n := is.number
	row("meta9d", "%s, up %s", is.text("version"), time.Duration(n("uptime"))*time.Second)
	row("health", "%s", printable(is.text("health")))
	if host := is.text("fleet_host"); host != "" {
		row("fleet", "host %s ('meta9 fleet status' says more)", printable(host))
	}
	if from := is.text("upstream"); from != "" {
		row("mirror", "of %s", from)
	}
	if how := is.text("libvirt"); how != "" {
		of := ""
		if how == "connected" {
			of = fmt.Sprintf("; of its %d domains %d are VMs", n("libvirt_domains"), n("libvirt_vms"))
		}
		row("libvirt", "%s, since %s%s", printable(how), is.text("libvirt_since"), of)
	}
	of := ""
	if limit := n("bytes_limit"); limit > 0 {
		of = fmt.Sprintf(" of %s (%d%%)", size(limit), 100*n("bytes")/limit)
	}
	row("VMs", "%d, %d keys, %s%s", n("vms"), n("keys"), size(n("bytes")), of)
	if n("commits") > 0 {
		row("commits", "%d, %.1f ms on average, 99 of 100 within %.1f ms", n("commits"), float64(n("commit_mean_us"))/1000, float64(n("commit_p99_us"))/1000)
	}
	for _, l := range limited {
		if limit := n(l.limit); limit > 0 && 100*n(l.name) >= nearLimit*limit {
			row("near a limit", "%s: %s of %s (%d%%)", l.says, l.amount(n(l.name)), l.amount(limit), 100*n(l.name)/limit)
		}
	}
	row("connections", "%d 9P, %d metadata protocol; %d and %d refused", n("connections"), n("mdata_connections"), n("connections_refused"), n("mdata_refused"))
	row("sessions", "%d, of which %d have lost their connection", n("sessions"), n("sessions_parked"))
	row("requests", "%d, %d got an error", n("requests"), n("request_errors"))
	row("memory", "%s held by requests; %d had to wait, %d in vain", size(n("memory_in_flight")), n("memory_waits"), n("memory_refused"))
	row("refused", "%d MUMBLE messages, %d session keys", n("mumble_refused"), n("session_key_misses"))
	for _, l := range is.listeners() {
		if l.Begun > 0 || l.Refused > 0 {
			row("by", "%s: %d connections, %d since the start; %d refused", printable(l.Name), l.Open, l.Begun, l.Refused)
		}
	}
	return b.String()
}

// size is a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
