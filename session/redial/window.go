package redial

import (
	"slices"

	"meta9/session/wire"
)

// MaxRequests is how many requests may be without an answer at once: as many as a
// Tresume may name, less the Conn's own probe.
const MaxRequests = wire.MaxNumbers - 1

// Request is a T-message of a session, until it is answered.
type Request struct {
	Tag    uint16
	Type   wire.Type
	Frame  []byte
	Number uint64   // its number in the session; 0: it is queued
	Old    *Request // Tflush: the request to be flushed; nil: an unknown one
	// Flushed says that a Tflush of it was sent: it needs no answer any more.
	Flushed bool
	// Background says that nobody waits for the answer, so that an answer does not make
	// the transport useful.
	Background bool

	probe bool // it is the Conn's own
}

// Window is the requests of a session without an answer. A queued request was never sent,
// or shall be sent again as if it never was; a sent one may have been executed. The zero
// Window is empty. It has no lock of its own.
type Window struct {
	Queued []*Request // in the order in which they will be sent
	Sent   []*Request // by number
	Count  uint64     // the number of the last request of the session
	Bytes  int        // of all frames

	byTag map[uint16]*Request
}

// Len is how many requests there are, without the Conn's own.
func (w *Window) Len() int {
	if r := w.byTag[probeTag]; r != nil && r.probe {
		return len(w.byTag) - 1
	}
	return len(w.byTag)
}

// Get is the request under a tag; nil: there is none.
func (w *Window) Get(tag uint16) *Request { return w.byTag[tag] }

// Add adds a request, whose tag is free, at the end of the queue.
func (w *Window) Add(r *Request) {
	if w.byTag == nil {
		w.byTag = make(map[uint16]*Request)
	}
	w.byTag[r.Tag] = r
	w.Bytes += len(r.Frame)
	w.Queued = append(w.Queued, r)
}

// next moves the first request of the queue to Sent and gives it its number.
func (w *Window) next() *Request {
	r := w.Queued[0]
	w.Queued = slices.Delete(w.Queued, 0, 1)
	w.Count++
	r.Number = w.Count
	w.Sent = append(w.Sent, r)
	return r
}

// unsend moves the requests from a number on back to the queue.
func (w *Window) unsend(from uint64) {
	i := slices.IndexFunc(w.Sent, func(r *Request) bool { return r.Number >= from })
	if i < 0 {
		return
	}
	w.Queued = slices.Concat(unnumber(w.Sent[i:]), w.Queued)
	w.Sent = slices.Clip(w.Sent[:i])
	w.Count = from - 1
}

// Remove forgets a request, if it is there.
func (w *Window) Remove(r *Request) {
	if w.byTag[r.Tag] != r {
		return
	}
	w.forget(r)
	list := &w.Queued
	if r.Number != 0 {
		list = &w.Sent
	}
	if i := slices.Index(*list, r); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
}

// forget drops a request that is in neither list.
func (w *Window) forget(r *Request) {
	delete(w.byTag, r.Tag)
	w.Bytes -= len(r.Frame)
}

// Clear forgets all requests. The count stays.
func (w *Window) Clear() {
	*w = Window{Count: w.Count}
}

// Requeue ends the numbering of a session that is lost. Of the sent requests it queues
// those for which again is true, before the queued ones, and forgets the others.
func (w *Window) Requeue(again func(r *Request) bool) {
	var kept []*Request
	for _, r := range w.Sent {
		if !r.probe && again(r) {
			kept = append(kept, r)
		} else {
			w.forget(r)
		}
	}
	w.Sent = nil
	w.Queued = slices.Concat(unnumber(kept), w.Queued)
}

// unanswered are the numbers of the requests that may have been executed, for Talk.resume.
func (w *Window) unanswered() []uint64 {
	list := make([]uint64, len(w.Sent))
	for i, r := range w.Sent {
		list[i] = r.Number
	}
	return list
}

// applyStates handles the server's states of the requests that unanswered named. Requests
// that the server never saw, or was killed before it did them, are sent again; requests
// that it answered without keeping the reply, and that may be asked twice, are queued as
// new ones. Of all these, those that were flushed are dropped. The others are answered by
// the server now, or when they are done.
//
// Without tokens what was never seen comes first, under the same numbers; with them all
// have new numbers, in the old order.
func (w *Window) applyStates(states []uint8, d wire.Dialect) {
	var unseen, again, kept []*Request
	if i := slices.Index(states, wire.Unseen); i >= 0 && !d.Tokens() {
		w.Count = w.Sent[i].Number - 1
	}
	for i, r := range w.Sent {
		undone := states[i] == wire.Unseen || states[i] == wire.Undone
		anew := states[i] == wire.Answered && r.Type.Again()
		switch {
		case r.Flushed && (anew || undone):
			w.forget(r)
			r.Number = 0
		case undone || anew && d.Tokens():
			unseen = append(unseen, r)
		case anew:
			again = append(again, r)
		default:
			kept = append(kept, r)
		}
	}
	w.Sent = kept
	w.Queued = slices.Concat(unnumber(unseen), unnumber(again), w.Queued)
}

// unnumber makes the requests of a list ones that were never sent, and returns the list.
func unnumber(list []*Request) []*Request {
	for _, r := range list {
		r.Number = 0
	}
	return list
}
