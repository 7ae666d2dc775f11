package session_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/session/wire"
)

// replaceAlways replaces the key k as mv does, again and again, until stop is
// called: it puts another key and gives it the name. Each value is a line of its
// own, several times.
func (w *world) replaceAlways() (stop func()) {
	cell := w.store.Cell(vmOne)
	replace := func(i int) {
		w.put("k.new", strings.Repeat(fmt.Sprintf("value %d\n", i), 4))
		w.do(&store.Intent{Kind: store.Set, Cell: cell, Name: "k.new", NewName: "k", By: "admin"})
	}
	replace(0)
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-quit:
				return
			default:
				replace(i)
			}
		}
	})
	return func() { close(quit); done.Wait() }
}

// whole tells whether data is one of replaceAlways' values, and not pieces of two.
func whole(data []byte) bool {
	line, rest, _ := strings.Cut(string(data), "\n")
	return line != "" && rest == strings.Repeat(line+"\n", 3)
}

// TestReplacedAlways reads a key while it is replaced all the time, in every dialect
// in which programs read: by its path, by a fid that was walked to it long ago, and
// by Tsread. Nothing fails, as nothing does on a local disk.
func TestReplacedAlways(t *testing.T) {
	opens := 1250 // of each kind, in each dialect: 10,000 in all
	if testing.Short() {
		opens = 200
	}
	w := newWorld(t, nil)
	defer w.replaceAlways()()
	var readers sync.WaitGroup
	for _, version := range []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L"} {
		c := w.dial("unix", peers["vm"])
		c.hello(version)
		c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys", "k"}}, wire.Rwalk)
		readers.Go(func() {
			for range opens {
				if !c.readReplaced() {
					return
				}
			}
		})
	}
	readers.Wait()
}

// readReplaced reads keys/k, to which fid 1 was walked before it was replaced, in all
// ways. false: something failed, and the test knows.
func (c *client) readReplaced() bool {
	ok := true
	ask := func(m *wire.Msg, want wire.Type) *wire.Msg {
		if !ok {
			return &wire.Msg{}
		}
		m.Tag = 1
		c.send(m)
		r := c.receive()
		if r.Type != want {
			c.t.Errorf("%s: %s: %s", c.dialect, m, r)
			ok = false
		}
		return r
	}
	open, opened := wire.Topen, wire.Ropen
	stat, told := wire.Tstat, wire.Rstat
	if c.dialect == wire.L {
		open, opened, stat, told = wire.Tlopen, wire.Rlopen, wire.Tgetattr, wire.Rgetattr
	}
	read := func(fid uint32, names ...string) {
		ask(&wire.Msg{Type: wire.Twalk, Fid: fid, Newfid: 2, Names: names}, wire.Rwalk)
		ask(&wire.Msg{Type: stat, Fid: 2}, told)
		ask(&wire.Msg{Type: open, Fid: 2}, opened)
		r := ask(&wire.Msg{Type: wire.Tread, Fid: 2, Count: 4096}, wire.Rread)
		if ok && !whole(r.Data) {
			c.t.Errorf("%s: read %q", c.dialect, r.Data)
		}
		ask(&wire.Msg{Type: wire.Tclunk, Fid: 2}, wire.Rclunk)
	}
	read(0, "keys", "k")
	read(1)
	if c.dialect == wire.E {
		for _, m := range []*wire.Msg{
			{Type: wire.Tsread, Fid: 0, Names: []string{"keys", "k"}},
			{Type: wire.Tsread, Fid: 1},
		} {
			if r := ask(m, wire.Rsread); ok && !whole(r.Data) {
				c.t.Errorf("%s: %q", m, r.Data)
			}
		}
	}
	return ok
}

// TestReadWhileItShrinks reads a key and vm.json in large pieces, and others make the
// value shorter, and longer again, between them: the reader has the value whole that it
// began to read.
func TestReadWhileItShrinks(t *testing.T) {
	w := newWorld(t, nil)
	old := strings.Repeat("0123456789", 30_000)
	for _, path := range []string{"keys/k", "vm.json"} {
		for _, other := range []string{"", "1", strings.Repeat("x", 200_000), strings.Repeat("y", 400_000)} {
			t.Run(fmt.Sprint(path, " ", len(other)), func(t *testing.T) {
				w.put("k", old)
				c := w.wide("vm", "9P2000.L")
				names := strings.Split(path, "/")
				c.walk(1, names...)
				c.lopen(1, p9.ReadOnly)
				var all []byte
				for {
					r := c.do(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: 1, Offset: uint64(len(all)), Count: 65_000}, wire.Rread)
					if len(r.Data) == 0 {
						break
					}
					all = append(all, r.Data...)
					w.put("k", other)
				}
				if path == "vm.json" && !json.Valid(all) || path != "vm.json" && len(all) != len(old) || !strings.Contains(string(all), old) {
					t.Errorf("%d bytes are read, and not the old value", len(all))
				}
			})
		}
	}
}
