package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// newWatch is `meta9 watch`.
func newWatch(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [PATH]",
		Short: "print what changes, as it happens",
		Long: `Print one JSON object a line for each event at or below PATH: a VM's folder, its
keys, one key; without PATH all that the connection shows. Values are not in it.

When the connection is lost it is made again, without end, and no event is lost
while the server keeps the session. A server that stands still counts as lost
after 45 s. Standard error says when the connection is lost and when it is there
again. If the server did not keep the session, or if this command was too slow, a
line {"type":"lost",...} says so. --timeout is for the beginning only.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completePaths(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := "/"
			if len(args) > 0 {
				target = args[0]
			}
			return a.watch(cmd.Context(), target)
		},
	}
}

// watch follows the events of target until ctx ends or there can be no more. The
// time limit is for what comes before the first wait: events may take for ever.
func (a *app) watch(ctx context.Context, target string) error {
	start, cancel := a.limited(ctx)
	defer cancel()
	news := &outages{w: a.err}
	c, err := a.connect(start, client.Options{Patience: -1, Notify: func(s client.State) {
		a.progress.connection(s)
		news.tell(s)
	}})
	if err != nil {
		return err
	}
	defer c.Close()
	w := &watcher{c: c, out: a.out}
	if err := w.find(start, target); err != nil {
		return err
	}
	a.progress.hide()
	news.begin()
	for {
		if err = w.follow(ctx); !errors.Is(err, errs.Stale) {
			return err
		}
		news.say(err.Error())
		if err = w.startOver(ctx); err != nil {
			return err
		}
	}
}

// outages says that the connection is lost, and that it is there again, a line each.
type outages struct {
	mu    sync.Mutex
	w     io.Writer
	begun bool // before, the progress says it
	down  bool
}

func (o *outages) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = true
}

// say says a text.
func (o *outages) say(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintln(o.w, "meta9:", printable(text))
}

// tell says what is new in s.
func (o *outages) tell(s client.State) {
	o.mu.Lock()
	begun, was := o.begun, o.down
	o.down = !s.Up
	o.mu.Unlock()
	switch {
	case !begun, was == !s.Up:
	case s.Up:
		o.say("connected again")
	default:
		o.say("connection lost, trying again: " + s.Err.Error())
	}
}

// watcher prints the events of one file that a filter lets through.
type watcher struct {
	c    *client.Client
	out  io.Writer
	path string // of the events file
	file *client.File
	off  int64
	part []byte // a line whose end has not come

	space, key string // what is printed; "": all
	rev        uint64 // the newest event that was seen
}

// find opens the events file that tells of target: its own, or that of the
// nearest folder above it, as far as the names between are a space and a key.
func (w *watcher) find(ctx context.Context, target string) error {
	var below []string
	for dir := path.Clean("/" + target); ; dir = path.Dir(dir) {
		err := w.open(ctx, path.Join(dir, "events"))
		switch {
		case err == nil:
			return w.filter(target, dir, below)
		case !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.NotDir), dir == "/":
			return err
		}
		below = append([]string{path.Base(dir)}, below...)
	}
}

// filter sets what is printed of dir's events: what is below it on the way to
// target.
func (w *watcher) filter(target, dir string, below []string) (err error) {
	switch {
	case len(below) == 0, dir == "/" && len(below) == 1 && (below[0] == "vms" || below[0] == "names"):
		return nil
	case len(below) > 2, below[0] != "keys" && below[0] != "internal":
		return fmt.Errorf("%s: %w", target, errs.NotFound)
	case len(below) == 2:
		if w.key, err = vm.KeyName(below[1]); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	w.space = below[0]
	return nil
}

// open opens the events at file. The stream begins there and then.
func (w *watcher) open(ctx context.Context, file string) (err error) {
	w.path, w.off, w.part = file, 0, nil
	w.file, err = w.c.Open(ctx, file)
	return err
}

// startOver opens the file anew, since the session was lost, and says so among the events:
// those between are not known.
func (w *watcher) startOver(ctx context.Context) error {
	w.file.Close()
	for {
		err := w.open(ctx, w.path)
		if err == nil {
			break
		}
		if !errors.Is(err, errs.Stale) {
			return err
		}
	}
	_, err := fmt.Fprintf(w.out, "{\"type\":\"lost\",\"from\":%d}\n", w.rev+1)
	return err
}

// follow prints events until it cannot read more.
func (w *watcher) follow(ctx context.Context) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.ReadAt(ctx, buf, w.off)
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: the events have ended", w.path)
		}
		if err != nil {
			return err
		}
		w.off += int64(n)
		if err := w.print(buf[:n]); err != nil {
			return err
		}
	}
}

// print prints the whole lines in data, and keeps the rest for the next time.
func (w *watcher) print(data []byte) error {
	w.part = append(w.part, data...)
	for {
		line, rest, whole := bytes.Cut(w.part, []byte("\n"))
		if !whole {
			return nil
		}
		if w.wanted(line) {
			if _, err := fmt.Fprintf(w.out, "%s\n", line); err != nil {
				return err
			}
		}
		w.part = rest
	}
}

// wanted tells whether the filter lets a line through. What is not an event of a
// key, as that events were lost, or that the VM is gone, concerns every watcher.
func (w *watcher) wanted(line []byte) bool {
	var e struct {
		Rev   uint64
		To    uint64
		Type  string
		Key   string
		Space string
	}
	if json.Unmarshal(line, &e) != nil {
		return true
	}
	w.rev = max(w.rev, e.Rev, e.To)
	if w.space == "" || !strings.HasPrefix(e.Type, "key-") {
		return w.space == "" || e.Type == "lost" || e.Type == "vm-deleted"
	}
	return e.Space == w.space && (w.key == "" || e.Key == w.key)
}
