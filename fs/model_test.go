package fs_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meta9/fs"
	"meta9/fs/store"
)

// model is what docs/tree.md says of reading and writing, in its plainest form.
type model struct {
	keys   map[string]*modelKey
	views  []*modelView
	nextID int
}

type modelKey struct {
	id    int
	value string
}

type modelView struct {
	c       *client
	handles []*modelHandle
	ended   map[int]bool // keys of which a hold ended, and nobody has looked
}

type modelHandle struct {
	fs.Handle
	view   *modelView
	id     int
	name   string
	value  string
	pinned bool
	holds  bool
}

func (m *model) byID(id int) *modelKey {
	for _, k := range m.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

func (m *model) each(fn func(h *modelHandle)) {
	for _, v := range m.views {
		for _, h := range v.handles {
			fn(h)
		}
	}
}

// base is what the next commit to the key computes on.
func (m *model) base(k *modelKey) string {
	value := k.value
	m.each(func(h *modelHandle) {
		if h.id == k.id && h.holds {
			value = ""
		}
	})
	return value
}

// commit makes value the key's: all holds end, and the View that did it reads it.
func (m *model) commit(by *modelView, k *modelKey, value string) {
	k.value = value
	m.endHolds(k.id)
	for _, h := range by.handles {
		if h.id == k.id {
			h.value, h.pinned = value, true
		}
	}
}

func (m *model) endHolds(id int) {
	m.each(func(h *modelHandle) {
		if h.id == id && h.holds {
			h.holds = false
			h.view.ended[id] = true
		}
	})
}

// sees tells whether the View sees the key as empty; the first look after a hold
// has ended takes the newest value.
func (m *model) held(v *modelView, id int) bool {
	for _, h := range v.handles {
		if h.id == id && h.holds {
			return true
		}
	}
	if v.ended[id] {
		delete(v.ended, id)
		for _, h := range v.handles {
			if k := m.byID(id); k != nil && h.id == id {
				h.value, h.pinned = k.value, true
			}
		}
	}
	return false
}

// read is what a read at off gives; ok is false where nothing is left.
func (m *model) read(h *modelHandle, off int) (string, bool) {
	if m.held(h.view, h.id) {
		return "", true
	}
	k := m.byID(h.id)
	switch {
	case k == nil:
	case off == 0, !h.pinned, off >= len(h.value) && strings.HasPrefix(k.value, h.value):
		h.value, h.pinned = k.value, true
	}
	if !h.pinned {
		return "", false
	}
	return h.value[min(off, len(h.value)):], true
}

// TestModel plays random reads, writes, truncations, renames and removals of some
// Views on some keys, and compares every answer with the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, store.Config{})
		m := &model{keys: map[string]*modelKey{}}
		for i, c := range []*client{w.guest(vmA), w.guest(vmA), w.admin()} {
			if i == 2 {
				c.root = c.walk("vms", vmA)
			}
			m.views = append(m.views, &modelView{c: c, ended: map[int]bool{}})
			defer c.view.Close()
		}
		p := &modelPlayer{m, w}
		actions := map[string]func(*rapid.T){
			"put": p.put, "remove": p.remove, "rename": p.rename, "open": p.open, "close": p.close,
			"read": p.readOne, "write": p.write, "trunc": p.trunc, "park": p.park, "stat": p.stat,
		}
		often := rapid.SampledFrom(strings.Fields(
			"put put put open open open read read read read read read write write write trunc trunc close close close stat stat rename remove park"))
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			actions[often.Draw(rt, "action")](rt)
		}
	})
}

type modelPlayer struct {
	*model
	w *world
}

func (p *modelPlayer) view(rt *rapid.T) *modelView {
	return p.views[rapid.IntRange(0, len(p.views)-1).Draw(rt, "view")]
}

