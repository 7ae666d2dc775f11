package session_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meta9/fs/budget"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/wire"
)

// A listing that takes several messages is of the moment of the first.

// manyKeys fills the first VM with keys of long names: some 900 KiB of a listing.
func (w *world) manyKeys() {
	w.t.Helper()
	const keys = 4090
	var members []string
	for i := range keys {
		members = append(members, fmt.Sprintf("%q:%q", longKey(i), "v"))
	}
	w.do(&store.Intent{Kind: store.UpdateVM, Cell: w.store.Cell(vmOne), Data: `{"set_customer_metadata":{` + strings.Join(members, ",") + `}}`, By: "admin"})
	w.observed()
}

// observed returns when all commits so far have been observed, which is after their replies
// and before the next batch: that of a VM that is there already.
func (w *world) observed() {
	w.t.Helper()
	r := w.store.Do(&store.Intent{Kind: store.CreateVM, Data: fmt.Sprintf(`{"uuid":%q}`, vmOne)})
	if errs.KindOf(r.Err) != errs.Exists {
		w.t.Fatal(r.Err)
	}
}

func longKey(i int) string { return fmt.Sprintf("%04d%s", i, strings.Repeat("x", 180)) }

// shift is one transaction that changes the beginning, the middle and the end of the
// listing: keys go, others come, values change.
func (w *world) shift(i int) {
	w.t.Helper()
	line := fmt.Sprintf(`{"do":[{"remove":%q},{"remove":%q},{"put":%q,"value":"changed"},{"put":%q,"value":"changed"},{"put":"new%d","value":"v"}]}`,
		longKey(i), longKey(2000+i), longKey(1000+i), longKey(4000+i), i)
	c := w.dial("unix", peers["vm"])
	c.hello("9P2000.e")
	c.do(swrite(1, line, "txn"), wire.Rswrite)
	c.nc.Close()
	w.observed()
}

// listed reads the rest of an open folder as r does, and gives what each entry says.
func (r *folderReader) entries() (list []string) {
	r.c.t.Helper()
	for !r.ended {
		r.more()
	}
	return slices.Clone(r.seen)
}

// momentDialects are those that list folders in one way or the other.
var momentDialects = []string{"9P2000", "9P2000.u", "9P2000.e", "9P2000.L"}

// TestListingIsOfOneMoment: whatever transactions come while a folder is listed, the
// listing is that of its beginning, in every dialect, and of whichever beginning.
func TestListingIsOfOneMoment(t *testing.T) {
	for i, version := range momentDialects {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, nil)
			w.manyKeys()
			c := w.wide("vm", version)
			want := c.openFolder(1, 64<<10).entries()
			if len(want) != 4090 {
				t.Fatalf("%d keys", len(want))
			}
			r, again := c.openFolder(2, 64<<10), c.openFolder(3, 64<<10)
			r.more()
			for step := 0; !r.ended; step++ {
				if step < 8 {
					w.shift(10*i + step)
				}
				r.more()
			}
			check(t, "while transactions came", r.seen, want)
			check(t, "after them", again.entries(), c.openFolder(4, 64<<10).entries())
			r.place, r.ended, r.seen = 0, false, nil
			if slices.Equal(r.entries(), want) {
				t.Error("from the start once more it is still the old one")
			}
			check(t, "from the start once more", r.seen, again.seen)
		})
	}
}

func check(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d entries, want %d; they differ at %d: %q, want %q", what, len(got), len(want), i, got[i:min(i+1, len(got))], want[i:min(i+1, len(want))])
}

// TestSmallListingEnds where its one message ended: what comes after that is not of its
// moment.
func TestSmallListingEnds(t *testing.T) {
	for _, version := range momentDialects {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, nil)
			w.put("a", "v")
			c := w.wide("vm", version)
			r := c.openFolder(1, 8192)
			r.once()
			w.put("b", "v")
			if r.entries(); len(r.names) != 1 {
				t.Errorf("%q", r.names)
			}
			r.place, r.ended, r.names = 0, false, nil
			if r.entries(); len(r.names) != 2 {
				t.Errorf("from the start: %q", r.names)
			}
		})
	}
}

