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
	"time"

	"github.com/spf13/cobra"

	"meta9/backoff"
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// reopenAgain makes the pauses between tries to open lost events again, of which there are
// reopenTries in a row: the session may be lost again meanwhile.
var reopenAgain = backoff.Backoff{First: 50 * time.Millisecond, Last: 5 * time.Second}

const reopenTries = 10

// maxEvent is how long an event may be, in bytes. meta9d's are far shorter.
const maxEvent = 1 << 20

// newWatch is `meta9 watch`.
func newWatch(a *app) *cobra.Command {
	r := &reaction{app: a}
	var mount string
	cmd := &cobra.Command{
		Use:   "watch [--mount DIR] [--exec COMMAND] [--touch FILE] [--initial] [--debounce TIME] [PATH]",
		Short: "print what changes, or do something about it, as it happens",
		Long: `Print one JSON object a line for each event at or below PATH: a VM's folder, its
keys, one key; without PATH all that the connection shows. Values are not in it. It is
silent until something changes.

When the connection is lost it is made again, without end, and no event is lost
while the server keeps the session. A server that stands still counts as lost
after 45 s. Standard error says when the connection is lost and when it is there
again. If the server did not keep the session, or if this command was too slow, a
line {"type":"lost",...} says so. --timeout is for the beginning only.

A PATH such as /metadata/keys or ./keys that leads into a mount of 'meta9 mount' is
watched there, and with --mount any PATH is, as seen from DIR: a file of the mount that is
read after an event is as new as the event, also where the mount keeps what it has read.
Told by a connection of this command's own, the mount may not have heard of it yet. The
mount does the waiting while its connection is lost, and says so itself.

With --exec or --touch nothing is printed. Changes that come together, within
--debounce of each other, are one run of COMMAND: those of a transaction, or those that
come while it runs. COMMAND is a line for the shell; it reads the events on its
standard input, and has META9_PATH (of a mount, that of the file), and META9_ADDR for a
meta9 of its own. Where it fails it is run again, at once when something else changes
and else after a pause that grows from 1 s to 1 minute, and standard error says so. A
line "lost" is a run, too: a COMMAND that looks at what is there, and not at the
events, misses nothing.`,
		Example: `meta9 watch
meta9 watch --initial --exec 'meta9 cat keys/app.conf >/etc/app.conf && systemctl reload app' keys/app.conf
meta9 watch --initial --exec 'cp /metadata/keys/motd /etc/motd' /metadata/keys/motd
meta9 watch --touch /run/meta9-keys keys    (for the PathChanged= of a systemd unit)`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completePlaces(&mount),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.debounce < 0 {
				return misused("--debounce %v: a time to wait is not negative", r.debounce)
			}
			target := "/"
			if len(args) > 0 {
				target = args[0]
			}
			at, err := a.placeOf(cmd.Context(), mount, target)
			if err != nil {
				return err
			}
			if r.command == "" && r.touch == "" {
				if r.initial || cmd.Flags().Changed("debounce") {
					return misused("--initial and --debounce go with --exec or --touch")
				}
				return a.elsewhereOf(cmd.Context(), a.watch(cmd.Context(), at, &watcher{tell: a.printEvent}))
			}
			return a.elsewhereOf(cmd.Context(), r.watch(cmd.Context(), at))
		},
	}
	placeFlag(cmd, &mount)
	r.flags(cmd)
	return cmd
}

// printEvent prints a line as it came.
func (a *app) printEvent(line []byte) error {
	_, err := fmt.Fprintf(a.out, "%s\n", line)
	return err
}

