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
	var asJSON jsonFlag
	cmd := &cobra.Command{
		Use:   "stat [-o json] PATH...",
		Short: "say what is known of files",
		Long: `Print for each file or folder one line each of: path, type, mode, length in bytes,
when it was changed, by whom, and the qid: a number that no other file ever
has, and one that changes with every change (the version for put --if-version). With
-o json each is an object in an array.`,
		Example:           "meta9 stat names/web0/keys/motd\nmeta9 stat -o json names/web0/keys/motd | jq '.[0].version'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completePaths(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				all := []fileJSON{}
				for _, path := range args {
					info, err := c.Stat(ctx, path)
					a.fail(err)
					switch {
					case err != nil:
					case bool(asJSON):
						all = append(all, describeJSON(path, &info))
					default:
						a.describe(path, &info)
					}
				}
				if asJSON {
					return a.printValue(all)
				}
				return nil
			})
		},
	}
	outputFlag(cmd, &asJSON)
	return cmd
}

// fileJSON is what is known of a file, for programs. Version is that of its value.
type fileJSON struct {
	Name    string    `json:"name"`
	Path    string    `json:"path"`
	Type    string    `json:"type"` // "file", "folder"
	Mode    string    `json:"mode"` // octal
	Length  uint64    `json:"length"`
	Changed time.Time `json:"changed"`
	By      string    `json:"by"`
	ID      uint64    `json:"id"`
	Version uint32    `json:"version"`
}

func describeJSON(path string, i *client.Info) fileJSON {
	return fileJSON{
		Name: i.Name, Path: path, Type: kindOf(i), Mode: fmt.Sprintf("%04o", i.Mode.Perm()), Length: i.Length,
		Changed: i.Mtime.UTC(), By: i.Muid, ID: i.QID.Path, Version: i.QID.Version,
	}
}

func kindOf(i *client.Info) string {
	if i.IsDir() {
		return "folder"
	}
	return "file"
}

func (a *app) describe(path string, i *client.Info) {
	fmt.Fprintf(a.out, "path: %s\ntype: %s\nmode: %04o\nlength: %d\nchanged: %s\nby: %s\nqid: %d.%d\n",
		path, kindOf(i), i.Mode.Perm(), i.Length, i.Mtime.UTC().Format(time.RFC3339), printable(orDash(i.Muid)), i.QID.Path, i.QID.Version)
}
