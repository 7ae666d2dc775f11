//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"meta9/backoff"
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/keep"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// eventBytes is how many bytes of events are asked for at once, and maxLine how many
	// one line may have.
	eventBytes, maxLine = 16 << 10, 16 << 10

	// pulseTime is how long the server may say nothing before it is asked for a sign of
	// life, and silentTime how long before what is kept is dropped.
	pulseTime, silentTime = 5 * time.Second, 15 * time.Second

	// behindTime is how long a reader of events waits for the mount to have followed.
	// After that all is dropped, so that nothing is left which could be older.
	behindTime = time.Second
)

// streamAgain makes the pauses before the events are opened again.
var streamAgain = backoff.Backoff{First: 50 * time.Millisecond, Last: 5 * time.Second}

// link is told that the transport is lost, or there again; resumed: in the same session.
// It waits for nothing.
func (f *FS) link(up, resumed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up = up
	if !up || !resumed {
		f.streams = f.streams && !up // a new session has not the events of the old one
		f.lose()
	}
	f.wake()
}

// lose drops all that is kept, and leaves it to sweep to tell the kernel. mu is held.
func (f *FS) lose() {
	f.losses++
	f.seq++
	clear(f.absent)
	for _, n := range f.nodes {
		f.forget(n)
		n.sure = n == f.root || n.kind == folder
	}
	select {
	case f.sweeps <- struct{}{}:
	default:
	}
}

// dropAll drops all that is kept, and waits until the kernel has done so, too: what is asked
// from then on is asked of the server.
func (f *FS) dropAll(in keep.Interrupt) error {
	f.mu.Lock()
	f.lose()
	losses := f.losses
	f.mu.Unlock()
	return f.await(in.C, nil, func() bool { return f.swept >= losses })
}

// sweep has the kernel forget, each time that all was dropped, until the mount ends.
func (f *FS) sweep() {
	for {
		select {
		case <-f.calls.Dead():
			return
		case <-f.sweeps:
		}
		f.mu.Lock()
		losses := f.losses
		var ids []uint64
		var names []*node
		for _, n := range f.nodes {
			if n.given {
				ids = append(ids, n.id)
			}
			if !n.sure && n.ambiguous() {
				names = append(names, n)
			}
		}
		f.mu.Unlock()
		f.notify(ids)
		f.awaitNames(names)
		f.mu.Lock()
		f.swept = losses
		f.wake()
		f.mu.Unlock()
	}
}

// notify has the kernel forget the attributes of nodes. A node that it does not know is
// either forgotten, or the answer that tells of it is on its way: then it is told again.
func (f *FS) notify(ids []uint64) {
	var again []uint64
	for _, id := range ids {
		if f.kernel.InodeNotify(id, -1, 0) == fuse.ENOENT && f.node(id) != nil {
			again = append(again, id)
		}
	}
	if len(again) == 0 {
		return
	}
	time.Sleep(10 * time.Millisecond)
	for _, id := range again {
		f.kernel.InodeNotify(id, -1, 0)
	}
}

// follow follows the events until the mount ends.
func (f *FS) follow() {
	for tries := 0; ; tries++ {
		if f.stream() {
			tries = 0
		}
		f.mu.Lock()
		f.streams = false
		f.lose()
		f.wake()
		f.mu.Unlock()
		select {
		case <-f.calls.Dead():
			return
		case <-time.After(streamAgain.Pause(tries)):
		}
	}
}

// stream opens the events and follows them until that fails. began: they were there.
//
// Of a change before the open this stream has no event, so what was asked before it is never
// kept: seq grows. And the revisions may be those of another store than told is of, such as one
// that was restored from a backup.
func (f *FS) stream() (began bool) {
	in := keep.Interrupt{}
	f.mu.Lock()
	losses := f.losses
	f.mu.Unlock()
	fid, _, err := f.walk(in, f.vm, []string{"events"})
	if err != nil {
		return false
	}
	defer f.clunk(fid)
	if _, err := f.calls.Call(in, &wire.Msg{Type: wire.Tlopen, Fid: fid}); err != nil {
		return false
	}
	f.mu.Lock()
	same := f.losses == losses // otherwise the fid may be of a session that is lost
	if same {
		f.streams = true
		f.seq++
		f.told = 0
	}
	f.wake()
	f.mu.Unlock()
	if !same {
		return false
	}
	var line []byte
	for off := uint64(0); ; {
		r, err := f.calls.Call(in, &wire.Msg{Type: wire.Tread, Fid: fid, Offset: off, Count: eventBytes})
		if err != nil || len(r.Data) == 0 || len(r.Data) > eventBytes {
			return true
		}
		f.heard()
		off += uint64(len(r.Data))
		line = append(line, r.Data...)
		whole := bytes.LastIndexByte(line, '\n') + 1
		if len(line)-whole > maxLine {
			return true
		}
		f.changes(line[:whole])
		line = append(line[:0], line[whole:]...)
	}
}

