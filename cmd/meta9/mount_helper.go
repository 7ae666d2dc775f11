package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
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

// newMountHelper is `mount.meta9 ADDR DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`.
func newMountHelper(a *app) *cobra.Command {
	m := &mounting{app: a, ready: -1}
	var options []string
	fake := false
	cmd := &cobra.Command{
		Use:    helperName + " ADDR DIR [-sfnv] [-o OPTION,...]",
		Short:  "what mount(8) calls",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return helperError{misused("%s ADDR DIR [-sfnv] [-o OPTION,...]", helperName)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			m.source, m.list = args[0], strings.Join(options, ",")
			err := m.prepare(args[1])
			if err == nil && !fake {
				err = m.detach(cmd.Context())
			}
			if err != nil {
				return helperError{err}
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return helperError{usageError{err}} })
	f := cmd.Flags()
	f.StringArrayVarP(&options, "options", "o", nil, "the mount's `OPTIONS`")
	f.BoolVarP(&m.sloppy, "sloppy", "s", false, "leave out options that nobody knows")
	f.BoolVarP(&fake, "fake", "f", false, "do all but mount")
	f.BoolP("no-mtab", "n", false, "there is none")
	f.BoolP("verbose", "v", false, "there is nothing to say")
	f.StringP("namespace", "N", "", "mount(8) has entered it")
	f.StringP("types", "t", "", "meta9")
	return cmd
}
