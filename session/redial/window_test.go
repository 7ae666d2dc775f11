package redial

import (
	"fmt"
	"strings"
	"testing"

	"meta9/session/wire"
)

// text is a window as "number:tag ... | queued tags".
func text(w *Window) string {
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

// filled is a window of requests that were sent, tagged from 1 on.
func filled(types ...wire.Type) (w *Window, all []*Request) {
	w = new(Window)
	for i, t := range types {
		r := &Request{Tag: uint16(i + 1), Type: t}
		w.Add(r)
		all = append(all, r)
		if w.next() != r || r.Number != uint64(i+1) {
			panic("not the next one")
		}
	}
	return w, all
}

// TestResumed: what becomes of a request by its type, its state and whether it was
// flushed: it stays sent, is queued, or dropped.
func TestResumed(t *testing.T) {
	for _, tt := range []struct {
		typ   wire.Type
		state uint8
		want  string // and if it was flushed
		gone  string
	}{
		{wire.Twrite, wire.Answered, "7:1 |", "7:1 |"}, // its reply comes
		{wire.Twrite, wire.Running, "7:1 |", "7:1 |"},
		{wire.Twrite, wire.Unseen, "| 1", "|"},
		{wire.Tread, wire.Answered, "| 1", "|"}, // its reply is not kept
		{wire.Tread, wire.Running, "7:1 |", "7:1 |"},
		{wire.Tread, wire.Unseen, "| 1", "|"},
		{wire.Tflush, wire.Answered, "| 1", "|"},
	} {
		for _, flushed := range []bool{false, true} {
			w, all := filled(tt.typ)
			all[0].Number, w.Count = 7, 7
			all[0].Flushed = flushed
			w.applyStates([]uint8{tt.state}, wire.EN)
			want := tt.want
			if flushed {
				want = tt.gone
			}
			if got := text(w); got != want || (w.Len() == 0) != (want == "|") {
				t.Errorf("%s in state %d, flushed %v: %q, %d left; want %q", tt.typ, tt.state, flushed, got, w.Len(), want)
			}
			if seen := tt.state != wire.Unseen; seen != (w.Count == 7) {
				t.Errorf("%s in state %d: counted to %d", tt.typ, tt.state, w.Count)
			}
		}
	}
}

// TestResumedOrder: what was never seen goes first, with the numbers that it had,
// then what is asked anew, then what never left.
func TestResumedOrder(t *testing.T) {
	w, _ := filled(wire.Twrite, wire.Tread, wire.Twrite, wire.Tread, wire.Twalk, wire.Tread)
	w.Add(&Request{Tag: 9})
	if got := fmt.Sprint(w.unanswered()); got != "[1 2 3 4 5 6]" {
		t.Fatal(got)
	}
	w.applyStates([]uint8{wire.Answered, wire.Answered, wire.Running, wire.Running, wire.Unseen, wire.Unseen}, wire.EN)
	if got := text(w); got != "1:1 3:3 4:4 | 5 6 2 9" {
		t.Fatal(got)
	}
	for range 4 {
		w.next()
	}
	if got := text(w); got != "1:1 3:3 4:4 5:5 6:6 7:2 8:9 |" {
		t.Error(got)
	}
}

// TestResumedRenumbers: a request that was dropped leaves its number to the next.
func TestResumedRenumbers(t *testing.T) {
	w, all := filled(wire.Twrite, wire.Twrite, wire.Tflush, wire.Twrite)
	all[1].Flushed = true
	w.applyStates([]uint8{wire.Running, wire.Unseen, wire.Unseen, wire.Unseen}, wire.EN)
	for range 2 {
		w.next()
	}
	if got := text(w); got != "1:1 2:3 3:4 |" {
		t.Error(got)
	}
}

// TestUnsend: a batch that never left is queued as it was.
func TestUnsend(t *testing.T) {
	w, all := filled(wire.Twrite, wire.Tread, wire.Tread)
	w.Add(&Request{Tag: 9})
	w.unsend(4)
	w.unsend(2)
	if got := text(w); got != "1:1 | 2 3 9" || w.Count != 1 || all[1].Number != 0 {
		t.Errorf("%s, counted to %d", got, w.Count)
	}
	w.Remove(all[0])
	w.Remove(all[2])
	w.Remove(all[2])
	if got := text(w); got != "| 2 9" {
		t.Error(got)
	}
}

// TestForgotten: a request leaves the count and its tag whichever way it goes.
func TestForgotten(t *testing.T) {
	w := new(Window)
	asked := func(tag uint16, typ wire.Type) *Request {
		r := &Request{Tag: tag, Type: typ, Frame: make([]byte, 10)}
		for w.Add(r); w.next() != r; { // what is queued before it, too
		}
		return r
	}
	left := func(what string, n int) {
		t.Helper()
		if w.Len() != n || w.Bytes != 10*n {
			t.Errorf("%s: %d requests, %d bytes, want %d", what, w.Len(), w.Bytes, n)
		}
	}
	first := asked(1, wire.Twrite)
	asked(2, wire.Tread).Flushed = true
	asked(3, wire.Tread)
	w.applyStates([]uint8{wire.Answered, wire.Answered, wire.Answered}, wire.EN)
	left("resumed", 2)
	w.Remove(first)
	again := asked(1, wire.Twrite)
	w.Remove(first) // its tag is another's
	left("removed", 2)
	if w.Get(1) != again || w.Get(2) != nil {
		t.Error("the wrong ones are left")
	}
	w.Requeue(func(r *Request) bool { return r.Type == wire.Tread })
	left("lost", 1)
	w.Clear()
	left("cleared", 0)
}

// TestRequeue: of a session that is lost, what is sent once more goes first, and the
// Conn's own probe never.
func TestRequeue(t *testing.T) {
	w, all := filled(wire.Twrite, wire.Tread, wire.Tflush, wire.Tread)
	w.Add(&Request{Tag: 9})
	all[2].probe = true
	w.Requeue(func(r *Request) bool {
		if r == all[2] {
			t.Error("the probe was shown")
		}
		return r.Type == wire.Tread
	})
	if got := text(w); got != "| 2 4 9" || w.Len() != 3 {
		t.Errorf("%s, %d", got, w.Len())
	}
}
