package main

import (
	"context"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

func newCat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "cat PATH...",
		Short:             "print files",
		Long:              "Print the value of each file, byte for byte: nothing is added, not even a newline.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completePaths(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				for _, path := range args {
					data, err := c.ReadFile(ctx, path)
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
