package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// maxInput is how many bytes are taken from standard input or a file: far more
// than any value or payload may have.
const maxInput = 64 << 20

// newPut is `meta9 put`. The value is read whole before the connection is made, so
// that a slow pipe does not use up --timeout.
func newPut(a *app) *cobra.Command {
	var cond condition
	cmd := &cobra.Command{
		Use:   "put PATH [VALUE]",
		Short: "write a file",
		Long: `Make VALUE, or without one what standard input has, the whole value of the file,
and create it if there is none. Nothing is added, not even a newline. A reader
sees the old value or the new one. When put is done, the value is durable. No folder is
made: a / in a key's name is written %2F, a % is %25.

With --if-absent, --if-version, --if-rev or --if-value it happens only if that is true
of the key at that moment; else the key stays as it is, and the exit code is 5. The
value has at most some 780,000 bytes then.`,
		Example: `meta9 put names/web0/keys/motd hello
meta9 put keys/leader "$HOSTNAME" --if-absent`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completePaths(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.value(args)
			if err != nil {
				return err
			}
			name := args[0]
			under, err := cond.given(cmd)
			if under {
				name, value, err = cond.txn(name, value)
			}
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				err := c.WriteFile(ctx, name, value)
				if !under {
					err = noFolder(ctx, c, name, err)
				}
				return err
			})
		},
	}
	cond.flags(cmd)
	return cmd
}

// noFolder is err, or says that the folder of the file is not there, which put does not make.
func noFolder(ctx context.Context, c *client.Client, name string, err error) error {
	if !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.NotDir) {
		return err
	}
	dir := path.Dir(path.Clean("/" + name))
	switch info, found := c.Stat(ctx, dir); {
	case found == nil && info.IsDir(), found != nil && !errors.Is(found, errs.NotFound) && !errors.Is(found, errs.NotDir):
		return err // another reason, such as what a ctl says
	}
	err = fmt.Errorf("%w: there is no folder %s", err, strings.TrimPrefix(dir, "/"))
	for space := path.Dir(dir); space != "/"; space = path.Dir(space) {
		if _, none := c.Stat(ctx, space); none == nil && isSpace(space) {
			key := strings.TrimPrefix(path.Clean("/"+name), space+"/")
			return fmt.Errorf("%w; a key whose name has a / is %s", err, strings.TrimPrefix(path.Join(space, strings.ReplaceAll(key, "/", "%2F")), "/"))
		}
	}
	return err
}

// value is the argument, if there is one: an empty argument is an empty value.
func (a *app) value(args []string) ([]byte, error) {
	if len(args) == 2 {
		return []byte(args[1]), nil
	}
	return readLimited(a.in, "standard input")
}

// readLimited reads all of r, which has a name for people.
func readLimited(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = fmt.Errorf("longer than %d bytes", maxInput)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}
