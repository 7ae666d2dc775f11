package server

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// model is a feed whose clock the test has, and followers that come, go, fall behind and
// come back at random.
type model struct {
	*vms
	feed  *feed
	now   time.Time
	draw  *rand.Rand
	cells []*store.Cell
}

// modelled is one follower: what it was told, applied to its snapshot.
type modelled struct {
	*listener
	m     *model
	has   map[string]string
	since uint64 // the revision of its last line
}

func newModel(t *testing.T, seed uint64, l Limits) *model {
	m := &model{vms: newVMs(t), now: time.Unix(1000, 0), draw: rand.New(rand.NewPCG(seed, 1))}
	l.Listeners = 1000
	m.feed = newFeed(l, m.st.Rev())
	m.feed.now = func() time.Time { return m.now }
	return m
}

// all is what /vms says.
func (m *model) all(internal bool) (list map[string]string, rev uint64) {
	list = make(map[string]string)
	m.st.Snapshot(func(rows []*vm.VM, r uint64) {
		rev = r
		for _, row := range rows {
			list[row.UUID] = string(visible(row, internal).AppendJSON(nil, false))
		}
	})
	return list, rev
}

// change makes one change at random.
func (m *model) change() {
	i := m.draw.IntN(6)
	for len(m.cells) <= i {
		m.cells = append(m.cells, nil)
	}
	c := m.cells[i]
	name, space := fmt.Sprint("k", m.draw.IntN(3)), vm.Keys
	if m.draw.IntN(4) == 0 {
		space = vm.Internal
	}
	size := 1 + m.draw.IntN(3)
	if m.draw.IntN(8) == 0 {
		size = m.draw.IntN(300 << 10)
	}
	switch n := m.draw.IntN(20); {
	case c == nil:
		m.cells[i] = m.create()
	case n == 0:
		m.do(store.Intent{Kind: store.DeleteVM, Cell: c})
		m.cells[i] = nil
	case n < 4 && c.VM().Get(space, name) != nil:
		m.do(store.Intent{Kind: store.Remove, Cell: c, Space: space, Name: name})
	case n < 6 && c.VM().Get(space, name) != nil:
		mode := uint16(m.draw.IntN(0o777))
		m.do(store.Intent{Kind: store.Set, Cell: c, Space: space, Name: name, Mode: &mode})
	default: // of few values, so that a VM is often as it was
		m.do(store.Intent{Kind: store.Put, Cell: c, Space: space, Name: name, Data: strings.Repeat(string(rune('a'+m.draw.IntN(2))), size)})
	}
	for _, l := range m.take() {
		m.feed.add(l)
	}
}

// enter is a new follower, with a snapshot.
func (m *model) enter(internal bool) *modelled {
	f := &modelled{m: m, listener: &listener{endpoint: newEndpoint(Access{Internal: internal}, nil)}}
	m.feed.addListener(f.listener)
	m.feed.startHere(f.listener)
	f.has, f.rev = m.all(internal)
	f.entry, f.since = f.rev, f.rev
	return f
}

// resume goes on after the last line that it has, as another listener.
func (f *modelled) resume() *modelled {
	f.m.feed.removeListener(f.listener)
	if !f.m.feed.canResume(f.since, f.m.st.Rev()) {
		return f.m.enter(f.Internal)
	}
	g := &modelled{m: f.m, has: f.has, since: f.since, listener: &listener{endpoint: f.endpoint, rev: f.since, entry: f.since}}
	f.m.feed.addListener(g.listener)
	return g
}

