// Meta9d serves the metadata of virtual machines over 9P: every VM a folder,
// every key a file. It only wires the rooms together: flags and settings, the
// store, the tree, sessions and listeners, in this order, and takes them down in
// the reverse one.
//
// One goroutine waits for the end here; the rest belong to the rooms. The signal
// that ends the daemon is the only thing that is shared, through a context.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"meta9/cmd/version"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // the data folder is in use or damaged, or the daemon failed
	exitUsage   = 2 // a flag, a setting, a file or a listener is not usable
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main. An error is printed as one line on stderr.
func run(args []string, stdout, stderr io.Writer) int {
	from, err := inheritedHandover()
	if err == nil {
		err = execute(from, args, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "meta9d:", oneLine(err))
	}
	return exitCode(err)
}

// execute does what args ask for. Where this program was to take over from another one,
// and cannot, that goes on.
func execute(from *handover, args []string, stdout, stderr io.Writer) (err error) {
	if from != nil {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
			if err != nil {
				err = from.back(err)
			}
		}()
	}
	root := newRoot(args, from.settings, func(c command) error {
		c.from = from
		return c.do(stdout, stderr)
	})
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.Execute()
}

// do does what the command line asks for, and returns when it is done.
func (c command) do(stdout, stderr io.Writer) error {
	switch {
	case c.version:
		_, err := fmt.Fprintln(stdout, "meta9d", version.String())
		return err
	case c.checkConfig:
		if err := c.config.checkFiles(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(stdout, c.checked())
		return err
	case c.checkUpgrade:
		return c.answerCheck(os.Stdin, stdout)
	case c.restore != "":
		return restoreBackup(c.restore, c.config.Data, stdout)
	case c.importFrom != "":
		return c.importFolder(untilSignal(), stdout, stderr)
	case c.exportTo != "":
		return c.exportFolder(untilSignal(), stdout, stderr)
	case c.check:
		return check(c.config.Data, stdout)
	}
	return serve(c, stdout, stderr)
}

// usageError is an error in flags or settings: the daemon has not begun.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// misused is a usageError; its text is formatted as by fmt.Errorf.
func misused(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// exitCode is the exit status that err ends with.
func exitCode(err error) int {
	var u usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u):
		return exitUsage
	}
	return exitFailure
}

// oneLine is an error as one line, whatever it quotes.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
