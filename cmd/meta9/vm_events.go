package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// eventOptions are the flags of vm events and vminfo events.
type eventOptions struct {
	full, json, ready bool
	colours           bool
}

func (opt *eventOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&opt.full, "full", "f", false, "whole dates and names of VMs")
	f.BoolVarP(&opt.json, "json", "j", false, "one JSON object a line")
	f.BoolVarP(&opt.ready, "ready", "r", false, "the first event too, with which the stream begins")
}

func newVMEvents(a *app) *cobra.Command {
	var opt eventOptions
	cmd := &cobra.Command{
		Use:   "events [-f] [-j] [-r] [VM]",
		Short: "print what changes in VMs, as it happens",
		Long: `Print a line for each change of a VM: when, which VM, its alias, what was done, and of
a modify each property, its old and its new value. It runs until it is interrupted,
and fails when the stream ends. It asks the vminfod socket beside the admin's. VM is a
UUID or an alias.`,
		Example:           "meta9 vm events\nmeta9 vm events -j web0",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, err := a.vminfoSocket()
			switch {
			case errors.Is(err, errRemote):
				return misused("%w, and this asks a socket on its host; there is 'meta9 watch', or 'meta9 vminfo --url http://HOST:PORT events'", err)
			case err != nil:
				return err
			}
			only := strings.Join(args, "")
			if only != "" {
				if only, err = a.eventsOf(cmd, only); err != nil {
					return err
				}
			}
			return a.elsewhereOf(cmd.Context(), a.events(cmd.Context(), "unix:"+socket, opt, only))
		},
	}
	opt.flags(cmd)
	return cmd
}

// eventsOf is the UUID of the VM of that UUID or alias; what is neither may be a zonename.
func (a *app) eventsOf(cmd *cobra.Command, name string) (string, error) {
	if uuid, err := vm.ParseUUID(name); err == nil {
		return uuid, nil
	}
	uuid, err := a.byAlias(cmd, name)
	if errors.Is(err, errs.NotFound) {
		return name, nil
	}
	return uuid, err
}

// events prints the events of the service at addr; of one VM, if it is named.
func (a *app) events(ctx context.Context, addr string, opt eventOptions, only string) error {
	c, err := a.vminfo(addr, "meta9 events")
	if err != nil {
		return misused("%w", err)
	}
	defer c.Close()
	if err := a.checkVM(ctx, c, only); err != nil {
		return httpError(addr, err)
	}
	s, err := c.Events(ctx)
	if err != nil {
		return httpError(addr, err)
	}
	defer s.Close()
	a.progress.hide()
	opt.colours = a.coloured()
	for {
		ev, err := s.Next()
		switch {
		case err == io.EOF:
			return fmt.Errorf("the event stream has ended")
		case err != nil:
			return err
		case ev.Type == vminfo.Fault:
			return fmt.Errorf("%s", ev.Error)
		case ev.Type == vminfo.Ready && !opt.ready, ev.Type != vminfo.Ready && only != "" && only != ev.UUID && only != ev.Zonename:
			continue
		}
		out := a.term
		if opt.json {
			out = a.out
		}
		if _, err := out.Write(opt.lines(ev)); err != nil {
			return err
		}
	}
}

// checkVM fails when there is no VM of that name. "", all VMs, is there.
func (a *app) checkVM(ctx context.Context, c *vminfo.Client, name string) error {
	if name == "" {
		return nil
	}
	ctx, cancel := a.withTimeout(ctx)
	defer cancel()
	_, err := c.VM(ctx, name)
	if notFound(err) {
		return vmadmError{code: exitFailed, text: "VM " + name + " not found", about: name}
	}
	return err
}

// lines are an event as it is printed.
func (opt eventOptions) lines(ev *vminfo.Event) []byte {
	if opt.json {
		return append(ev.Raw, '\n')
	}
	date, name := ev.Date.UTC().Format("15:04:05.000Z"), ev.Zonename
	if opt.full {
		date = ev.Date.UTC().Format(vminfo.DateFormat)
	} else {
		name, _, _ = strings.Cut(name, "-")
	}
	if ev.Type == vminfo.Ready {
		if opt.full {
			return fmt.Appendf(nil, "[%s] %s (uuid %s)\n", date, ev.Type, printable(ev.UUID))
		}
		return fmt.Appendf(nil, "[%s] %s\n", date, ev.Type)
	}
	what := printable(ev.Type)
	if opt.colours {
		what = paint(eventColours[what], what)
	}
	base := fmt.Sprintf("[%s] %s %s %s", date, printable(name), shortAlias(ev.Alias()), what)
	if len(ev.Changes) == 0 { // also a modify that only changed the order of an array
		return []byte(base + "\n")
	}
	var b []byte
	for _, c := range ev.Changes {
		b = fmt.Appendf(b, "%s: %s %s :: %s -> %s\n", base, printable(c.PrettyPath), printable(c.Action), given(c.OldValue), given(c.NewValue))
	}
	return b
}

// shortAlias is an alias of at most 30 characters.
func shortAlias(alias string) string {
	const longest = 30
	r := []rune(printable(orDash(alias)))
	if len(r) > longest {
		return string(r[:longest-3]) + "..."
	}
	return string(r)
}

// given is a value of a change as JavaScript prints it, which is "undefined" for none.
func given(raw []byte) string {
	if raw == nil {
		return "undefined"
	}
	v, err := ordjson.Parse(raw)
	if err != nil {
		return printable(string(raw))
	}
	return printable(string(v.AppendJSON(nil)))
}
