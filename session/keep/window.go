package keep

import (
	"slices"

	"meta9/session/wire"
)

// The most that a client may have asked without an answer: past it, no more is
// read from it.
const (
	maxRequests = wire.MaxNumbers
	maxBytes    = 8 << 20
)

// request is a T-message of the client's, until it is answered.
type request struct {
	tag    uint16
	typ    wire.Type
	frame  []byte
	number uint64   // of the session; 0: it is queued
	old    *request // Tflush: what it is about; nil: nothing that is known
	// flushed says that a Tflush of it is under way, after which no answer is owed.
	flushed bool
	own     bool // the keeper's: nobody waits for its answer
}

// window is the requests without an answer. A queued one has never left, or is to
// leave again as if it never had; one that is sent may have been executed.
type window struct {
	byTag  map[uint16]*request
	queued []*request // in the order in which they will be sent
	sent   []*request // by number
	count  uint64     // the number of the last request of the session
	bytes  int        // of frames
}

func (w *window) full() bool { return len(w.byTag) >= maxRequests || w.bytes >= maxBytes }

// add enters a request, whose tag is free, at the end of the queue.
func (w *window) add(r *request) {
	w.byTag[r.tag] = r
	w.bytes += len(r.frame)
	w.queued = append(w.queued, r)
}

// remove forgets a request.
func (w *window) remove(r *request) {
	if w.byTag[r.tag] != r {
		return
	}
	delete(w.byTag, r.tag)
	w.bytes -= len(r.frame)
	list := &w.queued
	if r.number != 0 {
		list = &w.sent
	}
	*list = slices.DeleteFunc(*list, func(o *request) bool { return o == r })
}

// send takes the next request off the queue and gives it its number.
func (w *window) send() *request {
	r := w.queued[0]
	w.queued = w.queued[1:]
	w.count++
	r.number = w.count
	w.sent = append(w.sent, r)
	return r
}

// unsend takes the requests from a number on back to the queue.
func (w *window) unsend(from uint64) {
	i := slices.IndexFunc(w.sent, func(r *request) bool { return r.number >= from })
	if i < 0 {
		return
	}
	w.queued = slices.Concat(unqueue(w.sent[i:]), w.queued)
	w.sent = slices.Clip(w.sent[:i])
	w.count = from - 1
}

// numbers are those of the requests that may have been executed.
func (w *window) numbers() []uint64 {
	list := make([]uint64, len(w.sent))
	for i, r := range w.sent {
		list[i] = r.number
	}
	return list
}

// resumed sorts out the requests that numbers told of: what the server never saw
// is sent again, with the number that it has; what was answered and can be asked
// again is asked anew, unless the client no longer wants it. All else is answered
// by the server in a moment, or when it is done.
func (w *window) resumed(states []uint8) {
	var unseen, again, kept []*request
	for i, r := range w.sent {
		switch {
		case states[i] == wire.Unseen:
			unseen = append(unseen, r)
		case states[i] == wire.Answered && r.typ.Again() && r.flushed:
			w.forget(r)
		case states[i] == wire.Answered && r.typ.Again():
			again = append(again, r)
		default:
			kept = append(kept, r)
		}
	}
	if len(unseen) > 0 {
		w.count = unseen[0].number - 1
	}
	w.sent = kept
	w.queued = slices.Concat(unqueue(unseen), unqueue(again), w.queued)
}

// forget drops a request that is in neither list any more.
func (w *window) forget(r *request) {
	delete(w.byTag, r.tag)
	w.bytes -= len(r.frame)
}

func unqueue(list []*request) []*request {
	for _, r := range list {
		r.number = 0
	}
	return list
}