// event is what is looked at of a line.
type event struct {
	Rev, To    uint64
	Type       string
	Space, Key string
}

// changes drops what lines of events are about, has the kernel forget it, and then lets
// who reads the events know.
func (f *FS) changes(lines []byte) {
	var ids []uint64
	var names []*node
	rev := uint64(0)
	f.mu.Lock()
	for line := range bytes.Lines(lines) {
		var e event
		bad := json.Unmarshal(line, &e) != nil
		rev = max(rev, e.Rev, e.To)
		switch {
		case !bad && (e.Type == "key-set" || e.Type == "key-removed"):
			some, name := f.changed(&e)
			if ids = append(ids, some...); name != nil && !slices.Contains(names, name) {
				names = append(names, name)
			}
		case !bad && (e.Type == "session-parked" || e.Type == "session-resumed" || e.Type == "qmp"):
		default: // whose files they are, which there are, or what nobody knows
			f.lose()
		}
	}
	losses := f.losses
	f.mu.Unlock()
	f.notify(ids)
	f.awaitNames(names)
	_ = f.await(nil, nil, func() bool { return f.swept >= losses })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = max(f.told, rev)
	f.wake()
}

// awaitNames returns when the kernel no longer has a name that is ambiguous and leads to another
// file. names are nodes whose names are ambiguous; the server is asked where they lead.
func (f *FS) awaitNames(names []*node) {
	for _, n := range names {
		if f.stillLeads(n) {
			continue
		}
		f.mu.Lock()
		f.noteAmbiguous(n)
		f.mu.Unlock()
	}
	f.mu.Lock()
	left := time.Until(f.ambiguousUntil)
	f.mu.Unlock()
	if left <= 0 {
		return
	}
	select {
	case <-time.After(left):
	case <-f.calls.Dead():
	}
}

// stillLeads tells whether the node's name still leads to its file. It waits for the server no
// longer than the kernel may have the name.
func (f *FS) stillLeads(n *node) bool {
	f.mu.Lock()
	ctx, cancel := context.WithDeadline(context.Background(), n.nameUntil)
	f.mu.Unlock()
	defer cancel()
	names, ok := f.path(n)
	if !ok {
		return false
	}
	leads := make(chan bool, 1)
	go func() { // a walk that is interrupted ends when the server has heard of that
		fid, qid, err := f.walk(keep.Interrupt{C: ctx.Done()}, redial.Root{Fid: rootFid, QID: f.root.qid}, names)
		if err == nil {
			f.clunk(fid)
		}
		leads <- err == nil && qid.Path == n.qid.Path
	}()
	select {
	case yes := <-leads:
		return yes
	case <-ctx.Done():
		return false
	}
}

// changed drops what is kept of a key, and of the folders that it is in: these nodes are
// what the kernel is to forget. name is a node whose name is ambiguous if it leads to another
// file now; nil: none. mu is held.
func (f *FS) changed(e *event) (ids []uint64, name *node) {
	f.seq++
	dir := f.root
	switch {
	case dir.kind == vmRoot:
		f.forget(dir)
		ids = append(ids, dir.id)
		if dir = f.named[entry{dir, e.Space}]; dir == nil {
			return ids, nil
		}
	case e.Space != f.space:
		return nil, nil
	}
	f.forget(dir)
	ids = append(ids, dir.id)
	at := entry{dir, vm.FileName(e.Key)}
	delete(f.absent, at)
	if n := f.named[at]; n != nil {
		f.forget(n)
		n.sure = false // the name may lead to another key
		ids = append(ids, n.id)
		if n.ambiguous() {
			name = n
		}
	}
	return ids, name
}

