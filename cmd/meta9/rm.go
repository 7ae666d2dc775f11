package main

import (
	"context"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newRm is `meta9 rm`. After a failure it goes on: what was not removed, and why,
// is told for each.
func newRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rm PATH...",
		Short:             "remove files",
		Long:              "Remove each file. One that cannot be removed does not keep the others from it. A VM is\nnot removed by this: that is 'meta9 vm delete'.",
		Example:           "meta9 rm names/web0/keys/motd keys/a keys/b",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completePaths(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				for _, path := range args {
					a.fail(c.Remove(ctx, path))
				}
				return nil
			})
		},
	}
}
