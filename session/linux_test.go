package session_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// linuxClient is a guest's connection that speaks 9P2000.L; fid 0 is its root.
func (w *world) linuxClient() *client {
	c := w.dial("unix", peers["vm"])
	c.hello("9P2000.L")
	return c
}

// walk makes fid stand where the names lead from the root.
func (c *client) walk(fid uint32, names ...string) {
	c.t.Helper()
	c.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: fid, Names: names}, wire.Rwalk)
}

func (c *client) lopen(fid uint32, flags p9.OpenFlags) {
	c.t.Helper()
	m := &wire.Msg{Type: wire.Tlopen, Tag: 1, Fid: fid}
	m.L.Flags = uint32(flags)
	c.do(m, wire.Rlopen)
}

// refused asks for what must be answered by that errno.
func (c *client) refused(m *wire.Msg, want linux.Errno) {
	c.t.Helper()
	if r := c.do(m, wire.Rlerror); r.Errno != uint32(want) {
		c.t.Errorf("%s: errno %d, want %d", m, r.Errno, want)
	}
}

// entries takes the data of an Rreaddir apart.
func entries(t *testing.T, b []byte) (list []p9.Dirent) {
	t.Helper()
	for le := binary.LittleEndian; len(b) > 0; {
		if len(b) < 24 || len(b) < 24+int(le.Uint16(b[22:])) {
			t.Fatalf("an entry is cut: %x", b)
		}
		n := 24 + int(le.Uint16(b[22:]))
		list = append(list, p9.Dirent{
			QID:    p9.QID{Type: p9.QIDType(b[0]), Version: le.Uint32(b[1:]), Path: le.Uint64(b[5:])},
			Offset: le.Uint64(b[13:]), Type: p9.QIDType(b[21]), Name: string(b[24:n]),
		})
		b = b[n:]
	}
	return list
}

// readdir is one Treaddir.
func (c *client) readdir(fid uint32, after uint64, count uint32) []p9.Dirent {
	c.t.Helper()
	r := c.do(&wire.Msg{Type: wire.Treaddir, Tag: 1, Fid: fid, Offset: after, Count: count}, wire.Rreaddir)
	if len(r.Data) > int(count) {
		c.t.Fatalf("asked for %d bytes, %d came", count, len(r.Data))
	}
	return entries(c.t.(*testing.T), r.Data)
}

// TestReaddir reads folders with counts of every size: the entries are the same,
// the cookies rise and stay, and what was removed meanwhile hides nothing else.
func TestReaddir(t *testing.T) {
	w := newWorld(t, nil)
	var want []string
	for i := range 50 {
		name := fmt.Sprintf("key%02d%s", i, strings.Repeat("x", i))
		w.put(name, "v")
		want = append(want, name)
	}
	c := w.linuxClient()
	c.walk(1, "keys")
	c.lopen(1, p9.ReadOnly)
	whole := c.readdir(1, 0, 1<<20)
	names := func(list []p9.Dirent) (names []string) {
		for _, d := range list {
			names = append(names, d.Name)
		}
		return names
	}
	if diff := cmp.Diff(want, names(whole)); diff != "" {
		t.Fatal(diff)
	}
	const longest = 24 + 5 + 49
	for _, count := range []uint32{longest, longest + 1, 200, 1000, 1 << 31} {
		var list []p9.Dirent
		for after := uint64(0); ; after = list[len(list)-1].Offset {
			more := c.readdir(1, after, count)
			if len(more) == 0 {
				break
			}
			list = append(list, more...)
		}
		if diff := cmp.Diff(whole, list); diff != "" {
			t.Errorf("count %d: %s", count, diff)
		}
	}
	c.refused(&wire.Msg{Type: wire.Treaddir, Tag: 1, Fid: 1, Offset: whole[48].Offset, Count: longest - 1}, linux.EINVAL)
	c.walk(2, "keys")
	c.do(&wire.Msg{Type: wire.Tunlinkat, Tag: 1, Fid: 2, Name: want[10]}, wire.Runlinkat)
	if diff := cmp.Diff(want[11:], names(c.readdir(1, whole[10].Offset, 1<<20))); diff != "" {
		t.Errorf("after the cookie of a key that went: %s", diff)
	}
}

// TestReaddirMidReply: a client that has room for a part of each second reply only, and goes on
// after that, as the kernel does with FUSE's larger entries, gets each entry once.
func TestReaddirMidReply(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 200 {
		w.put(fmt.Sprintf("key%03d", i), "v")
	}
	c := w.linuxClient()
	c.walk(1, "keys")
	c.lopen(1, p9.ReadOnly)
	whole := c.readdir(1, 0, 1<<20)
	var list []p9.Dirent
	for after, turn := uint64(0), 0; turn < 200; turn++ {
		more := c.readdir(1, after, 1000)
		if len(more) == 0 {
			break
		}
		if turn%2 == 0 {
			more = more[:len(more)/2+1]
		}
		list = append(list, more...)
		after = list[len(list)-1].Offset
	}
	if diff := cmp.Diff(whole, list); diff != "" {
		t.Error(diff)
	}
}

