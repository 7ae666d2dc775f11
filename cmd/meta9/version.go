package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"meta9/cmd/version"
)

// newVersion is `meta9 version`.
func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Long:    "Print which meta9 this is: the tag that it was built from, or the commit; and the system.",
		Example: "meta9 version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "meta9 %s %s/%s\n", version.String(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
