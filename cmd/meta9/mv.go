package main

import (
	"context"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newMv is `meta9 mv`. It never falls back to a copy and a removal: between the
// two, others would see both files or, after a failure, keep both.
func newMv(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "mv PATH NEWPATH",
		Short:             "rename a file",
		Example:           "meta9 mv names/web0/keys/motd.new names/web0/keys/motd",
		Long:              "Give a file another name in its folder. A file that has that name is replaced, at\nonce. Between folders 9P2000 renames nothing.",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completePaths(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return c.Rename(ctx, args[0], args[1])
			})
		},
	}
}