// TestListingShowsOwnTruncations: a key that a session has truncated is empty in what
// it lists, and in no other's.
func TestListingShowsOwnTruncations(t *testing.T) {
	w := newWorld(t, nil)
	w.manyKeys()
	c, other := w.wide("vm", "9P2000"), w.wide("vm", "9P2000")
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys", longKey(3000)}}, wire.Rwalk)
	c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.OWrite | wire.OTrunc}, wire.Ropen)
	empty := func(c *client) (names []string) {
		for _, e := range c.openFolder(2, 64<<10).entries() {
			if strings.Contains(e, " length 0 ") {
				names = append(names, e[:4])
			}
		}
		return names
	}
	if got := empty(c); !slices.Equal(got, []string{"3000"}) {
		t.Errorf("the session itself sees %q empty", got)
	}
	if got := empty(other); got != nil {
		t.Errorf("another sees %q empty", got)
	}
}

// TestListingIsResumed by a session on another transport, as it was.
func TestListingIsResumed(t *testing.T) {
	w := newWorld(t, nil)
	w.manyKeys()
	a := w.keyed()
	want := a.openFolder(1, 64<<10).entries()
	r := a.openFolder(2, 64<<10)
	r.more()
	a.nc.Close()
	w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
	w.shift(1)
	r.c = w.resumed()
	check(t, "resumed", r.entries(), want)
}

// TestListingIsRestored by the next process if the VM has not changed since; else the
// client is told. It is never of two moments.
func TestListingIsRestored(t *testing.T) {
	for _, changed := range []bool{false, true} {
		w := newWorld(t, nil)
		w.manyKeys()
		a := w.keyed()
		want := a.openFolder(1, 64<<10).entries()
		r := a.openFolder(2, 64<<10)
		r.more()
		a.nc.Close()
		w.until("the parked session", func() bool { return w.server.Stats().Parked == 1 })
		next := openWorld(t, w.disk.Clone(), nil)
		for st := range w.server.States() {
			if err := next.server.Restore(st); err != nil {
				t.Fatal(err)
			}
		}
		r.c = next.resumed()
		if !changed {
			check(t, "restored", r.entries(), want)
			continue
		}
		next.shift(1)
		for range 2 {
			m := r.c.do(&wire.Msg{Type: wire.Tread, Tag: 1, Fid: 2, Offset: r.place, Count: 8192}, wire.Rerror)
			if !strings.HasPrefix(m.Ename, "Resource temporarily unavailable: the folder has changed") {
				t.Errorf("%q", m.Ename)
			}
		}
		r.place, r.seen = 0, nil
		if len(r.entries()) != 4089 {
			t.Errorf("from the start: %d", len(r.seen))
		}
	}
}

// keyed is a client whose session outlives its transport.
func (w *world) keyed() *client {
	c := w.dial("unix", peers["vm"])
	c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.e"}, wire.Rversion)
	c.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rerror)
	c.do(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda"}, wire.Rattach)
	return c
}

// resumed is a client that has taken up the session of keyed.
func (w *world) resumed() *client {
	c := w.dial("unix", peers["vm"])
	c.do(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: wire.MaxMsize, Version: "9P2000.e"}, wire.Rversion)
	c.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(1)}, wire.Rsession)
	return c
}

