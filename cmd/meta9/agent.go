//go:build unix

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta9/cmd/meta9/agent"
	"meta9/cmd/systemd"
	"meta9/cmd/version"
	"meta9/session/client"
)

// Where a packaged agent has its recipes, its state, and says how it is.
const (
	agentRecipes = "/etc/meta9/agent.d"
	agentState   = "/var/lib/meta9-agent"
	agentStatus  = "/run/meta9-agent/status"
)

const agentHelp = `Keep files as the keys of this guest's VM have them: a service for a guest that mounts
nothing. What to keep is said by recipes, the files NAME.toml in /etc/meta9/agent.d:

Recipe:
  check   = 'openssl x509 -noout -in "$1"'   # before a change; $1, $2, ...: the new files
  command = "systemctl reload app"           # after it; META9_CHANGED: the paths, a line each
  timeout = "90s"                            # that check and command each may take
  missing = "keep"                           # where a key is not there the file stays; or
                                             # "remove": it goes, "fail": nothing is changed

  [file."/etc/app/tls.crt"]
  key   = "tls.crt"                          # in keys/; or a path: "nocloud/user-data"
  mode  = "0644"                             # "0600"

  [file."/etc/app/tls.key"]
  key   = "tls.key"
  owner = "app"                              # a name or a number; else who runs the agent
  group = "app"                              # else the owner's, if the system knows the owner
  max_size = 65536                           # bytes; 1048576

The files of a recipe are one set: their keys are read as they are at one moment, the new
files are written beside the old ones, checked, and renamed into place, and the command
runs once. missing, owner, group, mode and max_size stand for all files, or for one in its
table. A file gets the value's bytes as they are. A check has all files of the set open,
as they are to be, and "$1" is /proc/self/fd/3: a path beside the old file could be led elsewhere.

The agent starts without a host and keeps what is there. A lost connection is made again,
and what may have been missed is read again. What fails (a check, a command, a folder that
is not there) is tried again after pauses that grow from 1 s to 1 minute, said once, and
counted; what a check or a command printed is in the agent's log alone. A command that has not ended well is run again also after a restart of the agent.
A recipe runs once a second at most, whatever the host does.

A virtio-serial port is for one program at a time. The package's metadata.mount takes the
usual one, and beside it the agent waits in vain: give it vsock or a port of its own
(META9_ADDR in /etc/default/meta9-agent), or 'systemctl mask metadata.mount'.

The way to a file has no symbolic links: name the folder where it is. Its folder must be
there. Recipes, and their folder, may be written by root (or you) alone.`

// agentFlags are what the command line says of an agent.
type agentFlags struct {
	*app
	recipes, state, status string
	once, check            bool
}

// newAgent is `meta9 agent`.
func newAgent(a *app) *cobra.Command {
	g := &agentFlags{app: a}
	cmd := &cobra.Command{
		Use:   "agent [--once | --check]",
		Short: "keep files of a guest as its keys are, without a mount",
		Long:  agentHelp,
		Example: `meta9 agent --check
meta9 --timeout 2m agent --once
systemctl enable --now meta9-agent
meta9 agent status`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.once && g.check {
				return misused("--once and --check do not go together")
			}
			return g.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&g.once, "once", false, "apply each recipe once, when the host is there, and end: with 0 if all went well, with 1 if something failed, with 3 if no host came within --timeout")
	f.BoolVar(&g.check, "check", false, "say what is wrong with the recipes, with its line, and end")
	f.StringVar(&g.recipes, "recipes", agentRecipes, "the recipes are in the folder `DIR`")
	f.StringVar(&g.state, "state", agentState, "remember in the folder `DIR`, which is the agent's alone, which commands are still to be run")
	cmd.PersistentFlags().StringVar(&g.status, "status", agentStatus, "the file that says how the agent is, at `FILE`")
	_ = cmd.MarkFlagDirname("recipes")
	_ = cmd.MarkFlagDirname("state")
	cmd.AddCommand(newAgentStatus(g))
	return cmd
}

