package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"meta9/cmd/systemd"
)

// takesHangups tells whether SIGHUP is a reload. A daemon that somebody runs in his
// terminal, and that has no files to read again, ends when that is closed, as any program.
func (c *command) takesHangups() bool {
	return c.file != "" || !term.IsTerminal(int(os.Stdin.Fd()))
}

// hangups gives each SIGHUP from now on, where that is a reload: one that comes while the
// daemon starts waits.
func (c *command) hangups() <-chan os.Signal {
	got := make(chan os.Signal, 1)
	if c.takesHangups() {
		signal.Notify(got, syscall.SIGHUP)
	}
	return got
}

// reloads reloads at every SIGHUP, until ctx ends.
func (d *daemon) reloads(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-hangups:
			notifyReloading()
			d.reload()
			systemd.Notify("READY=1")
		case <-ctx.Done():
			return
		}
	}
}

// untilSignal is a context that ends with the first SIGTERM or SIGINT. The second signal
// ends the process at once; what was answered is durable already.
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
