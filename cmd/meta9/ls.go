package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// newLs is `meta9 ls`. A folder that cannot be listed does not keep the others
// from it, as with ls(1); so it is in cat, rm and stat.
func newLs(a *app) *cobra.Command {
	var long bool
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:               "ls [-l] [-o json] [PATH]...",
		Short:             "list folders",
		Long:              "List the names in each folder PATH, by default the root; of a file, its own name.\nWith -l also the mode, who changed it last, the length in bytes and when it was changed.\nWith -o json each file is an object, with all of that, in an array.",
		Example:           "meta9 ls -l names/web0/keys\nmeta9 ls -o json vms | jq -r '.[].name'",
		ValidArgsFunction: a.completePaths(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"/"}
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				if asJSON {
					return a.listJSON(ctx, c, args)
				}
				for i, dir := range args {
					list, err := entries(ctx, c, dir)
					if err == nil && len(args) > 1 {
						fmt.Fprintf(a.out, "%s%s:\n", strings.Repeat("\n", min(i, 1)), dir)
					}
					a.list(list, long)
					a.fail(err)
				}
				return nil
			})
		},
	}
	outputFlag(cmd, &asJSON)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "say more than the names")
	return cmd
}

// entries are a folder's, by name, or a file itself.
func entries(ctx context.Context, c *client.Client, path string) ([]client.Info, error) {
	list, err := c.ReadDir(ctx, path)
	if errors.Is(err, errs.NotDir) {
		var info client.Info
		if info, err = c.Stat(ctx, path); err == nil {
			list = []client.Info{info}
		}
	}
	slices.SortFunc(list, func(x, y client.Info) int { return cmp.Compare(x.Name, y.Name) })
	return list, err
}

// listJSON prints the entries of all folders, or files, as one array.
func (a *app) listJSON(ctx context.Context, c *client.Client, paths []string) error {
	all := []fileJSON{}
	for _, dir := range paths {
		list, err := entries(ctx, c, dir)
		a.fail(err)
		for i := range list {
			is := describeJSON(path.Join(dir, list[i].Name), &list[i])
			if !list[i].IsDir() && len(list) == 1 && path.Base(path.Clean(dir)) == list[i].Name {
				is.Path = dir // a file itself
			}
			all = append(all, is)
		}
	}
	return a.printValue(all)
}

// list prints entries.
func (a *app) list(list []client.Info, long bool) {
	var who, size int
	for _, i := range list {
		who, size = max(who, len(orDash(i.Muid))), max(size, len(fmt.Sprint(i.Length)))
	}
	for _, i := range list {
		if long {
			fmt.Fprintf(a.out, "%s  %-*s  %*d  %s  ", i.Mode, who, printable(orDash(i.Muid)), size, i.Length, i.Mtime.Format(time.DateTime))
		}
		name := i.Name
		if a.tty {
			name = onOneLine.Replace(name) // an old name, or a liar's, may have them
		}
		fmt.Fprintln(a.out, name)
	}
}

// onOneLine escapes what a terminal does not.
var onOneLine = strings.NewReplacer("\n", `\u000a`, "\t", `\u0009`)

// orDash is s, or what stands in tables for nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
