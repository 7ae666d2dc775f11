package keep

import (
	"testing"

	"meta9/session/wire"
)

// asked is a request of some type that was sent.
func (w *window) asked(tag uint16, typ wire.Type) *request {
	r := &request{Tag: tag, Type: typ, Frame: make([]byte, 10)}
	w.add(r)
	w.Send()
	return r
}

// TestForgotten: a request leaves the count whichever way it goes.
func TestForgotten(t *testing.T) {
	w := &window{byTag: make(map[uint16]*request)}
	first := w.asked(1, wire.Twrite)
	w.asked(2, wire.Tread).Flushed = true
	w.asked(3, wire.Tread)
	w.resumed([]uint8{wire.Answered, wire.Answered, wire.Answered})
	if w.byTag[2] != nil || len(w.byTag) != 2 || w.bytes != 20 {
		t.Errorf("%d requests, %d bytes", len(w.byTag), w.bytes)
	}
	w.remove(first)
	w.asked(1, wire.Twrite)
	w.remove(first) // its tag is another's
	if len(w.byTag) != 2 || w.bytes != 20 {
		t.Errorf("%d requests, %d bytes", len(w.byTag), w.bytes)
	}
}

// TestFull: the bounds of what may be unanswered.
func TestFull(t *testing.T) {
	w := &window{byTag: make(map[uint16]*request)}
	for tag := range uint16(maxRequests) {
		if w.full() {
			t.Fatalf("full with %d", tag)
		}
		w.asked(tag, wire.Tread)
	}
	if !w.full() {
		t.Error("not full")
	}
	w = &window{byTag: make(map[uint16]*request)}
	w.add(&request{Frame: make([]byte, maxBytes)})
	if !w.full() {
		t.Error("not full with all bytes")
	}
}