// The beginnings of a line: of one that tells of a change, up to its revision, and of one
// that tells that others are missing. Together with the number they are not longer than a
// file's tail.
var (
	lineOfRev  = []byte(`{"rev":`)
	lineOfLost = []byte(`{"type":"lost"`)
)

const maxTail = 32

// revIn finds the newest revision in what a reader of events gets, who has got tail
// before, and whether lines are missing.
func revIn(tail, data []byte) (rev uint64, lost bool) {
	all := append(bytes.Clone(tail), data...)
	for b := all; ; {
		_, rest, ok := bytes.Cut(b, lineOfRev)
		if !ok {
			break
		}
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		one, _ := strconv.ParseUint(string(rest[:n]), 10, 64)
		rev, b = max(rev, one), rest
	}
	i := bytes.LastIndex(all, lineOfLost)
	return rev, i >= 0 && i+len(lineOfLost) > len(tail)
}

// readEvents reads events by an open file, and gives them when nothing that is kept is older.
// A reader who is interrupted until then gets them by his next read at that offset: they may
// have come by several Treads, and the server gives only the last one's again.
func (f *FS) readEvents(in keep.Interrupt, o *file, off uint64, buf []byte) ([]byte, error) {
	o.mu.Lock()
	tail, due := o.tail, o.due
	if o.dueAt != off {
		due = nil
	}
	got := copy(buf, due)
	o.mu.Unlock()
	if got == 0 {
		var err error
		if got, err = f.readInto(in, o, o.fid, off, buf); err != nil || got == 0 {
			return nil, err
		}
	}
	data := buf[:got]
	err := f.awaitCache(in, tail, data)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		all := slices.Concat(tail, data)
		o.tail = bytes.Clone(all[max(0, len(all)-maxTail):])
		o.due, o.dueAt = due[min(got, len(due)):], off+uint64(got)
	case due == nil:
		o.due, o.dueAt = bytes.Clone(data), off
	}
	if len(o.due) == 0 {
		o.due = nil
	}
	return data, err
}

// awaitCache waits until the cache has nothing that is older than the events in data, which a
// program is to read. tail is the end of what it has read before.
func (f *FS) awaitCache(in keep.Interrupt, tail, data []byte) error {
	rev, lost := revIn(tail, data)
	if lost { // which files the lost events were about is not known
		return f.dropAll(in)
	}
	late := time.NewTimer(behindTime)
	defer late.Stop()
	done := func() bool { return (f.told >= rev || !f.live()) && f.swept >= f.losses }
	err := f.await(in.C, late.C, done)
	if errors.Is(err, errLate) {
		return f.dropAll(in)
	}
	return err
}

// errLate is await's, after its time.
const errLate = errs.Busy

// await waits until done is true, which is called with mu held.
func (f *FS) await(cancel <-chan struct{}, late <-chan time.Time, done func() bool) error {
	for {
		f.mu.Lock()
		ok, moved := done(), f.moved
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-cancel:
			return keep.ErrInterrupted
		case <-late:
			return errLate
		case <-f.calls.Dead():
			return errs.IO
		}
	}
}

// heard notes that the server is there.
func (f *FS) heard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastHeard = time.Now()
	if f.silent {
		f.silent = false
		f.wake()
	}
}

// pulse asks a server for a sign of life that says nothing, and drops all that is kept
// where none comes.
func (f *FS) pulse() {
	pause := pulseTime
	for {
		select {
		case <-f.calls.Dead():
			return
		case <-time.After(pause):
		}
		f.mu.Lock()
		quiet := time.Since(f.lastHeard)
		f.mu.Unlock()
		if pause = pulseTime - quiet; pause > 0 {
			continue
		}
		pause = pulseTime
		watch := time.AfterFunc(max(0, silentTime-quiet), func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if time.Since(f.lastHeard) >= silentTime {
				f.silent = true
				f.lose()
				f.wake()
			}
		})
		if _, err := f.getattr(keep.Interrupt{}, f.vm.Fid); err == nil {
			f.heard()
		}
		watch.Stop()
	}
}
