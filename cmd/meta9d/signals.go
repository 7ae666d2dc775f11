package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

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