func name(rt *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name") }

func value(rt *rapid.T) string { return rapid.StringMatching(`[xy]{0,4}`).Draw(rt, "value") }

// handle draws an open handle; nil when there is none.
func (p *modelPlayer) handle(rt *rapid.T) *modelHandle {
	v := p.view(rt)
	if len(v.handles) == 0 {
		return nil
	}
	return v.handles[rapid.IntRange(0, len(v.handles)-1).Draw(rt, "handle")]
}

// key draws a key; nil when there is none of that name.
func (p *modelPlayer) key(rt *rapid.T) (string, *modelKey) {
	n := name(rt)
	return n, p.keys[n]
}

func (p *modelPlayer) put(rt *rapid.T) {
	v, n, val := p.view(rt), name(rt), value(rt)
	dir := v.c.walk("keys").Node().(fs.Putter)
	if err := v.c.await(func(done func(error)) { dir.Put(n, []byte(val), fs.Author{By: "me"}, done) }); err != nil {
		rt.Fatal(err)
	}
	if p.keys[n] == nil {
		p.nextID++
		p.keys[n] = &modelKey{id: p.nextID}
	}
	p.commit(v, p.keys[n], val)
}

func (p *modelPlayer) remove(rt *rapid.T) {
	v := p.view(rt)
	n, k := p.key(rt)
	if k == nil {
		return
	}
	if err := v.c.await(v.c.walk("keys", n).Remove); err != nil {
		rt.Fatal(err)
	}
	delete(p.keys, n)
	p.endHolds(k.id)
}

func (p *modelPlayer) rename(rt *rapid.T) {
	v := p.view(rt)
	n, k := p.key(rt)
	to := name(rt)
	if k == nil {
		return
	}
	dir := v.c.walk("keys")
	if err := v.c.await(func(done func(error)) { dir.Rename(n, dir, to, done) }); err != nil {
		rt.Fatal(err)
	}
	if n == to {
		return
	}
	if over := p.keys[to]; over != nil {
		p.endHolds(over.id)
	}
	delete(p.keys, n)
	p.keys[to] = k
	p.commit(v, k, p.base(k))
}

func (p *modelPlayer) open(rt *rapid.T) {
	v := p.view(rt)
	n, k := p.key(rt)
	if k == nil {
		return
	}
	f := fs.Read | fs.Write
	if rapid.Bool().Draw(rt, "append") {
		f |= fs.AppendTo
	}
	h := &modelHandle{Handle: v.c.open(f, "keys", n), view: v, id: k.id, name: n, value: k.value, pinned: true}
	v.handles = append(v.handles, h)
}

func (p *modelPlayer) close(rt *rapid.T) {
	h := p.handle(rt)
	if h == nil {
		return
	}
	if rapid.Bool().Draw(rt, "drop") {
		h.Drop()
		if h.holds {
			h.view.ended[h.id] = true
		}
	} else {
		if err := h.view.c.await(func(done func(error)) { h.Clunk(fs.Author{By: "me"}, done) }); err != nil {
			rt.Fatal(err)
		}
		if h.holds {
			p.commit(h.view, p.byID(h.id), "")
		}
	}
	for i, other := range h.view.handles {
		if other == h {
			h.view.handles = append(h.view.handles[:i:i], h.view.handles[i+1:]...)
			break
		}
	}
}

func (p *modelPlayer) readOne(rt *rapid.T) {
	h := p.handle(rt)
	off := rapid.IntRange(0, 6).Draw(rt, "off")
	if h == nil {
		return
	}
	p.w.barrier()
	want, ok := p.read(h, off)
	got, err := h.view.c.read(h, uint64(off), 99)
	if ok != (err == nil) || got != want {
		rt.Fatalf("read at %d: %q, %v; want %q, %v", off, got, err, want, ok)
	}
}

func (p *modelPlayer) write(rt *rapid.T) {
	h, data := p.handle(rt), value(rt)
	off := rapid.IntRange(0, 6).Draw(rt, "off")
	if h == nil {
		return
	}
	n, err := h.view.c.write(h, uint64(off), data)
	k := p.byID(h.id)
	if k == nil {
		if kindName(err) != "Gone" {
			rt.Fatalf("a write to a removed key: %v", err)
		}
		return
	}
	if err != nil || n != len(data) {
		rt.Fatal(n, err)
	}
	if data == "" {
		return // a write of nothing changes nothing, but is answered
	}
	old := p.base(k)
	if h.State().Flags&fs.AppendTo != 0 {
		off = len(old)
	}
	if off > len(old) {
		old += strings.Repeat("\x00", off-len(old))
	}
	p.commit(h.view, k, old[:off]+data+old[min(len(old), off+len(data)):])
}

func (p *modelPlayer) trunc(rt *rapid.T) {
	h := p.handle(rt)
	if h == nil {
		return
	}
	var zero uint64
	err := h.view.c.await(func(done func(error)) { h.SetStat(fs.Change{Length: &zero}, fs.Author{By: "me"}, done) })
	if p.byID(h.id) == nil {
		if kindName(err) != "Gone" {
			rt.Fatal(err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	h.holds = true
}

func (p *modelPlayer) park(rt *rapid.T) {
	p.view(rt).c.view.Park() // what is read of a key stays
}

// stat compares all of keys/ as a View sees it.
func (p *modelPlayer) stat(rt *rapid.T) {
	v := p.view(rt)
	got := map[string]uint64{}
	if err := v.c.walk("keys").List(0, func(_ uint64, st *fs.Stat) bool {
		got[st.Name] = st.Length
		return true
	}); err != nil {
		rt.Fatal(err)
	}
	for n, k := range p.keys {
		want := uint64(len(k.value))
		if p.held(v, k.id) {
			want = 0
		}
		if have, ok := got[n]; !ok || have != want {
			rt.Fatalf("%s is %v long, want %d", n, fmt.Sprint(have, ok), want)
		}
	}
}