// take takes one line; false: there is none.
func (f *modelled) take() bool {
	l, inside, lost, _ := f.m.feed.next(f.listener)
	if lost {
		f.m.feed.removeListener(f.listener)
		*f = *f.m.enter(f.Internal)
		return true
	}
	if l == nil {
		return false
	}
	if l.rev < f.since {
		f.m.Fatalf("revision %d after %d", l.rev, f.since)
	}
	var p ordjson.Pieces
	if !l.write(&p, f.Internal, inside) {
		return true
	}
	ev, err := vminfo.ParseEvent(append(p.Text, '}'))
	if err != nil {
		f.m.Fatal(err)
	}
	_, there := f.has[ev.UUID]
	f.since = l.rev
	switch {
	case ev.Type == vminfo.Create && !there, ev.Type == vminfo.Modify && there:
		f.has[ev.UUID] = string(ev.VM)
	case ev.Type == vminfo.Delete && there:
		delete(f.has, ev.UUID)
	case ev.Type == vminfo.Delete && f.m.feed.limits.Bytes <= 1<<20: // the creation gave way
	default:
		f.m.Fatalf("%s of a VM that it has: %v", ev.Type, there)
	}
	return true
}

// check compares what the feed counts with what it has.
func (m *model) check() {
	m.Helper()
	var lines int
	var bytes int64
	for id, c := range m.feed.chains {
		lines += len(c.lines)
		var own int64
		for _, l := range c.lines {
			own += l.size
			if l.vm != id || m.feed.lines[m.feed.indexOf(l)] != l {
				m.Fatal("a chain's line is not in the feed")
			}
		}
		if own != c.bytes {
			m.Fatalf("a chain counts %d bytes, and has %d", c.bytes, own)
		}
		bytes += own
	}
	if lines != len(m.feed.lines) || bytes != m.feed.bytes {
		m.Fatalf("%d lines of %d bytes, and %d of %d in the chains", len(m.feed.lines), m.feed.bytes, lines, bytes)
	}
	if l := m.feed.limits; lines > 1 && (lines > l.Events || bytes > l.Bytes) {
		m.Fatalf("%d lines of %d bytes are too much", lines, bytes)
	}
}

// TestFeedModel: whatever changes, however fast, and wherever followers begin, fall
// behind and come back, each has in the end what the store has; none is told of a VM that
// it knows as if it were new, nor of one that it does not know as if it did.
func TestFeedModel(t *testing.T) {
	seeds, steps := uint64(8), 500
	if testing.Short() {
		seeds, steps = 4, 250 // one of each limits
	}
	for seed := range seeds {
		limits := []Limits{{Events: 8192, Bytes: 64 << 20}, {Events: 8, Bytes: 64 << 20}, {Events: 8192, Bytes: 1 << 20}, {Events: 64, Bytes: 4 << 20}}[seed%4]
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed, limits)
			var all []*modelled
			for range steps {
				switch n := m.draw.IntN(100); {
				case n < 50:
					m.change()
				case n < 55:
					m.now = m.now.Add(time.Duration(m.draw.IntN(2000)) * time.Millisecond)
					m.feed.wake(m.now)
				case n < 57:
					all = append(all, m.enter(m.draw.IntN(2) == 0))
				case len(all) == 0:
				case n < 60:
					i := m.draw.IntN(len(all))
					all[i] = all[i].resume()
				default:
					f := all[m.draw.IntN(len(all))]
					for n := m.draw.IntN(5); n > 0 && f.take(); n-- {
					}
				}
				m.check()
			}
			m.now = m.now.Add(time.Hour)
			m.feed.wake(m.now)
			for i, f := range all {
				for f.take() {
				}
				want, _ := m.all(f.Internal)
				if !maps.Equal(want, f.has) {
					t.Errorf("follower %d (-store +follower):\n%.2000s", i, cmp.Diff(want, f.has))
				}
				m.feed.removeListener(f.listener)
			}
			if m.feed.held != 0 {
				t.Errorf("%d bytes are held by nobody", m.feed.held)
			}
		})
	}
}

