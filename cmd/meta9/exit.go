package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"meta9/fs/errs"
	"meta9/session/client"
)

// The exit codes, which scripts may rely on. Of several failures the highest
// counts.
const (
	exitOK       = 0
	exitFailed   = 1   // the server refused, the file is not there, input is no good
	exitUsage    = 2   // the command line
	exitNoServer = 3   // no connection, or no answer in time
	exitUnknown  = 4   // a change may or may not have happened
	exitUnmet    = 5   // a condition of put or txn does not hold: nothing is changed
	exitRestart  = 6   // upgrade: no live update is possible, but a restart
	exitSignal   = 130 // interrupted
)

// exitHelp is what the help and the manual page say of them.
const exitHelp = `0  done
1  the server refused, there is no such file, or the input is no good
2  the command line is wrong
3  no connection, or no answer within --timeout; what failed did not happen
4  a change may or may not have happened: the time was over before it was
   answered, or the connection did not come back with its session (meta9d was
   killed or away for too long; a server of another kind keeps none)
5  a condition of put or txn does not hold; nothing was changed
6  'meta9 upgrade': no live update is possible here, a restart is needed; the
   program to be started is good, as far as it could be asked
130  interrupted; what was interrupted did not happen`

// usageError is an error of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// restartError says that meta9d must be restarted, as no live update is possible.
type restartError struct{ error }

func (e restartError) Unwrap() error { return e.error }

// misused is a usageError; its text is formatted as by fmt.Errorf.
func misused(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode is the exit code for err. Where err says both that the time was over and that
// the outcome is unknown, it is the code of the second: a script must know that.
func exitCode(err error) int {
	var u usageError
	var e *client.Error
	var m mdataError
	var v vmadmError
	var h helperError
	var said saidError
	var restart restartError
	switch connecting := errors.As(err, &e) && e.Op == "connect"; {
	case err == nil:
		return exitOK
	case errors.As(err, &h):
		return h.code()
	case errors.As(err, &said):
		return said.code
	case errors.As(err, &restart):
		return exitRestart
	case errors.As(err, &u), connecting && e.Kind == errs.Invalid:
		return exitUsage
	case errors.Is(err, client.ErrUnknown):
		return exitUnknown
	case errors.Is(err, errs.Canceled):
		return exitUnmet
	case errors.Is(err, context.Canceled):
		return exitSignal
	case errors.As(err, &m):
		return m.code
	case errors.As(err, &v):
		return v.code
	case connecting, errors.Is(err, client.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return exitNoServer
	}
	return exitFailed
}

// printable is s with control characters escaped: names and texts may come from a guest.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// fail prints err, if there is one, and notes its exit code.
func (a *app) fail(err error) {
	if err == nil {
		return
	}
	err = a.explained(err)
	a.code = max(a.code, exitCode(err))
	a.progress.hide()
	if errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrUnknown) {
		return // the user has interrupted it
	}
	if errors.As(err, new(saidError)) {
		return
	}
	defer func() {
		var e interface{ where() string }
		if errors.As(err, &e) {
			fmt.Fprintln(a.err, "meta9:", printable(e.where()))
		}
	}()
	var v vmadmError
	if errors.As(err, &v) {
		fmt.Fprintln(a.err, printable(v.text))
		return
	}
	fmt.Fprintln(a.err, "meta9:", printable(err.Error()))
	var u usageError
	if errors.As(err, &u) {
		fmt.Fprintf(a.err, "Try '%s --help'.\n", a.path)
	}
}

// asUsageError makes cobra's errors usageErrors: they come before a command has run.
func (a *app) asUsageError(err error) error {
	if err != nil && !a.ran {
		return usageError{err}
	}
	return err
}
