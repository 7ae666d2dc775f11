//go:build linux && (386 || arm)

package main

import (
	"context"
	"errors"
	"runtime"

	"meta9/session/keep"
)

// errNotBuilt says that this program has no FUSE: go-fuse does not build for Linux of 32 bits.
var errNotBuilt = errors.New("this meta9 cannot mount by FUSE: it is one of " + runtime.GOARCH + "; one of 64 bits can")

func (m *mounting) mountFUSE(context.Context, *keep.Keeper, chan<- error) error { return errNotBuilt }
