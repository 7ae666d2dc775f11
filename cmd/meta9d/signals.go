package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// reloads reloads at every SIGHUP, until ctx ends. It returns once it listens. A daemon
// that somebody runs in his terminal, and that has nothing to reload, ends when that is
// closed, as any program.
func (d *daemon) reloads(ctx context.Context) {
	if d.denied == nil && term.IsTerminal(int(os.Stdin.Fd())) {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	go d.reloadAt(ctx, c)
}

func (d *daemon) reloadAt(ctx context.Context, c <-chan os.Signal) {
	for {
		select {
		case <-c:
			d.reload()
		case <-ctx.Done():
			return
		}
	}
}

// untilSignal is a context that ends with the first SIGTERM or SIGINT. The second
// one ends the process at once: nothing that was answered is lost by that.
func untilSignal() context.Context {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGTERM, os.Interrupt)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-c
		cancel()
		<-c
		os.Exit(exitFailure)
	}()
	return ctx
}
