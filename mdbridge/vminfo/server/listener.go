package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// listener is one client of /events.
type listener struct {
	id      string
	agent   string
	created time.Time
	out     *writer
	*endpoint
	withRev bool // the client sent since=
	dropped bool // the listener was too slow

	entry uint64 // the revision of its snapshot, or the client's since=

	rev uint64 // it has, or is reading, all up to this revision; its own goroutine's

	// Guarded by feed.mu once it has entered.
	seq  uint64 // the place in the feed of the newest line that it has or is reading
	line *line  // the line that it is reading
}

// serveEvents streams until the client goes, is dropped, or the daemon ends.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request, a *endpoint) {
	since, given, err := parseSince(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	li := &listener{
		id: vm.NewUUID(), agent: r.UserAgent(), created: s.cfg.Now(),
		out: newWriter(w, s.cfg.Limits.Patience), endpoint: a, withRev: given, rev: since, entry: since,
	}
	if !s.feed.addListener(li) {
		s.refused.Add(1)
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d event listeners is the limit", s.cfg.Limits.Listeners))
		return
	}
	defer s.feed.removeListener(li)
	if err := s.stream(r.Context(), li); errors.Is(err, os.ErrDeadlineExceeded) {
		li.dropped = true
	}
}

// parseSince reads since=REV. Revision 0 is before all, so that it asks for the
// snapshot and its revision.
func parseSince(r *http.Request) (rev uint64, given bool, err error) {
	q := r.URL.Query()
	if !q.Has("since") {
		return 0, false, nil
	}
	text := q.Get("since")
	if rev, err = strconv.ParseUint(text, 10, 64); err != nil {
		return 0, false, fmt.Errorf("since: %.40q is no revision", text)
	}
	return rev, true, nil
}

// stream sends the snapshot, unless the client can resume from its since=, and then every
// line.
func (s *Server) stream(ctx context.Context, li *listener) error {
	if !li.withRev || li.rev == 0 || !s.feed.canResume(li.rev, s.cfg.Store.Rev()) {
		if err := s.sendReady(ctx, li); err != nil {
			return err
		}
	}
	for {
		l, inside, lost, changed := s.feed.next(li)
		var err error
		switch {
		case lost:
			li.dropped = true
			return s.sendFault(li)
		case l != nil:
			err = s.tell(li, l, inside)
		default:
			if err = li.out.flush(); err == nil {
				select {
				case <-changed:
				case <-ctx.Done():
					return nil
				case <-s.closing:
					return nil
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// tell sends one line, if anything in it has changed for this listener.
func (s *Server) tell(li *listener, l *line, inside bool) error {
	var text []byte
	if l.large() {
		p := ordjson.NewPieces(nil, pieceBytes, li.out.write)
		if !l.write(p, li.Internal, inside) {
			return nil
		}
		if p.Err() != nil {
			return p.Err()
		}
		text = p.Text
	} else {
		var made bool
		if text, made = l.text(li.Internal, inside); made {
			s.feed.addText(l, len(text))
		}
		if text == nil {
			return nil
		}
	}
	if err := li.out.write(text); err != nil {
		return err
	}
	return li.out.write(appendTail(nil, li.withRev, l.rev))
}

// readyTime is how long a listener may take to read the snapshot. vminfod's own client
// gives up after half of that.
const readyTime = time.Minute

// sendReady sends the snapshot: all VMs as one JSON string, which is made while it is
// sent. The listener's place in the feed is set first, so that every later line follows.
func (s *Server) sendReady(ctx context.Context, li *listener) error {
	li.out.limit(readyTime)
	defer li.out.limit(0)
	b := appendText(appendHead(nil, vminfo.Ready, li.created), "uuid", li.id)
	if err := li.out.write(append(b, `,"vms":"`...)); err != nil {
		return err
	}
	s.feed.startHere(li)
	l := s.list(li.Access)
	defer l.release()
	li.rev, li.entry = l.rev, l.rev
	if l.body == nil {
		sem, n := li.room(l.answerBytes())
		ctx, cancel := context.WithTimeout(ctx, turnTime)
		defer cancel()
		done, err := li.take(ctx, sem, n)
		if err != nil {
			return err
		}
		defer done()
	}
	var escaped []byte
	err := l.each(func(b []byte) error {
		escaped = appendEscaped(escaped[:0], b)
		return li.out.write(escaped)
	})
	if err != nil {
		return err
	}
	return li.out.write(appendTail([]byte{'"'}, li.withRev, li.rev))
}

// appendEscaped appends JSON text as the inside of a JSON string.
func appendEscaped(b, text []byte) []byte {
	start := 0
	for i, c := range text {
		if c == '"' || c == '\\' {
			b = append(b, text[start:i]...)
			b = append(b, '\\')
			start = i
		}
	}
	return append(b, text[start:]...)
}

// sendFault says why the stream ends. The line has a date and a zonename, since
// vminfod's clients expect both in every line.
func (s *Server) sendFault(li *listener) error {
	b := appendHead(nil, vminfo.Fault, s.cfg.Now())
	b = appendText(appendText(b, "zonename", ""), "uuid", li.id)
	b = appendText(b, "error", "dropped: this listener was too slow, and events that it has not taken are no longer kept; begin again")
	if err := li.out.write(appendTail(b, li.withRev, li.rev)); err != nil {
		return err
	}
	return li.out.flush()
}

// cut makes a write that waits fail. It may be called from any goroutine.
func (li *listener) cut() { li.out.cut() }
