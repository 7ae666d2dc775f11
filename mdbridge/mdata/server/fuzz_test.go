package server_test

import (
	"bytes"
	"strings"
	"testing"

	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/mdatatest"
	"meta9/mdbridge/mdata/server"
)

// Whatever a guest sends, the next good frame is answered, under its own id, and
// nothing is stored beyond the limits.
func FuzzServer(f *testing.F) {
	for _, p := range mdatatest.Load(f, vectors).Pairs {
		f.Add(p.Send)
	}
	f.Add([]byte(putRequest("color", "red") + "V2 12 fad1d262 dc4fae17 GET"))
	f.Add(bytes.Repeat([]byte("x"), 70_000))
	f.Fuzz(func(t *testing.T, sent []byte) {
		w := newWorld(t, store.Config{Limits: vm.Limits{Value: 50_000, Keys: 10, Bytes: 60_000}}, server.Limits{})
		w.create(payload)
		c := w.client()
		c.send("\n" + string(sent) + "\n" + putRequest("color", "last"))
		const last = "0a1b2c3d SUCCESS T0s=\n"
		for n := 0; ; n++ {
			line, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatalf("%v after %d lines", err, n)
			}
			if strings.HasSuffix(line, last) && c.r.Buffered() == 0 && w.get("color") == "last" {
				break
			}
		}
		m := w.st.Cell(uuid).VM()
		if m.Count() > 10 || m.Bytes() > 60_000 || m.Get(vm.Internal, "operator-script").Value != "op" {
			t.Errorf("%d keys, %d bytes", m.Count(), m.Bytes())
		}
	})
}

// get is a key's value in the store.
func (w *world) get(key string) string {
	if e := w.st.Cell(uuid).VM().Get(vm.Keys, key); e != nil {
		return e.Value
	}
	return ""
}

// BenchmarkGet is one GET, of which the socket's part is measured elsewhere.
func BenchmarkGet(b *testing.B) {
	w := newWorld(b, store.Config{}, server.Limits{})
	w.create(payload)
	c := w.client()
	req, reply := []byte(request(mdata.Get, "color")), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(reply); err != nil {
			b.Fatal(err)
		}
	}
}
