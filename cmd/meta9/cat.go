package main

import (
	"context"
	"errors"
	"path"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// newCat is `meta9 cat`.
func newCat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "cat PATH...",
		Short:   "print files",
		Example: "meta9 cat names/web0/keys/motd\nmeta9 cat vms/$UUID/vm.json | jq .nics",
		Long: `Print the value of each file, byte for byte: nothing is added, not even a newline.
On a terminal control characters are spelled (\u001b), since a guest may have
written them; 'meta9 cat PATH | cat' prints them as they are.
Of an events file that is what comes from now on, as by watch.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completePaths(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				for _, file := range args {
					data, err := c.ReadFile(ctx, file)
					if endless(file, err) {
						err = a.watch(cmd.Context(), place{path: path.Dir(file)}, &watcher{tell: a.printEvent})
					}
					if err != nil {
						a.fail(err)
						continue
					}
					if _, err := a.out.Write(data); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// endless tells whether reading the file whole failed because it is a stream of events.
// The name alone does not tell: a key may be called events too.
func endless(file string, err error) bool {
	return path.Base(file) == "events" && errors.Is(err, errs.Permission)
}
