package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"meta9/session/client"
)

// progressAfter is how long a command waits before it shows what it waits for.
const progressAfter = time.Second

// progress is one line on a terminal that says what the command waits for. Where standard
// error is no terminal nothing is shown.
type progress struct {
	mu    sync.Mutex
	w     io.Writer // nil: say nothing
	timer *time.Timer
	text  string
	shown bool
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// on starts it, if w is a terminal.
func (p *progress) on(w io.Writer) {
	if !isTerminal(w) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.w = w
	p.timer = time.AfterFunc(progressAfter, p.show)
}

// say sets what is waited for.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	if p.shown {
		p.draw()
	}
}

// connection says what became of the connection.
func (p *progress) connection(s client.State) {
	if s.Up {
		p.say("connected again")
	} else {
		p.say("connection lost, trying again: " + s.Err.Error())
	}
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil && p.text != "" {
		p.draw()
	}
}

// draw writes the line over the one before; mu is held.
func (p *progress) draw() {
	p.shown = true
	fmt.Fprintf(p.w, "\r\x1b[K%s", printable(p.text))
}

// hide removes the line for good, before the command's output.
func (p *progress) hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return
	}
	p.timer.Stop()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.w, p.shown = nil, false
}

// output is standard output, before which the progress goes away.
type output struct {
	io.Writer
	before *progress
}

func (o output) Write(b []byte) (int, error) {
	o.before.hide()
	return o.Writer.Write(b)
}

// written keeps the first error of writing output, for all commands: with a full disk the
// exit code must not be 0.
type written struct {
	io.Writer
	err error
}

func (w *written) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// lastWords is how long a write may still take after an interrupt: what a command says on
// its way out is not lost.
const lastWords = 100 * time.Millisecond

// interruptible ends a write with ctx: nobody may be reading from the pipe. What was to be
// written may still come then.
type interruptible struct {
	ctx context.Context
	io.Writer
}

func (w interruptible) Write(b []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	b = bytes.Clone(b) // after an interrupt the caller may use its own again
	go func() {
		n, err := w.Writer.Write(b)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-w.ctx.Done():
	}
	select {
	case r := <-done:
		return r.n, r.err
	case <-time.After(lastWords):
		return 0, context.Cause(w.ctx)
	}
}
