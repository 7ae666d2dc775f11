package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// errCame ends a watch: what is waited for is there.
var errCame = errors.New("it is there")

// newWait is `meta9 wait`.
func newWait(a *app) *cobra.Command {
	var value string
	cmd := &cobra.Command{
		Use:   "wait PATH[=VALUE] | --value VALUE PATH",
		Short: "wait until a file is there, or has a value",
		Long: `Wait until the file PATH is there, or until its value is VALUE; one newline at the
value's end does not count. The command returns at once if it is so already. PATH ends at
the first "="; a PATH with "=" in it goes with --value. --timeout is for all of the
waiting: after it the exit code is 3; with --timeout 0 the waiting has no end. A connection
that is lost meanwhile is made again, as by watch.`,
		Example: `meta9 wait keys/ready
meta9 --timeout 10m wait keys/state=done && echo the host says so
meta9 --timeout 0 wait --value a=b 'keys/with=sign'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePaths(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := awaitedState{file: args[0], value: value, any: !cmd.Flags().Changed("value")}
			if w.any {
				if file, v, ok := strings.Cut(args[0], "="); ok {
					w = awaitedState{file: file, value: v}
				}
			}
			return a.await(cmd.Context(), w)
		},
	}
	cmd.Flags().StringVar(&value, "value", "", "wait for `VALUE`; PATH is taken as it is")
	return cmd
}

// awaitedState is what is waited for.
type awaitedState struct {
	file, value string
	any         bool // value
}

// await waits for w, in the time of --timeout.
func (a *app) await(ctx context.Context, w awaitedState) error {
	ctx, cancel := a.withTimeout(ctx)
	defer cancel()
	events := &watcher{all: true}
	look := func() error {
		data, err := events.c.ReadFile(ctx, w.file)
		switch {
		case errors.Is(err, errs.NotFound), errors.Is(err, errs.NotDir):
			return nil
		case err != nil:
			return err
		case w.any || string(bytes.TrimSuffix(data, []byte("\n"))) == w.value || string(data) == w.value:
			return errCame
		}
		return nil
	}
	events.begun = look
	events.tell = func(line []byte) error {
		if w.unmoved(line) {
			return nil
		}
		return look()
	}
	err := a.watch(ctx, w.file, events)
	switch {
	case errors.Is(err, errCame):
		return nil
	case errors.Is(err, context.DeadlineExceeded) && w.any:
		return fmt.Errorf("%s is not there: %w", w.file, context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s is not %q: %w", w.file, w.value, context.Cause(ctx))
	}
	return err
}

// unmoved tells whether an event is of another key than w's, and so of no concern.
func (w *awaitedState) unmoved(line []byte) bool {
	var e struct{ Type, Key string }
	if json.Unmarshal(line, &e) != nil || !strings.HasPrefix(e.Type, "key-") {
		return false
	}
	space := path.Base(path.Dir(path.Clean("/" + w.file)))
	key, err := vm.KeyName(path.Base(w.file))
	return err == nil && (space == "keys" || space == "internal") && key != e.Key
}