// TestListingIsPaid: what is kept of a listing is in the VM's account, once for all who
// list the same, and is given back at a clunk, with the session, and before a request
// is refused, unless somebody is reading it.
func TestListingIsPaid(t *testing.T) {
	w := newWorld(t, nil)
	w.manyKeys()
	a := w.budget.Account(vmOne)
	defer a.Close()
	const one = 800 << 10                          // bytes of the listing, at least; one and a half of it are less than two
	between := func(what string, from, to int64) { // a commit is observed after its reply
		t.Helper()
		for end := time.Now().Add(patient); a.Used() < from || a.Used() > to; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d bytes in flight, want %d to %d", what, a.Used(), from, to)
			}
		}
	}
	c, other := w.wide("vm", "9P2000.L"), w.wide("vm", "9P2000.L")
	between("before", 0, one/4)
	r, s := c.openFolder(1, 64<<10), other.openFolder(1, 64<<10)
	r.more()
	s.more()
	between("two who list the same", one, one*3/2)
	w.shift(1)
	other.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
	s = other.openFolder(2, 64<<10)
	s.more()
	between("one who lists what was, and one what is", 2*one, 3*one)
	want := len(s.names)
	if err := a.Try(budget.Default.VM - 3*one); err != nil {
		t.Error(err)
	}
	if err := a.Try(2 * one); err == nil {
		t.Error("what is being read was given to others")
		a.Release(2 * one)
	}
	r.entries()
	if err := a.Try(one); err != nil { // what was, is read no more
		t.Error(err)
	}
	a.Release(budget.Default.VM - 2*one)
	if s.entries(); len(s.names) < want+3000 {
		t.Errorf("%d entries", len(s.names))
	}
	between("for the next", one, one*3/2)
	if err := a.Try(budget.Default.VM - one/2); err != nil {
		t.Error("nobody reads it, and it is not given to others:", err)
	}
	a.Release(budget.Default.VM - one/2)
	between("none", 0, one/4)
	r = c.openFolder(3, 64<<10)
	r.more()
	w.shift(2)
	between("in the middle", one, one*3/2)
	c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 3}, wire.Rclunk)
	between("clunked", 0, one/4)
	c.openFolder(4, 64<<10).more()
	s = other.openFolder(4, 64<<10)
	s.more()
	w.shift(3)
	between("two who list what was", one, one*3/2)
	c.nc.Close()
	other.nc.Close()
	w.until("the end of both", func() bool { return a.Used() < one/4 })
}

// TestListingIsGivenBack when others need the memory: its reader is told. What the admin
// reads is not the VM's to give.
func TestListingIsGivenBack(t *testing.T) {
	w := newWorld(t, nil)
	w.manyKeys()
	a := w.wide("admin", "9P2000")
	a.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"vms", vmOne, "keys"}}, wire.Rwalk)
	a.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
	admin := &folderReader{c: a, fid: 1, msize: 64 << 10}
	guest := w.wide("vm", "9P2000.L").openFolder(1, 64<<10)
	admin.more()
	guest.more()
	w.shift(1)
	account := w.budget.Account(vmOne)
	defer account.Close()
	w.until("an account with nothing", func() bool { // the commit may not have been observed yet
		w.tree.GiveBack(vmOne)
		return account.Used() == 0
	})
	const eagain = 11
	if m := guest.c.do(&wire.Msg{Type: wire.Treaddir, Tag: 1, Fid: 1, Offset: guest.place, Count: 8192}, wire.Rlerror); m.Errno != eagain {
		t.Error(m)
	}
	if n := len(admin.entries()); n != 4090 {
		t.Errorf("the admin's has %d entries", n)
	}
	guest.place, guest.seen = 0, nil
	if n := len(guest.entries()); n != 4089 {
		t.Errorf("from the start: %d entries", n)
	}
}

