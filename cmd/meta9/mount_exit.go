package main

import (
	"errors"
	"os"
)

// helperName is what mount(8) calls for file systems of the type meta9.
const helperName = "mount.meta9"

// The exit codes that mount(8) wants; see mount(8).
const (
	mountUsage       = 1 // or no permission
	mountInterrupted = 8
	mountFailed      = 32
)

// helperError is an error of the helper's, which has exit codes of its own.
type helperError struct{ error }

func (e helperError) Unwrap() error { return e.error }

func (e helperError) code() int {
	switch exitCode(e.error) {
	case exitUsage:
		return mountUsage
	case exitSignal:
		return mountInterrupted
	}
	if errors.Is(e.error, os.ErrPermission) {
		return mountUsage
	}
	return mountFailed
}

// saidError is an error that was said already, by the process that had it.
type saidError struct{ code int }

func (e saidError) Error() string { return "" }