// watch has w tell of the events of a place until ctx ends, there can be no more, or w
// says so. The time limit is for what comes before the first wait: events may take for
// ever.
func (a *app) watch(ctx context.Context, at place, w *watcher) error {
	start, cancel := a.withTimeout(ctx)
	defer cancel()
	news := &outages{w: interruptible{ctx, a.err}}
	src, err := a.source(start, at, news)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	w.src = src
	if err := w.find(start, at); err != nil {
		return err
	}
	a.progress.hide()
	news.begin()
	if w.begun != nil {
		if err := w.begun(); err != nil {
			return err
		}
	}
	return w.run(ctx, news.say)
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

// watcher tells of the events of one file that a filter lets through.
type watcher struct {
	begun func() error            // called when events are told of from then on; nil: nobody needs to know
	tell  func(line []byte) error // without its LF. An error of either ends all
	all   bool                    // without a filter

	src  source
	path string // of the events file
	file stream
	off  int64
	part []byte // a line whose end has not come

	space, key string // what is told of; "": all
	rev        uint64 // the newest event that was seen
}

// find opens the events file that tells of a place: its own, or that of the
// nearest folder above it, as far as the names between are a space and a key.
func (w *watcher) find(ctx context.Context, at place) error {
	var below []string
	for dir := path.Clean("/" + at.path); ; dir = path.Dir(dir) {
		err := error(errs.NotFound)
		if !isSpace(dir) {
			err = w.open(ctx, path.Join(dir, "events"))
		}
		switch {
		case err == nil && w.all:
			return nil
		case err == nil:
			return w.filter(at.String(), dir, below)
		case !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.NotDir), dir == "/":
			return err
		}
		below = append([]string{path.Base(dir)}, below...)
	}
}

// isSpace tells whether a folder has keys, one of which may be called events.
func isSpace(dir string) bool {
	name := path.Base(dir)
	return (name == "keys" || name == "internal") && path.Base(path.Dir(dir)) != "names"
}

// run tells of events until it cannot read more. A session that is lost is none of
// that: say tells of it.
func (w *watcher) run(ctx context.Context, say func(text string)) error {
	for {
		err := w.follow(ctx)
		if !errors.Is(err, errs.Stale) {
			return err
		}
		say(err.Error())
		if err := w.startOver(ctx); err != nil {
			return err
		}
	}
}

// filter sets which of dir's events are printed: those of target. below is the path of
// target relative to dir.
func (w *watcher) filter(target, dir string, below []string) (err error) {
	switch {
	case len(below) == 0, dir == "/" && len(below) == 1 && (below[0] == "vms" || below[0] == "names"):
		return nil
	case len(below) > 2, below[0] != "keys" && below[0] != "internal":
		return noFileError(target)
	case len(below) == 2:
		if w.key, err = vm.KeyName(below[1]); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	w.space = below[0]
	return nil
}

// noFileError is a path that leads to no file or folder; errors.Is finds errs.NotFound.
type noFileError string

func (e noFileError) Error() string { return string(e) + ": " + errs.NotFound.Error() }

func (e noFileError) Unwrap() error { return errs.NotFound }

// open opens the events at file. The stream begins there and then.
func (w *watcher) open(ctx context.Context, file string) (err error) {
	w.path, w.off, w.part = file, 0, nil
	w.file, err = w.src.open(ctx, file)
	return err
}

// startOver opens the file anew, since the session was lost, and says so among the events:
// those between are not known.
func (w *watcher) startOver(ctx context.Context) error {
	_ = w.file.Close()
	for tries := 1; ; tries++ {
		err := w.open(ctx, w.path)
		if err == nil {
			break
		}
		if !errors.Is(err, errs.Stale) || tries == reopenTries {
			return err
		}
		if !reopenAgain.Wait(ctx, tries) {
			return context.Cause(ctx)
		}
	}
	return w.tell(fmt.Appendf(nil, `{"type":"lost","from":%d}`, w.rev+1))
}

// follow tells of events until it cannot read more.
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
		if err := w.take(buf[:n]); err != nil {
			return err
		}
	}
}

// take tells of the whole lines in data, and keeps the rest for the next time.
func (w *watcher) take(data []byte) error {
	w.part = append(w.part, data...)
	for {
		line, rest, whole := bytes.Cut(w.part, []byte("\n"))
		switch {
		case !whole && len(w.part) > maxEvent:
			return fmt.Errorf("%s: an event of more than %d bytes: it is no events file of meta9d's", w.path, maxEvent)
		case !whole:
			return nil
		}
		if w.wanted(line) {
			if err := w.tell(line); err != nil {
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
