package server

import (
	"bytes"
	"testing"

	"meta9/fs/vm"
)

// TestBodies: the text of a list is kept from the second time on that it is asked
// for, the same for all; however many lists are being taken, few texts are alive.
func TestBodies(t *testing.T) {
	v := newVMs(t)
	for range 3 {
		v.put(v.create(), "k", string(make([]byte, piece/2))) // three of these are more than one block
	}
	var rows []*vm.VM
	v.st.Snapshot(func(all []*vm.VM, _ uint64) { rows = all })
	bs := &bodies{}
	ask := func(tag string) *body {
		return bs.take(&list{rows: rows, tag: tag, access: Access{Internal: true}})
	}
	var held []*body
	for _, tag := range []string{"a", "b", "c", "d"} {
		if b := ask(tag); b != nil {
			t.Fatalf("%s was kept at its first time", tag)
		}
		first, second := ask(tag), ask(tag)
		if kept := len(held) < maxBodies; (first != nil) != kept || first != second {
			t.Fatalf("%s, with %d alive: %p, then %p", tag, len(held), first, second)
		}
		if first != nil {
			bs.release(second)
			held = append(held, first)
		}
	}
	checkText(t, rows, held[0])
	for _, b := range held {
		bs.release(b)
	}
	if bs.alive != 0 {
		t.Errorf("%d texts are alive that nobody takes", bs.alive)
	}
	bs.release(ask("d"))
	bs.expire()
	if bs.newest != nil || bs.alive != 0 || ask("d") != nil {
		t.Errorf("after a while: %+v", bs)
	}
	bs.forget.Stop()
}

// checkText compares the text with what is made as it is sent.
func checkText(t *testing.T, rows []*vm.VM, b *body) {
	t.Helper()
	var want []byte
	l := &list{rows: rows, access: Access{Internal: true}}
	_ = l.each(func(some []byte) error {
		want = append(want, some...)
		return nil
	})
	if got := bytes.Join(b.text, nil); len(b.text) < 2 || b.size != len(got) || !bytes.Equal(got, want) {
		t.Errorf("%d blocks of %d bytes, in all %d, want %d", len(b.text), b.size, len(got), len(want))
	}
}
