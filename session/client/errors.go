package client

import (
	"errors"
	"fmt"

	"meta9/fs/errs"
)

var (
	// ErrUnknown is in the chain of the error of a request that changes something
	// and whose outcome cannot be known: it was sent, and the session was lost with
	// the transport (any loss of the transport, where requests are not numbered), or
	// the context or Options.Patience ended and the server did not say in time what
	// became of it. It may or may not have happened.
	ErrUnknown = errors.New("may or may not have happened")

	// ErrUnavailable is in the chain of an error when there is no connection, and
	// Options.Patience has passed since there was one.
	ErrUnavailable = errors.New("no connection")

	// ErrClosed is the error of a closed Client or File.
	ErrClosed = errors.New("closed")
)

// Error is the error of every operation of this package.
type Error struct {
	// Op is what was tried: "read", "write", "stat", "list", "remove", "rename",
	// "open", "create", "close" or "connect".
	Op string
	// Path is the file it was tried on, as the caller spelled it; of Dial, the
	// address.
	Path string
	// Kind is the kind of error that the server named; errors.Is finds it. It is 0
	// when the server did not answer, or with a text that no kind has.
	Kind errs.Kind
	// Err is what happened: a server's error, the error of the transport or of the
	// context, ErrUnknown.
	Err error
}

// Error is the path and what happened. Op is left out: the caller knows it.
func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap is Err, which has the kind in its chain.
func (e *Error) Unwrap() error { return e.Err }

// wrap makes err the Error of op on path; nil stays nil.
func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Path: path, Err: err}
	errors.As(err, &e.Kind)
	return e
}

// lostError is what a request ends with whose reply will not come: its session has ended, or
// had no transport for too long.
type lostError struct {
	sent  bool  // its frame may have been sent
	cause error // why
}

func (l *lostError) Error() string { return "connection lost: " + l.cause.Error() }
func (l *lostError) Unwrap() error { return l.cause }

// isLost tells whether the request may be sent again in the next session.
func isLost(err error) bool {
	var l *lostError
	return errors.As(err, &l) && !errors.Is(err, ErrUnknown)
}

// errFlushed is the error of a request after Rflush: by flush(5) it is as if it had never
// been sent.
var errFlushed = errors.New("flushed")

// unknown adds ErrUnknown to err.
func unknown(err error) error { return fmt.Errorf("%w: %w", ErrUnknown, err) }
