// Meta9 is the command line of meta9: it reads, writes and watches the files that
// meta9d serves, and manages VMs. It runs on hosts and in guests, and links no
// store.
//
// Each subcommand has a file of its own; what they share is in app. One command
// runs, in one goroutine; `vm list` reads with several, and what a hypervisor does is
// waited for in one of its own.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	args := os.Args[1:]
	switch name := filepath.Base(os.Args[0]); name {
	case helperName:
		args = append([]string{helperName}, args...)
	case vmadmName:
		args = append([]string{"vm"}, args...)
	case "mdata-get", "mdata-put", "mdata-list", "mdata-delete":
		args = append(strings.Split(name, "-"), args...)
	}
	code := run(ctx, args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main, with all that it touches.
func run(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	a := &app{in: in, err: err, tty: isTerminal(out)}
	written := &written{Writer: interruptible{ctx, out}}
	a.term = output{written, &a.progress}
	a.out = a.term
	if a.tty {
		a.out = terminal{a.term}
	}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(a.out)
	root.SetErr(err)
	cmd, e := root.ExecuteContextC(ctx)
	a.path = cmd.CommandPath()
	e = a.asUsageError(e)
	if e == nil {
		e = written.err
	}
	a.fail(e)
	return a.code
}