// run is the agent, as the flags say.
func (g *agentFlags) run(ctx context.Context) error {
	recipes, err := agent.Load(g.recipes)
	switch {
	case err != nil && g.check:
		return err
	case err != nil:
		return usageError{err} // it does not mend itself: no unit starts it again
	case g.check:
		_, err := fmt.Fprintf(g.out, "%d recipes, nothing is wrong with them\n", len(recipes))
		return err
	}
	g.addr = cmp.Or(g.addr, os.Getenv("META9_ADDR"), defaultPort)
	opt := agent.Options{
		Connect: func(ctx context.Context, notify func(client.State)) (*client.Client, error) {
			return g.connect(ctx, client.Options{Patience: -1, Notify: notify})
		},
		Status: g.status, Version: version.String(), Log: lineLog(g.err), Notify: systemd.Notify,
		Env: append(os.Environ(), "META9_ADDR="+g.addr),
	}
	if opt.State, err = filepath.Abs(g.state); err != nil {
		return err
	}
	if err := g.dialable(); err != nil {
		return err
	}
	if g.once {
		ctx, cancel := g.withTimeout(ctx)
		defer cancel()
		opt.Status = ""
		return agent.New(recipes, opt).Once(ctx, func(_ string, changed []string) {
			for _, path := range changed {
				fmt.Fprintln(g.out, path)
			}
		})
	}
	g.progress.hide()
	return agent.New(recipes, opt).Run(ctx)
}

// dialable finds out what is wrong with the address, the message and the certificates
// before they are tried again and again.
func (a *app) dialable() error {
	if _, err := a.message(); err != nil {
		return err
	}
	conf, err := a.tlsConfig()
	if err != nil {
		return err
	}
	if _, err := client.Dialer(a.addr, conf); err != nil {
		return misused("%w", err)
	}
	return nil
}

// newAgentStatus is `meta9 agent status`.
func newAgentStatus(g *agentFlags) *cobra.Command {
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:     "status [-o json]",
		Example: "meta9 agent status",
		Short:   "say how the agent of this guest is",
		Long: `Say whether the host is there, and how each recipe is. It exits with 1 where a recipe
fails or was not tried yet, and with 3 where the host is not there or no agent runs.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			return g.sayStatus(bool(asJSON))
		},
	}
	outputFlag(cmd, &asJSON)
	return cmd
}

func (g *agentFlags) sayStatus(asJSON bool) error {
	s, err := agent.ReadStatus(g.status)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: no agent runs: there is no %s", client.ErrUnavailable, g.status)
	case err != nil:
		return err
	case !s.Runs():
		return fmt.Errorf("%w: the agent (process %d) was killed", client.ErrUnavailable, s.PID)
	}
	if asJSON {
		if err := g.printValue(s); err != nil {
			return err
		}
	} else if _, err := fmt.Fprint(g.out, agentScreen(s, time.Now())); err != nil {
		return err
	}
	switch trouble := s.Trouble(); {
	case trouble == "":
		return nil
	case !s.Host.Up:
		return fmt.Errorf("%w: %s", client.ErrUnavailable, trouble)
	default:
		return errors.New(trouble)
	}
}

// agentScreen is a Status for people.
func agentScreen(s *agent.Status, now time.Time) string {
	var b strings.Builder
	ago := func(t time.Time) string { return now.Sub(t).Truncate(time.Second).String() }
	fmt.Fprintf(&b, "agent    %s, process %d, up %s\n", s.Version, s.PID, ago(s.Began))
	host := "there"
	if !s.Host.Up {
		host = "away: " + s.Host.Error
	}
	fmt.Fprintf(&b, "host     %s, for %s; %d events; some may have been missed, and all was read again: %d times\n", printable(host), ago(s.Host.Since), s.Host.Events, s.Host.Lost)
	for _, r := range s.Recipes {
		is := "not tried yet"
		switch {
		case r.Error != "":
			is = "fails: " + r.Error
		case r.Changed != nil:
			is = "changed " + ago(*r.Changed) + " ago"
		case r.Tried != nil:
			is = "as it was"
		}
		fmt.Fprintf(&b, "recipe   %s: %s (%d changes, %d failures)\n", r.Name, printable(is), r.Changes, r.Failures)
	}
	return b.String()
}
