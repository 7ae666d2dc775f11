package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"meta9/mdbridge/vminfo"
	"meta9/session/client"
)

// vminfodAddr is where vminfod listens, and meta9d if it is configured to.
const vminfodAddr = "http://127.0.0.1:9090"

func newVminfo(a *app) *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:     "vminfo COMMAND [ARG]...",
		Short:   "ask a vminfod, or meta9d's own",
		Example: "meta9 vminfo ping\nmeta9 vminfo --url http://10.0.0.2:9090 vms",
		Long: `Ask a vminfod by its HTTP API. It is looked for beside meta9d's admin socket, then at
` + vminfodAddr + `; --url names another place.`,
		Args: cobra.NoArgs,
		RunE: whichCommand,
	}
	cmd.PersistentFlags().StringVar(&addr, "url", "", "the vminfod is at `ADDR`: http://HOST:PORT or unix:PATH")
	for _, add := range []func(*app, *string) *cobra.Command{newVminfoPing, newVminfoStatus, newVminfoVMs, newVminfoVM, newVminfoEvents} {
		cmd.AddCommand(add(a, &addr))
	}
	return cmd
}

// vminfod is the address of the vminfod to ask. A user who names a meta9d on another host
// with --addr must name its vminfod too: this host's would be another.
func (a *app) vminfod(addr string) (string, error) {
	if addr != "" {
		return addr, nil
	}
	socket, err := a.vminfoSocket()
	switch {
	case err == nil:
		return "unix:" + socket, nil
	case errors.Is(err, errRemote):
		return "", misused("%w; say with --url http://HOST:PORT where its HTTP API is", err)
	}
	return vminfodAddr, nil
}

// ask gets one answer of the vminfod at url, "" for the usual one.
func (a *app) ask(cmd *cobra.Command, url string, do func(ctx context.Context, c *vminfo.Client) ([]byte, error)) ([]byte, error) {
	addr, err := a.vminfod(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.withTimeout(cmd.Context())
	defer cancel()
	c, err := a.vminfo(addr, "meta9 vminfo")
	if err != nil {
		return nil, misused("%w", err)
	}
	defer c.Close()
	a.progress.say("waiting for " + addr)
	b, err := do(ctx, c)
	return b, inWords(httpError(addr, err))
}

// httpError adds to an error of a request by HTTP what the server says, if it has refused the
// request, and the address, if there was no connection.
func httpError(addr string, err error) error {
	var s *vminfo.StatusError
	if errors.As(err, &s) && strings.TrimSpace(s.Text) != "" {
		return fmt.Errorf("%s (%w)", strings.TrimSpace(s.Text), err)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%s: %w: %w", addr, client.ErrUnavailable, err)
	}
	return err
}

// notFound tells whether a vminfod has said that there is no such thing.
func notFound(err error) bool {
	var s *vminfo.StatusError
	return errors.As(err, &s) && s.Code == http.StatusNotFound
}

// inWords makes a vminfod's refusal the text that its own client prints.
func inWords(err error) error {
	var s *vminfo.StatusError
	if errors.As(err, &s) {
		return vmadmError{code: exitFailed, text: s.Error()}
	}
	return err
}

func newVminfoPing(a *app, url *string) *cobra.Command {
	return &cobra.Command{
		Use: "ping", Short: "tell whether it answers",
		Long:    "Ask it for a ping, and print what it answers: pong.",
		Example: "meta9 vminfo ping",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.ask(cmd, *url, get("/ping"))
			if err != nil {
				return err
			}
			var answer struct{ Ping string }
			if err := json.Unmarshal(b, &answer); err != nil {
				return fmt.Errorf("the answer to ping: %w", err)
			}
			fmt.Fprintln(a.out, printable(answer.Ping))
			return nil
		},
	}
}

// get asks for a path.
func get(path string) func(context.Context, *vminfo.Client) ([]byte, error) {
	return func(ctx context.Context, c *vminfo.Client) ([]byte, error) { return c.Get(ctx, path) }
}

func newVminfoVMs(a *app, url *string) *cobra.Command {
	return &cobra.Command{
		Use: "vms", Short: "print all VMs as JSON",
		Long:    "Print all VMs as a JSON array, as the service gives them.",
		Example: "meta9 vminfo vms | jq length",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := a.ask(cmd, *url, get("/vms"))
			if err != nil {
				return err
			}
			return a.printJSON(b)
		},
	}
}

func newVminfoVM(a *app, url *string) *cobra.Command {
	return &cobra.Command{
		Use: "vm ZONENAME", Short: "print a VM as JSON",
		Long:              "Print one VM as JSON. ZONENAME is what the service knows it by: its zonename or UUID.",
		Example:           "meta9 vminfo vm 550e8400-e29b-41d4-a716-446655440000",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeUUID,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.ask(cmd, *url, func(ctx context.Context, c *vminfo.Client) ([]byte, error) { return c.VM(ctx, args[0]) })
			if err != nil {
				return err
			}
			return a.printJSON(b)
		},
	}
}

func newVminfoEvents(a *app, url *string) *cobra.Command {
	var opt eventOptions
	cmd := &cobra.Command{
		Use: "events [-f] [-j] [-r]", Short: "print what changes in VMs, as it happens",
		Long:    "Print a line for each change of a VM: when, which VM, its alias, what was done. It runs\nuntil it is interrupted, and fails when the stream ends.",
		Example: "meta9 vminfo events -j",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			addr, err := a.vminfod(*url)
			if err != nil {
				return err
			}
			return inWords(a.events(cmd.Context(), addr, opt, ""))
		},
	}
	opt.flags(cmd)
	return cmd
}

func newVminfoStatus(a *app, url *string) *cobra.Command {
	var asJSON, full bool
	cmd := &cobra.Command{
		Use: "status [-j] [-f]", Short: "print how it is",
		Long:    "Print how the service is: its refreshes, errors and listeners. With -f it says more.",
		Example: "meta9 vminfo status\nmeta9 vminfo status -j",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/status"
			if full {
				path += "?full=true"
			}
			b, err := a.ask(cmd, *url, get(path))
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(b)
			}
			var st vminfodStatus
			if err := json.Unmarshal(b, &st); err != nil {
				return fmt.Errorf("the status: %w", err)
			}
			_, err = a.out.Write([]byte(strings.Join(st.lines(), "\n") + "\n"))
			return err
		},
	}
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "as JSON")
	cmd.Flags().BoolVarP(&full, "full", "f", false, "ask for all there is")
	return cmd
}
