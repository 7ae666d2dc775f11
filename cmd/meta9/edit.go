package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// newEdit is `meta9 edit`.
func newEdit(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "edit PATH",
		Short: "change a key in your editor",
		Long: `Open the value of a key in keys/ or internal/ in your editor ($VISUAL, $EDITOR, vi), and
write what you have saved, if nobody has changed the key since it was read. If somebody
has, the key stays as he left it, your text is kept in a file that is named, and the exit
code is 5. A key that is not there is made. A newline that the editor adds at the end is
taken off where the value had none. A text that is not changed is not written.

Environment:
VISUAL, EDITOR  the editor: a command for the shell, to which the file's name is added`,
		Example: `meta9 edit names/web0/keys/user-data
EDITOR='code --wait' meta9 edit keys/app.conf`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePaths(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.edit(cmd, args[0]) },
	}
}

// edit reads the key, has it edited, and writes it under the condition that it is still
// what was read. No connection waits for the editor.
func (a *app) edit(cmd *cobra.Command, file string) error {
	var was keyValue
	if _, _, err := new(condition).txn(file, nil); err != nil { // it is no key: before the work is done
		return err
	}
	err := a.with(cmd, func(ctx context.Context, c *client.Client) (err error) {
		was, err = readKey(ctx, c, file)
		return err
	})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "meta9-edit-") // mode 0700: the value may be a secret
	if err != nil {
		return err
	}
	text := filepath.Join(dir, plainFile(path.Base(file)))
	if err := os.WriteFile(text, was.value, 0o600); err != nil {
		return err
	}
	drop := func() { _ = os.RemoveAll(dir) }
	if err := a.runEditor(cmd.Context(), text); err != nil {
		drop()
		return err
	}
	value, err := os.ReadFile(text)
	if err != nil {
		drop()
		return err
	}
	if !bytes.HasSuffix(was.value, []byte("\n")) {
		value = bytes.TrimSuffix(value, []byte("\n"))
	}
	if bytes.Equal(value, was.value) && was.there || len(value) == 0 && !was.there {
		drop()
		fmt.Fprintln(a.err, "not changed")
		return nil
	}
	if err := a.replaceKey(cmd, file, was, value); err != nil {
		return fmt.Errorf("%w; your text is in %s", err, text)
	}
	drop()
	return nil
}

// plainFile is the name of a key for the file that is edited; an editor goes by its end.
func plainFile(key string) string {
	if plainName.MatchString(key) {
		return key
	}
	return "value" + path.Ext(key)
}

// keyValue is a key as it was read.
type keyValue struct {
	value   []byte
	version uint32
	there   bool
}

// readKey reads a key and the version that the value is of.
func readKey(ctx context.Context, c *client.Client, file string) (was keyValue, err error) {
	for range 10 {
		before, err := c.Stat(ctx, file)
		if errors.Is(err, errs.NotFound) {
			return keyValue{}, nil
		}
		if err != nil {
			return was, err
		}
		value, err := c.ReadFile(ctx, file)
		if errors.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return was, err
		}
		after, err := c.Stat(ctx, file)
		if err == nil && after.QID == before.QID {
			return keyValue{value, before.QID.Version, true}, nil
		}
	}
	return was, fmt.Errorf("%s changes all the time", file)
}

// replaceKey writes the value, if the key is still what it was.
func (a *app) replaceKey(cmd *cobra.Command, file string, was keyValue, value []byte) error {
	cond := condition{absent: !was.there}
	if was.there {
		cond.version = strconv.FormatUint(uint64(was.version), 10)
	}
	name, line, err := cond.txn(file, value)
	if err != nil {
		return err
	}
	err = a.with(cmd, func(ctx context.Context, c *client.Client) error { return c.WriteFile(ctx, name, line) })
	if errors.Is(err, errs.Canceled) {
		return fmt.Errorf("%s was changed by somebody else meanwhile: %w", file, err)
	}
	return err
}

// runEditor lets the user edit the file.
func (a *app) runEditor(ctx context.Context, file string) error {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	// $EDITOR is a command with arguments, as for git and crontab.
	run := exec.CommandContext(ctx, "sh", "-c", editor+` "$@"`, editor, file)
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		run = exec.CommandContext(ctx, editor, file)
	}
	run.Stdin, run.Stdout, run.Stderr = a.in, os.Stdout, a.err
	a.progress.hide()
	if err := run.Run(); err != nil {
		return fmt.Errorf("the editor %q: %w; nothing was changed", editor, err)
	}
	return nil
}
