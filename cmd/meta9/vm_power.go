package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// The states of a VM that the commands here wait for, as QEMU has them; stopped is
// meta9d's own, for a VM whose QEMU has ended.
const (
	stateRunning   = "running"
	statePrelaunch = "prelaunch" // not begun, or reset while it was off
	stateShutdown  = "shutdown"  // the guest is off, and QEMU is there (-no-shutdown)
	stateStopped   = "stopped"
)

func newVMStart(a *app) *cobra.Command {
	cmd := a.newPower("start UUID", "Successfully started VM", (*power).start)
	cmd.Aliases = []string{"boot"}
	cmd.Short = "start a VM, or let a paused one go on"
	cmd.Long = `Let the VM run: one that was started paused, was paused, or is shut down while its
hypervisor is kept. Done when its state is running.`
	return cmd
}

func newVMStop(a *app) *cobra.Command {
	var force bool
	cmd := a.newPower("stop [-F] UUID", "Successfully completed stop for VM", func(p *power, ctx context.Context) error {
		if force {
			return p.do(ctx, "quit", stateStopped)
		}
		return p.shutDown(ctx)
	})
	cmd.Aliases = []string{"halt"}
	cmd.Short = "shut a VM down, or end it with -F"
	cmd.Long = `Press the VM's power button, by ACPI, and wait until it is off. A guest that takes
no notice runs on, and this fails when the time of --timeout is over. -F ends the VM's
hypervisor without asking the guest. To pause a VM instead, write stop to its ctl.`
	cmd.Flags().BoolVarP(&force, "force", "F", false, "end the VM without asking its guest")
	return cmd
}

func newVMReboot(a *app) *cobra.Command {
	cmd := a.newPower("reboot [-F] UUID", "Successfully completed reboot for VM", func(p *power, ctx context.Context) error {
		return p.do(ctx, "reset")
	})
	cmd.Short = "reset a VM"
	cmd.Long = "Press the VM's reset button: it boots at once. The guest is not asked, with or without -F:\nto ask it, stop the VM and start it again."
	cmd.Flags().BoolP("force", "F", false, "for vmadm's users: a reset asks nobody anyway")
	return cmd
}

// power is a VM that is started or stopped. What a verb of its ctl makes of it is
// waited for by its events, which are open since before the verb.
type power struct {
	c      *client.Client
	uuid   string
	events *client.File
	off    int64
}

// newPower is a command that the VM's hypervisor does; where none is attached, the
// server's error says so.
func (a *app) newPower(use, success string, do func(*power, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use:               use,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeUUID,
		RunE: func(cmd *cobra.Command, args []string) error {
			uuid, err := uuidArg(cmd, args)
			if err != nil {
				return err
			}
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				p := &power{c: c, uuid: uuid}
				if p.events, err = c.Open(ctx, vmPath(uuid, "events")); err != nil {
					return err
				}
				defer p.events.Close()
				return do(p, ctx)
			})
			if err == nil {
				fmt.Fprintln(a.err, success, uuid)
			}
			return about(uuid, err)
		},
	}
}

// start lets the VM run. One that is shut down has to be reset first.
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

// shutDown asks the guest, which may take its time or no notice.
func (p *power) shutDown(ctx context.Context) error {
	if err := p.do(ctx, "powerdown"); err != nil {
		return err
	}
	state, err := p.await(ctx, stateShutdown, stateStopped)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: the guest was asked to shut down, and its state is %s still; --timeout waits longer, -F ends it", p.uuid, state)
	}
	return err
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
