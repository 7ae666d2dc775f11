package greet

import (
	"slices"

	"meta9/session/wire"
)

// Request is a T-message that was given to a session, until it is answered.
type Request struct {
	Tag    uint16
	Type   wire.Type
	Frame  []byte
	Number uint64   // of the session; 0: it is queued
	Old    *Request // Tflush: what it is about; nil: nothing that is known
	// Flushed says that a Tflush of it is under way, after which no answer is owed.
	Flushed bool
}

// Window is the requests of a session that have no answer, as its client counts
// them. A queued one has never left, or is to leave again as if it never had; one
// that is sent may have been executed. It has no lock of its own.
type Window struct {
	Queued []*Request // in the order in which they will be sent
	Sent   []*Request // by number
	Count  uint64     // the number of the last request of the session
}

// Send takes the next request off the queue and gives it its number.
func (w *Window) Send() *Request {
	r := w.Queued[0]
	w.Queued = slices.Delete(w.Queued, 0, 1)
	w.Count++
	r.Number = w.Count
	w.Sent = append(w.Sent, r)
	return r
}

// Unsend takes the requests from a number on back to the queue.
func (w *Window) Unsend(from uint64) {
	i := slices.IndexFunc(w.Sent, func(r *Request) bool { return r.Number >= from })
	if i < 0 {
		return
	}
	w.Queued = slices.Concat(Unnumber(w.Sent[i:]), w.Queued)
	w.Sent = slices.Clip(w.Sent[:i])
	w.Count = from - 1
}

// Remove forgets a request, if it is there.
func (w *Window) Remove(r *Request) {
	list := &w.Queued
	if r.Number != 0 {
		list = &w.Sent
	}
	if i := slices.Index(*list, r); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
}

// Numbers are those of the requests that may have been executed, for Talk.Resume.
func (w *Window) Numbers() []uint64 {
	list := make([]uint64, len(w.Sent))
	for i, r := range w.Sent {
		list[i] = r.Number
	}
	return list
}

// Resumed sorts out the requests that Numbers told of: what the server never saw
// is sent again, with the number that it has; what was answered and can be asked
// again is asked anew. Of both, what was flushed is dropped: nobody wants it. All
// else is answered by the server in a moment, or when it is done.
func (w *Window) Resumed(states []uint8) (dropped []*Request) {
	var unseen, again, kept []*Request
	if i := slices.Index(states, wire.Unseen); i >= 0 {
		w.Count = w.Sent[i].Number - 1
	}
	for i, r := range w.Sent {
		anew := states[i] == wire.Answered && r.Type.Again()
		switch {
		case r.Flushed && (anew || states[i] == wire.Unseen):
			dropped = append(dropped, r)
		case states[i] == wire.Unseen:
			unseen = append(unseen, r)
		case anew:
			again = append(again, r)
		default:
			kept = append(kept, r)
		}
	}
	w.Sent = kept
	w.Queued = slices.Concat(Unnumber(unseen), Unnumber(again), w.Queued)
	Unnumber(dropped)
	return dropped
}

// Unnumber makes the requests of a list ones that never left, and gives the list.
func Unnumber(list []*Request) []*Request {
	for _, r := range list {
		r.Number = 0
	}
	return list
}
