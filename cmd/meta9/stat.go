package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// newStat is `meta9 stat`, in lines of a name and a value for scripts.
func newStat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stat PATH...",
		Short: "say what is known of files",
		Long: `Print for each file or folder one line each of: path, type, mode, length in bytes,
when it was changed, by whom, and the qid: a number that no other file ever
has, and one that changes with every change.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completePaths(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				for _, path := range args {
					info, err := c.Stat(ctx, path)
					a.fail(err)
					if err == nil {
						a.describe(path, &info)
					}
				}
				return nil
			})
		},
	}
}

func (a *app) describe(path string, i *client.Info) {
	kind := "file"
	if i.IsDir() {
		kind = "folder"
	}
	fmt.Fprintf(a.out, "path: %s\ntype: %s\nmode: %04o\nlength: %d\nchanged: %s\nby: %s\nqid: %d.%d\n",
		path, kind, i.Mode.Perm(), i.Length, i.Mtime.UTC().Format(time.RFC3339), printable(orDash(i.Muid)), i.QID.Path, i.QID.Version)
}
