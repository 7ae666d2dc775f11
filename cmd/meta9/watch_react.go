package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"meta9/backoff"
	"meta9/cmd/meta9/debounce"
	"meta9/cmd/meta9/group"
)

// maxGathered is how many bytes of events one run is told of.
const maxGathered = 64 << 10

// reactAgain makes the pauses between the runs of what fails.
var reactAgain = backoff.Backoff{First: time.Second, Last: time.Minute}

// reaction is what `meta9 watch` does about changes instead of printing them. One
// goroutine gathers events, and one runs: what comes meanwhile waits for the next run.
type reaction struct {
	*app
	command  string // for the shell; "": none
	touch    string // a file; "": none
	initial  bool
	debounce time.Duration

	at  place
	due *debounce.Changes

	mu    sync.Mutex
	lines []byte // the events since the last run that went well
}

// flags are those that ask for it.
func (r *reaction) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.command, "exec", "", "run the shell's line `COMMAND` when something has changed")
	f.StringVar(&r.touch, "touch", "", "make `FILE`, or set its time, when something has changed")
	f.BoolVar(&r.initial, "initial", false, "do so once at the beginning, too")
	f.DurationVar(&r.debounce, "debounce", 100*time.Millisecond, "wait until nothing has changed for `TIME`, but no longer than ten times that")
	_ = cmd.MarkFlagFilename("touch")
}

// watch reacts to the events of a place until ctx ends or there can be no more. What
// runs then is waited for.
func (r *reaction) watch(ctx context.Context, at place) error {
	r.at, r.due = at, debounce.New(r.debounce)
	if !signal.Ignored(syscall.SIGHUP) { // of a terminal that goes, only this program is told: the command has a group of its own
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	if r.initial {
		r.due.Now()
	}
	run, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	err := r.app.watch(ctx, at, &watcher{tell: r.gather, begun: func() error {
		running.Go(func() { r.run(run) })
		return nil
	}})
	stop()
	running.Wait()
	return err
}

// gather takes an event in.
func (r *reaction) gather(line []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(append(r.lines, line...), '\n')
	r.clip()
	r.due.Came()
	return nil
}

// clip takes the oldest events out where they are too many, and says so in their place.
// mu is held.
func (r *reaction) clip() {
	if len(r.lines) <= maxGathered {
		return
	}
	line, _, _ := bytes.Cut(r.lines, []byte("\n"))
	var first struct{ Rev, From uint64 }
	_ = json.Unmarshal(line, &first) // what is no event has no revision
	rest := r.lines[len(r.lines)-maxGathered/2:]
	_, rest, _ = bytes.Cut(rest, []byte("\n"))
	r.lines = append(fmt.Appendf(nil, `{"type":"lost","from":%d}`+"\n", max(first.Rev, first.From)), rest...)
}

// run runs whenever there is something to do, until ctx ends.
func (r *reaction) run(ctx context.Context) {
	for tries := 0; r.due.Wait(ctx, reactAgain.Pause(tries)); {
		r.mu.Lock()
		told := r.lines
		r.lines = nil
		r.mu.Unlock()
		err := r.act(ctx, told)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			tries = 0
			continue
		}
		tries++
		r.mu.Lock()
		r.lines = append(bytes.Clone(told), r.lines...)
		r.clip()
		r.mu.Unlock()
		fmt.Fprintf(interruptible{ctx, r.err}, "meta9: %s; it is tried again\n", printable(err.Error()))
	}
}

// act does what is to be done about events.
func (r *reaction) act(ctx context.Context, lines []byte) error {
	if r.touch != "" {
		if err := touch(r.touch); err != nil {
			return err
		}
	}
	if r.command == "" {
		return nil
	}
	cmd := shellCommand(ctx, r.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(lines), r.term, r.err
	cmd.Env = append(os.Environ(), "META9_PATH="+r.at.String())
	if r.addr != "" {
		cmd.Env = append(cmd.Env, "META9_ADDR="+r.addr)
	}
	if err := group.Run(ctx, cmd); err != nil {
		return fmt.Errorf("%s: %w", r.command, err)
	}
	return nil
}

// shellCommand is a line for this system's shell.
func shellCommand(ctx context.Context, line string) *exec.Cmd {
	switch runtime.GOOS {
	case "windows":
		return exec.CommandContext(ctx, "cmd", "/C", line)
	case "plan9":
		return exec.CommandContext(ctx, "rc", "-c", line)
	}
	return exec.CommandContext(ctx, "sh", "-c", line)
}

// touch makes a file, or sets its time; either is seen by who watches it, as
// systemd.path(5) does.
func touch(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	now := time.Now()
	err = os.Chtimes(name, now, now)
	if late := f.Close(); err == nil {
		err = late
	}
	return err
}