// TestReaddirTypes: d_type and the inode, which v9fs passes on, are those of stat.
func TestReaddirTypes(t *testing.T) {
	w := newWorld(t, nil)
	c := w.linuxClient()
	c.walk(1)
	c.lopen(1, p9.ReadOnly)
	got := map[string]p9.QIDType{}
	for _, d := range c.readdir(1, 0, 1<<20) {
		got[d.Name] = d.Type
		c.walk(9, d.Name)
		r := c.do(&wire.Msg{Type: wire.Tgetattr, Tag: 1, Fid: 9}, wire.Rgetattr)
		if r.QID != d.QID {
			t.Errorf("%s is %v in its folder, %v by itself", d.Name, d.QID, r.QID)
		}
		c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 9}, wire.Rclunk)
	}
	const dir, file = 4, 8 // DT_DIR, DT_REG
	want := map[string]p9.QIDType{"keys": dir, "internal": dir, "sdc": dir, "nocloud": dir, "vm.json": file, "txn": file}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff) // events is not listed, or grep -r would hang
	}
}

// TestLinuxLimits: what does not fit the VM is ENOSPC, and nothing is stored.
func TestLinuxLimits(t *testing.T) {
	const value = 1 << 20
	w := newWorld(t, nil)
	for i := range 15 {
		w.put(fmt.Sprintf("key%d", i), strings.Repeat("x", value))
	}
	w.put("small", "x")
	c := w.linuxClient()
	c.walk(1, "keys", "small")
	m := &wire.Msg{Type: wire.Tsetattr, Tag: 1, Fid: 1}
	m.L.SetMask.Size, m.L.SetAttr.Size = true, value
	c.refused(m, linux.ENOSPC)
	c.lopen(1, p9.ReadWrite)
	c.refused(&wire.Msg{Type: wire.Twrite, Tag: 1, Fid: 1, Offset: value - 1, Data: []byte("y"), Count: 1}, linux.ENOSPC)
	if got := w.value("small"); got != "x" {
		t.Errorf("the value has %d bytes now", len(got))
	}
	r := c.do(&wire.Msg{Type: wire.Tstatfs, Tag: 1, Fid: 1}, wire.Rstatfs)
	if s := r.L.Stat; s.Blocks != 16<<10 || s.BlocksFree > 1024 || s.BlocksFree < 1020 {
		t.Errorf("statfs tells of %d blocks, %d free", s.Blocks, s.BlocksFree)
	}
	for i := range 4096 - 16 {
		w.put(fmt.Sprintf("n%d", i), "")
	}
	c.walk(2, "keys")
	c.refused(&wire.Msg{Type: wire.Tlcreate, Tag: 1, Fid: 2, Name: "one more"}, linux.ENOSPC)
}

// TestLinuxVMGone: of a VM that was deleted everything is ENOENT, or ESTALE where it
// is open, and nothing comes back.
func TestLinuxVMGone(t *testing.T) {
	w := newWorld(t, nil)
	w.put("k", "v")
	c := w.linuxClient()
	c.walk(1, "keys", "k")
	c.walk(2, "keys", "k")
	c.lopen(2, p9.ReadWrite)
	c.walk(3, "keys")
	w.do(&store.Intent{Kind: store.DeleteVM, Cell: w.store.Cell(vmOne)})
	lcreate := &wire.Msg{Type: wire.Tlcreate, Tag: 1, Fid: 3, Name: "new"}
	lcreate.L.Flags = 1
	for _, m := range []*wire.Msg{
		{Type: wire.Tgetattr, Tag: 1, Fid: 1},
		{Type: wire.Tlopen, Tag: 1, Fid: 1},
		{Type: wire.Tgetattr, Tag: 1, Fid: 2},
		{Type: wire.Twrite, Tag: 1, Fid: 2, Data: []byte("x"), Count: 1},
		{Type: wire.Tunlinkat, Tag: 1, Fid: 3, Name: "k"},
		{Type: wire.Twalk, Tag: 1, Fid: 3, Newfid: 4, Names: []string{"k"}},
		lcreate,
	} {
		errno := linux.ENOENT
		if m.Fid == 2 {
			errno = linux.ESTALE
		}
		c.refused(m, errno)
	}
}

// TestLinuxNoAllocations: in a steady state Tgetattr, the message that Linux sends
// most, and Tread allocate nothing, through the whole loop.
func TestLinuxNoAllocations(t *testing.T) {
	notUnderRace(t)
	w := newWorld(t, nil)
	w.put("bench", strings.Repeat("x", benchValue))
	server, nc := redialtest.Pair(t)
	w.serve(server, peers["vm"])
	t.Cleanup(func() { nc.Close() })
	ask := func(m *wire.Msg, size int) {
		newLoadIn(wire.L, t, nc, 1, size, func(uint16) *wire.Msg { return m }).round(t)
	}
	ask(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 131072, Version: "9P2000.L"}, 21)
	ask(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID}, 20)
	ask(&wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "bench"}}, 9+2*13)
	ask(&wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"keys", "bench"}}, 9+2*13)
	ask(&wire.Msg{Type: wire.Tlopen, Fid: 1}, 24)
	getattr := func(fid uint32) func(uint16) *wire.Msg {
		return func(tag uint16) *wire.Msg { return &wire.Msg{Type: wire.Tgetattr, Tag: tag, Fid: fid} }
	}
	for name, l := range map[string]*load{
		"Tgetattr of an open fid": newLoadIn(wire.L, t, nc, 16, 160, getattr(1)),
		"Tgetattr":                newLoadIn(wire.L, t, nc, 16, 160, getattr(2)),
		"Tread":                   newLoadIn(wire.L, t, nc, 16, wire.ReadLen+benchValue, read),
	} {
		l.round(t)
		if n := testing.AllocsPerRun(1000, func() { l.round(t) }); n != 0 {
			t.Errorf("%s: %v allocations for 16 requests", name, n)
		}
	}
}
