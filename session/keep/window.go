package keep

import (
	"meta9/session/greet"
	"meta9/session/wire"
)

// The most that a client may have asked without an answer: past it, no more is
// read from it.
const (
	maxRequests = wire.MaxNumbers
	maxBytes    = 8 << 20
)

// request is a T-message of the client's, or the keeper's own, until it is answered.
type request = greet.Request

// window is the requests without an answer.
type window struct {
	greet.Window
	byTag map[uint16]*request
	bytes int // of frames
}

func (w *window) full() bool { return len(w.byTag) >= maxRequests || w.bytes >= maxBytes }

// add enters a request, whose tag is free, at the end of the queue.
func (w *window) add(r *request) {
	w.byTag[r.Tag] = r
	w.bytes += len(r.Frame)
	w.Queued = append(w.Queued, r)
}

// remove forgets a request.
func (w *window) remove(r *request) {
	if w.byTag[r.Tag] == r {
		w.forget(r)
		w.Remove(r)
	}
}

// resumed sorts out the requests that Numbers told of.
func (w *window) resumed(states []uint8) {
	for _, r := range w.Resumed(states) {
		w.forget(r)
	}
}

// forget drops a request that is in neither list any more.
func (w *window) forget(r *request) {
	delete(w.byTag, r.Tag)
	w.bytes -= len(r.Frame)
}
