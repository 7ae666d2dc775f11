//go:build linux

package main

import (
	"strings"

	"github.com/spf13/cobra"
)

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
			err := m.prepare(cmd.Context(), args[1])
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
