package server_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/server"
)

// The largest value goes in and out, by both versions, and so does the next request
// after one that is larger.
func TestLargestValue(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{VMWide: 1})
	w.create(payload)
	value := strings.Repeat("\x00\xff.\n", vm.DefaultLimits.Value/4)
	key := strings.Repeat("k", vm.MaxName)
	for range 2 {
		c := w.client()
		if got := c.put(key, value); got != "SUCCESS OK" {
			t.Fatal(got)
		}
		if got := c.ask("GET", key); got != "SUCCESS "+value {
			t.Fatalf("%d bytes", len(got))
		}
		if got := c.ask("GET", "color"); got != "SUCCESS blue" {
			t.Error(got)
		}
		c.send("GET " + key + "\n")
		want := string(mdata.AppendValue(nil, []byte(value)))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		for _, more := range []string{"x", strings.Repeat("x", 1000), value + value} {
			if got := c.put(key, value+more); got != "FAILURE 1048576 bytes is the limit of a value" {
				t.Errorf("%.80s", got)
			}
		}
		if got := c.ask("GET", value+value); !strings.HasSuffix(got, " bytes is the limit of a request") {
			t.Errorf("%.80s", got)
		}
	}
	if s := w.Stats(); s.Dropped != 2*3 {
		t.Errorf("%+v", s)
	}
}

// A line beyond the longest is dropped up to its LF, and the next is answered.
func TestLineTooLong(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	c := w.client()
	for range 3 {
		junk := strings.Repeat("x", mdata.MaxLine(vm.DefaultLimits.Value)+1)
		go c.Write([]byte(junk + junk + "\nGET color\n"))
		for _, want := range []string{"SUCCESS", "blue", "."} {
			if got := c.line(); got != want {
				t.Fatalf("got %q", got)
			}
		}
	}
	if s := w.Stats(); s.Dropped != 3 || s.Requests != 3 {
		t.Errorf("%+v", s)
	}
}

// A long line that stands still is dropped; until then others wait that need
// much memory, and none that does not.
func TestLineNeverEnds(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{VMWide: 1, WideTime: 300 * time.Millisecond})
	w.create(payload)
	large := strings.Repeat("x", 500_000)
	slow, quick, wide := w.client(), w.client(), w.client()
	slow.send("GET " + large)
	if got := quick.ask("GET", "color"); got != "SUCCESS blue" {
		t.Error(got)
	}
	if got := wide.put("large", large); got != "SUCCESS OK" {
		t.Error(got)
	}
	slow.send(large + "\nGET color\n")
	for _, want := range []string{"SUCCESS", "blue", "."} {
		if got := slow.line(); got != want {
			t.Errorf("got %q", got)
		}
	}
	if s := w.Stats(); s.Dropped != 1 {
		t.Errorf("%+v", s)
	}
}

// A peer that does not take a large reply loses its connection, and the others
// get theirs.
func TestReplyNotTaken(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{VMWide: 1, WideTime: 200 * time.Millisecond})
	w.create(payload)
	large := strings.Repeat("x", 1<<20)
	c := w.client()
	if got := c.put("large", large); got != "SUCCESS OK" {
		t.Fatal(got)
	}
	deaf := w.client()
	deaf.send(strings.Repeat(request("GET", "large"), 8))
	if got := c.ask("GET", "large"); got != "SUCCESS "+large {
		t.Errorf("%d bytes", len(got))
	}
	eventually(t, "the deaf one is gone", func() bool { return w.Stats().Conns == 1 })
}

func TestManyNames(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	c := w.client()
	var want []string
	var b strings.Builder
	for i := range 3000 {
		name := strings.Repeat("n", 100) + string(rune('a'+i/100)) + string(rune('a'+i%100/10)) + string(rune('a'+i%10))
		want = append(want, name)
		b.WriteString(`,"` + name + `":""`)
	}
	w.do(store.Intent{Kind: store.UpdateVM, Data: `{"set_customer_metadata":{` + b.String()[1:] + `}}`})
	got := strings.Split(strings.TrimPrefix(c.ask("KEYS", ""), "SUCCESS "), "\n")
	if len(got) != len(want)+4 || got[2] != want[0] {
		t.Errorf("%d names, %q", len(got), got[:3])
	}
}

func TestConnectionLimits(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{VMConns: 2})
	w.create(payload)
	a, b := w.client(), w.client()
	for _, c := range []*client{a, b} {
		if got := c.ask("GET", "color"); got != "SUCCESS blue" {
			t.Error(got)
		}
	}
	if _, err := w.client().r.ReadByte(); err != io.EOF {
		t.Errorf("a third one: %v", err)
	}
	a.Close()
	eventually(t, "there is room again", func() bool { return w.Stats().Conns == 1 })
	if got := w.client().ask("GET", "color"); got != "SUCCESS blue" {
		t.Error(got)
	}
	if s := w.Stats(); s.Refused != 1 {
		t.Errorf("%+v", s)
	}
}

// What proves nobody, or a VM that is not there, gets nothing.
func TestWhoIsRefused(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	for _, who := range []fs.Principal{{}, {Admin: true}, {VM: uuid}} {
		a, b := net.Pipe()
		go w.Serve(a, who, "")
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v: %v", who, err)
		}
	}
	if s := w.Stats(); s.Conns != 0 || s.Refused != 2 {
		t.Errorf("%+v", s)
	}
}

func TestDropVM(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	c := w.client()
	if got := c.ask("GET", "color"); got != "SUCCESS blue" {
		t.Error(got)
	}
	w.do(store.Intent{Kind: store.DeleteVM})
	if got := c.ask("GET", "color"); got != "FAILURE VM "+uuid+" was deleted" {
		t.Error(got)
	}
	w.DropVM(uuid)
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Error(err)
	}
}

// Drain answers what has come in, then ends every connection and takes no more.
func TestDrain(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	c, idle := w.client(), w.client()
	if got := idle.ask("GET", "color"); got != "SUCCESS blue" {
		t.Error(got)
	}
	c.send(strings.Repeat(putRequest("color", "red"), 100))
	if got := c.reply(); got != "SUCCESS OK" {
		t.Error(got)
	}
	if err := w.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	for range 99 {
		if got := c.reply(); got != "SUCCESS OK" {
			t.Error(got)
		}
	}
	for _, c := range []*client{c, idle, w.client()} {
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Error(err)
		}
	}
}

// TestQuiet: what a VM has asked for is answered before its connections end, new ones are closed
// until it is over, and other VMs notice nothing of it.
func TestQuiet(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(`{"uuid":"` + uuid + `"}`)
	c := w.client()
	if got := c.put("a", "before"); got != mdata.Success+" OK" {
		t.Fatal(got)
	}
	c.send(putRequest("a", "asked") + request(mdata.Get, "a")[:9])
	again := w.Quiet(t.Context(), uuid)
	if got := c.reply(); got != mdata.Success+" OK" {
		t.Error(got)
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("its connection goes on")
	}
	late := w.client()
	if _, err := late.r.ReadByte(); err == nil {
		t.Error("a new one is served")
	}
	again()
	if got := w.client().ask(mdata.Get, "a"); got != mdata.Success+" asked" {
		t.Error(got)
	}
	// Who takes no replies holds up no longer than ctx.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	deaf := w.client()
	deaf.send(request(mdata.Get, "a"))
	eventually(t, "it is served", func() bool { return w.Stats().Conns == 2 })
	w.Quiet(ctx, uuid)()
	eventually(t, "it is closed", func() bool { return w.Stats().Conns == 0 })
}