// TestListingWaitsForMemory as a large reply does, and is refused after a while: it is
// never of two moments because there is too little.
func TestListingWaitsForMemory(t *testing.T) {
	const share = 8 << 20
	w := newWorld(t, func(c *session.Config) {
		c.Budget = budget.New(budget.Limits{VM: share, All: 64 << 20, Floor: share, Wait: 200 * time.Millisecond})
	})
	w.manyKeys()
	c := w.wide("vm", "9P2000.e")
	want := c.openFolder(1, 64<<10).entries()
	c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
	r := c.openFolder(2, 64<<10)
	undo := w.fill(t, share, 512<<10)
	read := &wire.Msg{Type: wire.Tread, Tag: 1, Fid: 2, Count: 64 << 10}
	if m := c.do(read, wire.Rerror); !strings.HasPrefix(m.Ename, "Resource temporarily unavailable: VM has ") {
		t.Errorf("%q", m.Ename)
	}
	c.send(read)
	w.until("the wait", func() bool { return w.budget.Stats().Waiting == 1 })
	undo()
	if m := c.receive(); m.Type != wire.Rread {
		t.Fatal(m)
	}
	w.shift(1)
	r.entries() // from the start
	if len(r.seen) != len(want)-1 {
		t.Errorf("%d entries", len(r.seen))
	}
	if st := w.budget.Stats(); st.Waits != 2 || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}

// TestLargeAnswersAreShared: a listing and a vm.json that are asked for whole are made
// once at each revision, for all connections of the VM; are in its account, and go
// before anybody is refused; and never are those of another revision.
func TestLargeAnswersAreShared(t *testing.T) {
	w := newWorld(t, nil)
	w.manyKeys()
	a := w.budget.Account(vmOne)
	defer a.Close()
	var clients []*client
	for range 6 {
		clients = append(clients, w.wide("vm", "9P2000.e"))
	}
	for i, name := range []string{"keys", "vm.json"} {
		var size int
		for step := range 3 {
			w.shift(10*i + step)
			var first []byte
			for _, c := range clients {
				data := c.do(sread(1, name), wire.Rsread).Data
				if first == nil {
					first = data
				}
				if !slices.Equal(data, first) {
					t.Fatalf("%s, step %d: not the same", name, step)
				}
			}
			size = len(first)
			if want := fmt.Sprintf("new%d", 10*i+step); !strings.Contains(string(first), want) {
				t.Errorf("%s: no %s in it", name, want)
			}
			if strings.Contains(string(first), longKey(10*i+step)) {
				t.Errorf("%s: %d is in it still", name, 10*i+step)
			}
		}
		w.until("an account of one answer", func() bool { return int(a.Used()) < size+size/2 })
		if used := int(a.Used()); used < size {
			t.Errorf("%s: %d bytes in flight for one of %d", name, used, size)
		}
		if err := a.Try(budget.Default.VM); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range clients { // there is no memory to keep it, only for the reply
			a.Release(3 << 20)
			c.do(sread(1, name), wire.Rsread)
			w.until("the end of the reply's buffer", func() bool { return a.Try(3<<20) == nil })
		}
		a.Release(budget.Default.VM)
	}
	c := clients[0]
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys", longKey(3000)}}, wire.Rwalk)
	c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1, Mode: wire.OWrite | wire.OTrunc}, wire.Ropen)
	for i, c := range clients[:2] {
		b := c.do(sread(1, "keys"), wire.Rsread).Data
		for len(b) > 0 {
			d, rest, err := wire.DecodeDir(b, wire.E)
			if err != nil {
				t.Fatal(err)
			}
			if b = rest; d.Name == longKey(3000) && (d.Length == 0) != (i == 0) {
				t.Errorf("client %d sees length %d", i, d.Length)
			}
		}
	}
}

// BenchmarkListing reads 4,090 keys from the start, again and again, and all at once.
func BenchmarkListing(b *testing.B) {
	w := newWorld(b, nil)
	w.manyKeys()
	c := w.wide("vm", "9P2000.e")
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"keys"}}, wire.Rwalk)
	c.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
	for name, m := range map[string]*wire.Msg{
		"Tread": {Type: wire.Tread, Tag: 1, Fid: 1, Count: 64 << 10}, "Tsread": sread(1, "keys"), "vm.json": sread(1, "vm.json"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c.do(m, m.Type+1)
			}
		})
	}
}
