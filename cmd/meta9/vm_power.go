package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// The states of a VM that the commands here know, as QEMU has them; meta9d's own are
// installed, for a VM that was created and never ran, and stopped, for one whose QEMU
// has ended.
const (
	stateInstalled = "installed"
	stateRunning   = "running"
	statePrelaunch = "prelaunch" // not started yet, or reset while it was off
	stateShutdown  = "shutdown"  // the guest is off, and QEMU is there (-no-shutdown)
	stateStopped   = "stopped"
)

func newVMStart(a *app) *cobra.Command {
	cmd := a.newPower("start VM", "Successfully started VM", (*power).start)
	cmd.Aliases = []string{"boot"}
	cmd.Short = "start a VM, or let a paused one go on"
	cmd.Long = `Let the VM run: one that was started paused, was paused, or is shut down while its
hypervisor is kept. Done when its state is running.`
	return cmd
}

func newVMStop(a *app) *cobra.Command {
	var force bool
	var wait uint
	var cmd *cobra.Command
	cmd = a.newPower("stop [-F] [-t SECONDS] VM", "Successfully completed stop for VM", func(p *power, ctx context.Context) error {
		switch state, err := p.state(ctx); {
		case err != nil:
			return err
		case state == stateStopped:
			p.instead = "VM " + p.uuid + " is already stopped"
			return nil
		case state == stateInstalled: // it never ran: it is stopped already
			return verb(ctx, p.c, vmPath(p.uuid, "ctl"), "update", []byte(`{"state":"`+stateStopped+`"}`))
		}
		given := cmd.Flags().Changed("wait")
		switch {
		case force, given && wait == 0:
			return p.do(ctx, "quit", stateStopped)
		case given:
			return p.shutDownOrEnd(ctx, time.Duration(wait)*time.Second)
		}
		return p.shutDown(ctx)
	})
	cmd.Aliases = []string{"halt"}
	cmd.Short = "shut a VM down, or end it with -F"
	cmd.Long = `Press the VM's power button, by ACPI, and wait until it is off. A guest that takes
no notice runs on, and this fails when the time of --timeout is over; with -t it is
ended after so many seconds, beside which --timeout counts. -F ends the VM's
hypervisor without asking the guest. A VM that is stopped stays so, and that is no
error. To pause a VM instead, write stop to its ctl.`
	cmd.Example = `meta9 vm stop -t 60 550e8400-e29b-41d4-a716-446655440000`
	cmd.Flags().BoolVarP(&force, "force", "F", false, "end the VM without asking its guest")
	cmd.Flags().UintVarP(&wait, "wait", "t", 0, "wait `SECONDS` for the guest, then end the VM")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		const longest = 24 * 60 * 60
		if wait > longest {
			return misused("-t: at most %d seconds", longest)
		}
		if !cmd.Flags().Changed("timeout") && a.timeout > 0 {
			a.timeout += time.Duration(wait) * time.Second
		}
		return nil
	}
	return cmd
}

func newVMReboot(a *app) *cobra.Command {
	cmd := a.newPower("reboot [-F] VM", "Successfully completed reboot for VM", func(p *power, ctx context.Context) error {
		return p.do(ctx, "reset")
	})
	cmd.Short = "reset a VM"
	cmd.Long = "Press the VM's reset button: it boots at once. The guest is not asked, with or without -F:\nto ask it, stop the VM and start it again."
	cmd.Flags().BoolP("force", "F", false, "for vmadm's users: a reset asks nobody anyway")
	return cmd
}

// power is a VM that is started or stopped. The command opens the VM's events first, then
// writes a verb to its ctl, and reads the events until the VM is in the new state.
type power struct {
	c       *client.Client
	uuid    string
	instead string // printed in place of success
	events  *client.File
	off     int64
}

// newPower is a command that the VM's hypervisor does; where none is attached, the
// server's error says so.
func (a *app) newPower(use, success string, do func(*power, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use:               use,
		Example:           "meta9 vm " + strings.Fields(use)[0] + " web0",
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := a.uuidArg(cmd, args)
			switch {
			case err != nil:
				return err
			case len(args) > 1:
				return misused("%s takes nothing more, not %q: what a VM boots from is for its QEMU's command line", cmd.Name(), args[1])
			}
			said := success + " " + uuid
			err = a.inTime(cmd, func(ctx context.Context, c *client.Client) (err error) {
				p := &power{c: c, uuid: uuid, instead: said}
				defer func() { said = p.instead }()
				if p.events, err = c.Open(ctx, vmPath(uuid, "events")); err != nil {
					return err
				}
				defer p.events.Close()
				return do(p, ctx)
			})
			if err == nil {
				fmt.Fprintln(a.err, said)
			}
			return about(uuid, err)
		},
	}
}

// tellTime is how long after --timeout a command may still take to say what happened.
const tellTime = 300 * time.Millisecond

// inTime is with, for what a hypervisor does. When --timeout is over, it does not wait for
// the outcome: the server cannot cancel what the hypervisor has begun. do may still run then, so
// that what it sets is looked at only where there is no error.
func (a *app) inTime(cmd *cobra.Command, do func(ctx context.Context, c *client.Client) error) error {
	ctx, cancel := a.withTimeout(cmd.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.with(cmd, do) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(tellTime):
		return fmt.Errorf("%w: %w", client.ErrUnknown, context.Cause(ctx))
	}
}

// start lets the VM run. A VM that is shut down must be reset first.
func (p *power) start(ctx context.Context) error {
	state, err := p.state(ctx)
	if err == nil && state == stateShutdown {
		err = p.do(ctx, "reset", statePrelaunch)
	}
	if err != nil {
		return err
	}
	return p.do(ctx, "start", stateRunning)
}

// shutDown asks the guest to shut down. The guest may take long or ignore it.
func (p *power) shutDown(ctx context.Context) error {
	if err := p.do(ctx, "powerdown"); err != nil {
		return err
	}
	state, err := p.await(ctx, stateShutdown, stateStopped)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: the guest was asked to shut down, and its state is %s still; --timeout waits longer, -t SECONDS or -F ends it", p.uuid, state)
	}
	return err
}

// shutDownOrEnd is shutDown, but ends the VM if the guest takes longer than wait.
func (p *power) shutDownOrEnd(ctx context.Context, wait time.Duration) error {
	asked, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := p.shutDown(asked)
	if err == nil || asked.Err() == nil || ctx.Err() != nil {
		return err
	}
	return p.do(ctx, "quit", stateStopped)
}

// do writes a verb to the VM's ctl and waits for one of the states, if any are
// given.
func (p *power) do(ctx context.Context, verb string, states ...string) error {
	err := p.c.WriteFile(ctx, vmPath(p.uuid, "ctl"), []byte(verb+"\n"))
	if err == nil && len(states) > 0 {
		_, err = p.await(ctx, states...)
	}
	return err
}

// state is the VM's.
func (p *power) state(ctx context.Context) (string, error) {
	o, err := readVM(ctx, p.c, p.uuid)
	if err == nil && o == nil {
		err = notConfigured(p.uuid)
	}
	return o.word("state"), err
}

// await waits until the VM is in one of the states. With an error it is the last
// state that was seen.
func (p *power) await(ctx context.Context, states ...string) (state string, err error) {
	buf := make([]byte, 4096)
	for {
		now, err := p.state(ctx)
		if err != nil {
			return state, err
		}
		state = now
		if slices.Contains(states, state) {
			return state, nil
		}
		n, err := p.events.ReadAt(ctx, buf, p.off) // something has changed
		p.off += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			return state, err
		}
	}
}
