package keep

import (
	"slices"

	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

// forsake settles what was sent and not answered when the session is lost, and
// tells how many requests have failed. What changes nothing, or only fids that are
// not there any more, is asked again. A change may or may not have happened: it
// fails, and is never sent again.
func (k *Keeper) forsake() (failed int) {
	k.mu.Lock()
	sent := k.Sent
	k.Sent = nil
	var answers, last []byte
	var again []*request
	for _, r := range sent {
		if k.askAgain(r) {
			again = append(again, r)
			continue
		}
		k.forget(r)
		answer := k.outcome(r)
		if _, typ, _, _ := wire.Split(answer); typ == wire.Rflush { // comes after the answer to what it flushed
			last = append(last, answer...)
			continue
		} else if typ == wire.Rerror || typ == wire.Rlerror {
			failed++
		}
		answers = append(answers, answer...)
	}
	k.Queued = slices.Concat(greet.Unnumber(again), k.Queued)
	k.condemn()
	k.moved.Broadcast()
	k.mu.Unlock()
	if answers = append(answers, last...); len(answers) > 0 {
		k.answer(answers)
	}
	return failed
}

// askAgain tells whether a request is sent in the new session. A Tclunk is not: its
// fid will not be there.
func (k *Keeper) askAgain(r *request) bool {
	if r == k.probing || r.Flushed || r.Type == wire.Tflush {
		return false
	}
	switch r.Type {
	case wire.Twalk, wire.Tattach, wire.Txattrwalk:
		return true
	case wire.Topen, wire.Tlopen:
		if wire.Decode(&k.m, r.Frame, k.base) != nil {
			return true
		}
		return k.m.Mode&(wire.OTrunc|wire.ORclose) == 0 && k.m.L.Flags&linuxTrunc == 0
	}
	return r.Type.Again()
}

// outcome is what the client gets for a request that is not sent again; nil:
// nothing, since it was flushed or is our own.
func (k *Keeper) outcome(r *request) (frame []byte) {
	lost := wire.AppendError(nil, r.Tag, errs.IO, k.base)
	known := wire.Decode(&k.m, r.Frame, k.base) == nil
	switch {
	case r == k.probing, r.Flushed && !changes(r.Type):
		return nil
	case r.Type == wire.Tflush:
		frame, _ = wire.Append(nil, &wire.Msg{Type: wire.Rflush, Tag: r.Tag}, k.base)
		return frame
	case known && r.Type == wire.Tclunk:
		f := k.byNum[k.m.Fid]
		kept := f != nil && (k.holds(k.m.Fid, f) || f.rclose())
		k.drop(k.m.Fid)
		if kept {
			return lost
		}
		frame, _ = wire.Append(nil, &wire.Msg{Type: wire.Rclunk, Tag: r.Tag}, k.base)
		return frame
	case known && r.Type == wire.Tremove:
		k.drop(k.m.Fid)
	}
	return lost
}

// changes tells whether a request may have changed more than fids.
func changes(t wire.Type) bool {
	switch t {
	case wire.Twalk, wire.Tattach, wire.Txattrwalk:
		return false
	}
	return !t.Again()
}

// rclose tells whether the fid's file goes with its clunk.
func (f *fid) rclose() bool { return f.open && !f.linux && f.flags&uint32(wire.ORclose) != 0 }

// condemn gives up open fids that had what no new session can give them: a lock,
// which others may have had since; a truncation that was promised and not
// committed, which must not be done by halves.
func (k *Keeper) condemn() {
	for num, f := range k.byNum {
		if f.open && (f.locked || k.holds(num, f)) {
			f.stale = true
		}
	}
}

// refuse answers the request that is next, if it is on a fid that could not be
// restored. mu is held.
func (k *Keeper) refuse(r *request) []byte {
	if !k.stale || wire.Decode(&k.m, r.Frame, k.base) != nil || !k.onStale(&k.m) {
		return nil
	}
	k.remove(r)
	k.moved.Broadcast()
	var frame []byte
	switch r.Type {
	case wire.Tclunk:
		k.drop(k.m.Fid)
		frame, _ = wire.Append(nil, &wire.Msg{Type: wire.Rclunk, Tag: r.Tag}, k.base)
		return frame
	case wire.Tremove:
		k.drop(k.m.Fid)
	}
	return wire.AppendError(nil, r.Tag, errs.Stale, k.base)
}

// onStale tells whether a request is on such a fid.
func (k *Keeper) onStale(m *wire.Msg) bool {
	switch m.Type {
	case wire.Tattach, wire.Tauth, wire.Tflush:
		return false
	case wire.Trename, wire.Trenameat, wire.Tlink:
		if f := k.byNum[m.Newfid]; f != nil && f.stale {
			return true
		}
	}
	f := k.byNum[m.Fid]
	return f != nil && f.stale
}