// TestPace: a large VM that changes 50 times a second is told in bounded bytes, shared by
// all who listen; the first change at once, and the last within the time.
func TestPace(t *testing.T) {
	for _, listeners := range []int{0, 20} {
		m := newModel(t, 1, DefaultLimits)
		for range listeners {
			m.enter(true)
		}
		c := m.create()
		for i := range 15 {
			m.put(c, fmt.Sprint("k", i), strings.Repeat("x", 1<<20))
		}
		m.take()
		const seconds, rate = 120, 50
		longest := time.Duration(0)
		var waits time.Time
		for i := range seconds * rate {
			m.put(c, "n", fmt.Sprint(i))
			for _, l := range m.take() {
				m.feed.add(l)
			}
			m.now = m.now.Add(time.Second / rate)
			m.feed.wake(m.now)
			switch waited := len(m.feed.waiting) > 0; {
			case !waited:
				waits = time.Time{}
			case waits.IsZero():
				waits = m.now
			default:
				longest = max(longest, m.now.Sub(waits))
			}
			if i == 0 && m.feed.seq != 1 {
				t.Error("the first change was not told at once")
			}
		}
		bytes := float64(m.feed.seq) * 15 * float64(max(1, listeners))
		t.Logf("%d listeners: %d lines, the longest wait %v", listeners, m.feed.seq, longest)
		if most := 1.2 * seconds * vmPace / (1 << 20); bytes > most || m.feed.seq < 3 {
			t.Errorf("%d listeners: %d lines, %.0f MiB in %d s", listeners, m.feed.seq, bytes, seconds)
		}
		if longest > vmLongest+time.Second {
			t.Errorf("%d listeners: a change waited %v", listeners, longest)
		}
		m.check()
		if n := m.feed.bytes; n > 1<<20 {
			t.Errorf("the lines keep %d bytes, of changes of 4", n)
		}
	}
}

// TestPaceOfAll: a hundred VMs that change all the time are told in bounded bytes
// together, each of them within the time, and nobody drops out; a VM that changes now
// and then is told at once.
func TestPaceOfAll(t *testing.T) {
	const vms, listeners, seconds, rate = 100, 4, 30, 10
	m := newModel(t, 1, DefaultLimits)
	for range listeners {
		m.enter(true)
	}
	value := strings.Repeat("x", 1<<20)
	var large []*store.Cell
	for range vms {
		c := m.create()
		m.put(c, "k", value)
		large = append(large, c)
	}
	honest := m.create()
	m.take()
	told := func() (bytes int64) {
		for _, l := range m.feed.lines {
			bytes += l.weight
		}
		return bytes
	}
	var bytes int64
	seen := make(map[uint64]uint64) // by VM: the last line's place
	count := func() {
		for _, l := range m.feed.lines {
			if l.seq > seen[l.vm] {
				seen[l.vm] = l.seq
				bytes += l.weight * listeners
			}
		}
	}
	for i := range seconds * rate {
		for _, c := range large {
			m.put(c, "n", fmt.Sprint(i))
		}
		for _, l := range m.take() {
			m.feed.add(l)
		}
		m.feed.wake(m.now)
		m.put(honest, "n", fmt.Sprint(i))
		for _, l := range m.take() {
			m.feed.add(l)
		}
		if newest := m.feed.lines[len(m.feed.lines)-1]; newest.vm != honest.ID() {
			t.Fatalf("at %d: the honest VM waits", i)
		}
		count()
		m.now = m.now.Add(time.Second / rate)
	}
	if most := int64(seconds+1) * allPace * 6 / 5; bytes > most {
		t.Errorf("%d MiB were told in %d s, %d may be", bytes>>20, seconds, most>>20)
	}
	for c := range m.feed.waiting {
		if waited := m.now.Sub(c.pendingSince); waited > vmLongest {
			t.Errorf("a change has waited %v", waited)
		}
	}
	if n := len(seen); n < vms+1 {
		t.Errorf("%d of %d VMs were told of", n, vms+1)
	}
	t.Logf("%d MiB in %d s, %d MiB in the feed", bytes>>20, seconds, told()>>20)
	m.check()
}
