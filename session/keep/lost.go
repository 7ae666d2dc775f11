package keep

import (
	"slices"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// Lost decides about requests that were sent and not answered when the session is lost.
// Requests that change nothing but fids are sent again in the new session. A change may
// or may not have happened: it fails, and is never sent again.
func (o owner) Lost(w *redial.Window) []byte {
	var answers, last []byte
	w.Requeue(func(r *redial.Request) bool {
		if o.sendAgain(r) {
			return true
		}
		answer := o.outcome(r)
		switch _, typ, _, _ := wire.Split(answer); typ {
		case wire.Rflush: // it must follow the answer to the request that it flushed
			last = append(last, answer...)
			return false
		case wire.Rerror, wire.Rlerror:
			o.failed++
		}
		answers = append(answers, answer...)
		return false
	})
	o.changed.Broadcast()
	return append(answers, last...)
}

// sendAgain tells whether a request is sent again in the new session. A Tclunk is not: its
// fid is not restored. conn is held.
func (k *Keeper) sendAgain(r *redial.Request) bool {
	if r.Flushed || r.Type == wire.Tflush {
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

// outcome is the client's answer to a request that is not sent again; nil: none, since it
// was flushed. conn is held.
func (k *Keeper) outcome(r *redial.Request) (frame []byte) {
	lost := wire.AppendError(nil, r.Tag, errs.IO, k.base)
	known := wire.Decode(&k.m, r.Frame, k.base) == nil
	switch {
	case r.Flushed && !changes(r.Type):
		return nil
	case r.Type == wire.Tflush:
		frame, _ = wire.Append(nil, &wire.Msg{Type: wire.Rflush, Tag: r.Tag}, k.base)
		return frame
	case known && r.Type == wire.Tclunk:
		f := k.byNum[k.m.Fid]
		kept := f != nil && (k.holds(k.m.Fid, f) || f.removesOnClunk())
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

// removesOnClunk tells whether the fid's file is removed by its clunk (ORCLOSE).
func (f *fid) removesOnClunk() bool { return f.Open && !f.Linux && f.Flags&uint32(wire.ORclose) != 0 }

// refuseQueued answers queued requests on fids that could not be restored. With stale,
// addRequest does so from now on.
func (k *Keeper) refuseQueued(stale bool) (answers []byte) {
	k.conn.Lock()
	defer k.conn.Unlock()
	k.stale = stale
	for _, r := range slices.Clone(k.conn.Queued) {
		if answer := k.refuse(r); answer != nil {
			k.conn.Remove(r)
			answers = append(answers, answer...)
		}
	}
	k.changed.Broadcast()
	return answers
}

// refuse is the answer to a request on a fid that could not be restored; nil: it is on
// another fid. conn is held.
func (k *Keeper) refuse(r *redial.Request) (answer []byte) {
	if !k.stale || wire.Decode(&k.m, r.Frame, k.base) != nil || !k.onStale(&k.m) {
		return nil
	}
	switch r.Type {
	case wire.Tclunk:
		k.drop(k.m.Fid)
		answer, _ = wire.Append(nil, &wire.Msg{Type: wire.Rclunk, Tag: r.Tag}, k.base)
		return answer
	case wire.Tremove:
		k.drop(k.m.Fid)
	}
	return wire.AppendError(nil, r.Tag, errs.Stale, k.base)
}

// onStale tells whether a request is on a fid that could not be restored.
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
