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
	var value, mount string
	cmd := &cobra.Command{
		Use:   "wait [--mount DIR] PATH[=VALUE] | --value VALUE PATH",
		Short: "wait until a file is there, or has a value",
		Long: `Wait until the file PATH is there, or until its value is VALUE; one newline at the
value's end does not count. The command returns at once if it is so already. PATH ends at
the first "="; a PATH with "=" in it goes with --value. --timeout is for all of the
waiting: after it the exit code is 3; with --timeout 0 the waiting has no end. A connection
that is lost meanwhile is made again, as by watch.

A PATH such as /metadata/keys/go that leads into a mount of 'meta9 mount' is waited for
there, and with --mount any PATH is, as seen from DIR: when the command returns, whoever
reads the mount sees that value or a newer one.`,
		Example: `meta9 wait keys/ready
meta9 wait /metadata/keys/go=yes && cat /metadata/keys/plan
meta9 --timeout 10m wait keys/state=done && echo the host says so
meta9 --timeout 0 wait --value a=b 'keys/with=sign'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePlaces(&mount),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, file := awaitedState{value: value, any: !cmd.Flags().Changed("value")}, args[0]
			if w.any {
				if name, v, ok := strings.Cut(file, "="); ok {
					w, file = awaitedState{value: v}, name
				}
			}
			var err error
			if w.at, err = a.placeOf(cmd.Context(), mount, file); err != nil {
				return err
			}
			return a.await(cmd.Context(), w)
		},
	}
	placeFlag(cmd, &mount)
	cmd.Flags().StringVar(&value, "value", "", "wait for `VALUE`; PATH is taken as it is")
	return cmd
}

// awaitedState is what is waited for.
type awaitedState struct {
	at    place
	value string
	any   bool // value
}

// await waits for w, in the time of --timeout.
func (a *app) await(ctx context.Context, w awaitedState) error {
	ctx, cancel := a.withTimeout(ctx)
	defer cancel()
	events := &watcher{all: true}
	look := func() error {
		data, err := events.src.read(ctx, w.at.path)
		switch {
		case errors.Is(err, errs.NotFound), errors.Is(err, errs.NotDir):
			return nil
		case err != nil:
			return err
		case w.any || string(bytes.TrimSuffix(data, []byte("\n"))) == w.value || string(data) == w.value:
			if err := events.src.settle(ctx, events.path); err != nil {
				return err
			}
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
	err := a.watch(ctx, w.at, events)
	switch {
	case errors.Is(err, errCame):
		return nil
	case errors.Is(err, context.DeadlineExceeded) && w.any:
		return fmt.Errorf("%s is not there: %w", w.at, context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s is not %q: %w", w.at, w.value, context.Cause(ctx))
	}
	return err
}

// unmoved tells whether an event is of another key than w's, and so of no concern.
func (w *awaitedState) unmoved(line []byte) bool {
	var e struct{ Type, Key string }
	if json.Unmarshal(line, &e) != nil || !strings.HasPrefix(e.Type, "key-") {
		return false
	}
	space := path.Base(path.Dir(path.Clean("/" + w.at.path)))
	key, err := vm.KeyName(path.Base(w.at.path))
	return err == nil && (space == "keys" || space == "internal") && key != e.Key
}
