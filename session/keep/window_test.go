package keep

import (
	"fmt"
	"strings"
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

func (w *window) String() string {
	var b strings.Builder
	for _, r := range w.Sent {
		fmt.Fprintf(&b, "%d:%d ", r.Number, r.Tag)
	}
	b.WriteString("|")
	for _, r := range w.Queued {
		fmt.Fprintf(&b, " %d", r.Tag)
	}
	return b.String()
}

// TestResumed: every state of every kind of request.
func TestResumed(t *testing.T) {
	w := &window{byTag: make(map[uint16]*request)}
	w.asked(1, wire.Twrite)
	w.asked(2, wire.Tread)
	w.asked(3, wire.Twrite)
	flushed := w.asked(4, wire.Tread)
	w.asked(5, wire.Tflush)
	flushed.Flushed = true
	w.asked(6, wire.Tread)
	w.asked(7, wire.Twalk)
	w.asked(8, wire.Tread)
	w.add(&request{Tag: 9, Type: wire.Tread, Frame: make([]byte, 10)})
	if got := fmt.Sprint(w.Numbers()); got != "[1 2 3 4 5 6 7 8]" {
		t.Fatal(got)
	}
	w.resumed([]uint8{wire.Answered, wire.Answered, wire.Running, wire.Answered, wire.Answered, wire.Running, wire.Unseen, wire.Unseen})
	if got := w.String(); got != "1:1 3:3 6:6 | 7 8 2 5 9" {
		t.Errorf("%s", got)
	}
	if w.byTag[4] != nil || len(w.byTag) != 8 || w.bytes != 80 {
		t.Errorf("%d requests, %d bytes", len(w.byTag), w.bytes)
	}
	for range 3 {
		w.Send()
	}
	if got := w.String(); got != "1:1 3:3 6:6 7:7 8:8 9:2 | 5 9" {
		t.Errorf("%s", got)
	}
	w.Unsend(8)
	if got := w.String(); got != "1:1 3:3 6:6 7:7 | 8 2 5 9" {
		t.Errorf("%s", got)
	}
	w.Unsend(8)
	w.Send()
	w.Send()
	w.remove(w.byTag[8])
	w.remove(w.byTag[9])
	if got := w.String(); got != "1:1 3:3 6:6 7:7 9:2 | 5" || w.bytes != 60 {
		t.Errorf("%s, %d bytes", got, w.bytes)
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
