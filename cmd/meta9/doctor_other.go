//go:build !linux && !guest && !plan9

package main

import (
	"context"
	"errors"
	"runtime"
)

// examine would look at the host of a meta9d, which runs on Linux only.
func (a *app) examine(context.Context, doctorOptions) (*report, error) {
	return nil, errors.New("meta9d runs on Linux, and this is " + runtime.GOOS + ": run meta9 doctor on its host")
}
