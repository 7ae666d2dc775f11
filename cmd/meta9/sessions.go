package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// newSessions is `meta9 sessions`.
func newSessions(a *app) *cobra.Command {
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:   "sessions [-o json]",
		Short: "list who is connected by 9P, or may come back",
		Long: `Print a line for each session: its number, whose it is (admin, vm:UUID), whether it has a
connection (live) or has lost it (parked), since when, its dialect of 9P, and by what
listener it came. With -o json all that is known of each is in an array.`,
		Example:           "meta9 sessions\nmeta9 sessions -o json | jq '.[] | select(.state == \"parked\")'",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				all, err := readSessions(ctx, c)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printValue(all)
				}
				return a.printSessions(all)
			})
		},
	}
	outputFlag(cmd, &asJSON)
	return cmd
}

// readSessions reads the files of sessions/, in the order of their numbers.
func readSessions(ctx context.Context, c *client.Client) ([]json.RawMessage, error) {
	list, err := c.ReadDir(ctx, "/sessions")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(x, y client.Info) int {
		return cmp.Or(cmp.Compare(len(x.Name), len(y.Name)), strings.Compare(x.Name, y.Name))
	})
	all := []json.RawMessage{}
	for _, i := range list {
		text, err := c.ReadFile(ctx, "/sessions/"+i.Name)
		switch {
		case errors.Is(err, errs.NotFound):
			continue // it has ended
		case err != nil:
			return nil, err
		case !json.Valid(text):
			return nil, fmt.Errorf("the server's JSON of session %s is none", i.Name)
		}
		all = append(all, text)
	}
	return all, nil
}

func (a *app) printSessions(all []json.RawMessage) error {
	for _, text := range all {
		var is struct {
			ID                              uint64
			Who, State, Since, Dialect, Via string
		}
		if err := json.Unmarshal(text, &is); err != nil {
			return fmt.Errorf("the server's JSON: %w", err)
		}
		if _, err := fmt.Fprintf(a.out, "%-6d  %-39s  %-6s  %-20s  %-13s  %s\n", is.ID, printable(is.Who), printable(is.State),
			printable(is.Since), printable(is.Dialect), printable(is.Via)); err != nil {
			return err
		}
	}
	return nil
}
