package bolt_test

import (
	"runtime"
	"strings"
	"testing"

	"meta9/fs/store"
	"meta9/fs/store/bolt"
)

// TestSpliceCopies: a byte that is written into a large value copies the value once,
// to make the new one, and from there on it is written as it is.
func TestSpliceCopies(t *testing.T) {
	const size, times = 1 << 20, 16
	e, err := bolt.Open(t.TempDir(), bolt.Options{Segment: 64 << 20}) // no checkpoint, which copies for many
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(e, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	const uuid = "11111111-1111-4111-8111-111111111111"
	do := func(in store.Intent) {
		t.Helper()
		in.Cell = st.Cell(uuid)
		if r := st.Do(&in); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`})
	do(store.Intent{Kind: store.Put, Name: "large", Data: strings.Repeat("x", size)})
	splice := func() { do(store.Intent{Kind: store.Splice, Name: "large", Off: size / 2, Data: "y"}) }
	splice()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		splice()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / times; each > size*5/4 {
		t.Errorf("a splice of 1 byte allocates %d bytes, a value has %d", each, size)
	}
}
