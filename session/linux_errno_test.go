package session_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/fs/store"
	"meta9/session/wire"
)

// The fids of errnoClient.
const (
	fidRoot     = iota
	fidKeys     // keys/
	fidColor    // keys/color, not open
	fidOpen     // keys/color, open to read and write
	fidGone     // keys/gone, open, and removed meanwhile
	fidJSON     // vm.json, not open
	fidSdc      // sdc/
	fidDir      // keys/, open
	fidInternal // internal/, not open
)

// errnoClient is a guest's connection with those fids, of a VM that has room for
// less than 1 MiB more.
func (w *world) errnoClient() *client {
	w.t.Helper()
	w.put("color", "blue")
	w.put("gone", "x")
	for i := range 15 {
		w.put(fmt.Sprint("big", i), strings.Repeat("x", 1<<20))
	}
	c := w.linuxClient()
	for fid, path := range map[uint32]string{
		fidKeys: "keys", fidColor: "keys/color", fidOpen: "keys/color", fidGone: "keys/gone", fidJSON: "vm.json",
		fidSdc: "sdc", fidDir: "keys", fidInternal: "internal",
	} {
		c.walk(fid, strings.Split(path, "/")...)
	}
	c.lopen(fidOpen, p9.ReadWrite)
	c.lopen(fidGone, p9.ReadWrite)
	c.lopen(fidDir, p9.ReadOnly)
	w.do(&store.Intent{Kind: store.Remove, Cell: w.store.Cell(vmOne), Name: "gone", By: "admin"})
	return c
}

// with makes a message of 9P2000.L under tag 1.
func with(m wire.Msg, l wire.MsgL) *wire.Msg {
	m.Tag, m.L = 1, l
	m.Count = max(m.Count, uint32(len(m.Data)))
	return &m
}

// size is a Tsetattr of a length.
func size(fid uint32, n uint64) *wire.Msg {
	return with(wire.Msg{Type: wire.Tsetattr, Fid: fid}, wire.MsgL{
		SetMask: p9.SetAttrMask{Size: true}, SetAttr: p9.SetAttr{Size: n},
	})
}

// TestLinuxErrnos has one case for each errno that a refused operation has. More
// ways to each are in testdata/linux_refused.txt (all but ENOSPC and ESTALE),
// linux_attr.txt (EFBIG, EPERM), linux_files.txt (ESTALE), TestLinuxLimits (ENOSPC)
// and TestLinuxVMGone (ESTALE); what programs of a guest see, in tests/guest.
func TestLinuxErrnos(t *testing.T) {
	w := newWorld(t, nil)
	c := w.errnoClient()
	before := w.store.Cell(vmOne).VM().Rev
	write := wire.MsgL{Flags: uint32(p9.WriteOnly)}
	for _, tt := range []struct {
		name  string
		errno linux.Errno
		ask   *wire.Msg
	}{
		{"EPERM: mkdir", linux.EPERM, with(wire.Msg{Type: wire.Tmkdir, Fid: fidKeys, Name: "d"}, wire.MsgL{})},
		{"EACCES: open vm.json to write", linux.EACCES, with(wire.Msg{Type: wire.Tlopen, Fid: fidJSON}, write)},
		{"EROFS: create in sdc", linux.EROFS, with(wire.Msg{Type: wire.Tlcreate, Fid: fidSdc, Name: "x"}, write)},
		{"ENOSPC: the VM is full", linux.ENOSPC, size(fidColor, 1<<20)},
		{"EFBIG: a value past the limit", linux.EFBIG, size(fidColor, 1<<20+1)},
		{"ENAMETOOLONG: 256 bytes", linux.ENAMETOOLONG, with(wire.Msg{Type: wire.Tlcreate, Fid: fidKeys, Name: strings.Repeat("n", 256)}, write)},
		{"EPERM: symlink", linux.EPERM, with(wire.Msg{Type: wire.Tsymlink, Fid: fidKeys, Name: "l", Ext: "color"}, wire.MsgL{})},
		{"EOPNOTSUPP: attributes", linux.EOPNOTSUPP, with(wire.Msg{Type: wire.Txattrwalk, Fid: fidColor, Newfid: 99, Name: "user.x"}, wire.MsgL{})},
		{"ENOTEMPTY: rmdir keys", linux.ENOTEMPTY, with(wire.Msg{Type: wire.Tunlinkat, Fid: fidRoot, Name: "keys"}, wire.MsgL{Flags: 0x200})},
		{"EEXIST: create with O_EXCL", linux.EEXIST, with(wire.Msg{Type: wire.Tlcreate, Fid: fidKeys, Name: "color"}, wire.MsgL{Flags: 0o301})},
		{"ESTALE: write what was removed", linux.ESTALE, with(wire.Msg{Type: wire.Twrite, Fid: fidGone, Data: []byte("x")}, wire.MsgL{})},
		{"EXDEV: mv to another folder", linux.EXDEV, with(wire.Msg{Type: wire.Trenameat, Fid: fidKeys, Name: "color", Newfid: fidInternal, Ext: "color"}, wire.MsgL{})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.t = t
			c.refused(tt.ask, tt.errno)
		})
	}
	c.t = t
	if rev := w.store.Cell(vmOne).VM().Rev; rev != before {
		t.Errorf("what was refused made revision %d of %d", rev, before)
	}
}

// farAway are sizes and offsets that no value has, from just past the limit to
// where sums of them overflow.
var farAway = []uint64{1<<20 + 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 4096, 1<<64 - 2, 1<<64 - 1}

// TestLinuxHostileNumbers: whatever number stands in a message, it costs nothing,
// changes nothing and gets an answer.
func TestLinuxHostileNumbers(t *testing.T) {
	w := newWorld(t, nil)
	c := w.errnoClient()
	before, rev := memory(), w.store.Cell(vmOne).VM().Rev
	data := []byte("far away")
	for _, n := range farAway {
		for _, fid := range []uint32{fidColor, fidOpen} {
			c.refused(size(fid, n), linux.EFBIG)
		}
		c.refused(with(wire.Msg{Type: wire.Twrite, Fid: fidOpen, Offset: n, Data: data}, wire.MsgL{}), linux.EFBIG)
		for _, count := range []uint32{0, 1, 1<<32 - 1} {
			m := with(wire.Msg{Type: wire.Tread, Fid: fidOpen, Offset: n, Count: count}, wire.MsgL{})
			if r := c.do(m, wire.Rread); len(r.Data) != 0 {
				t.Errorf("%s: %d bytes", m, len(r.Data))
			}
		}
		if list := c.readdir(fidDir, n, 1<<32-1); len(list) != 0 {
			t.Errorf("%d entries after cookie %d", len(list), n)
		}
		create := with(wire.Msg{Type: wire.Txattrcreate, Fid: fidColor, Name: "user.x"}, wire.MsgL{Size: n})
		c.refused(create, linux.EOPNOTSUPP)
		c.refused(with(wire.Msg{Type: wire.Twrite, Fid: fidColor, Offset: n, Data: data}, wire.MsgL{}), linux.EBADF)
		c.refused(with(wire.Msg{Type: wire.Txattrwalk, Fid: fidColor, Newfid: 99, Name: strings.Repeat("x", 8000)}, wire.MsgL{}), linux.EOPNOTSUPP)
		c.refused(with(wire.Msg{Type: wire.Tread, Fid: 99, Offset: n, Count: 1<<32 - 1}, wire.MsgL{}), linux.EBADF)
		mtime := wire.MsgL{SetMask: p9.SetAttrMask{MTime: true, MTimeNotSystemTime: true}, SetAttr: p9.SetAttr{MTimeNanoSeconds: n}}
		if n >= 1e9 {
			c.refused(with(wire.Msg{Type: wire.Tsetattr, Fid: fidColor}, mtime), linux.EINVAL)
		}
	}
	for _, count := range []uint32{0, 1, 23} {
		c.refused(with(wire.Msg{Type: wire.Treaddir, Fid: fidDir, Count: count}, wire.MsgL{}), linux.EINVAL)
	}
	if list := c.readdir(fidDir, 0, 1<<32-1); len(list) != 16 {
		t.Errorf("%d entries of 16", len(list))
	}
	if now := w.store.Cell(vmOne).VM().Rev; now != rev || w.value("color") != "blue" {
		t.Errorf("color is %q, revision %d of %d", w.value("color"), now, rev)
	}
	if took := memory() - before; took > 4<<20 {
		t.Errorf("%d bytes were taken", took)
	}
}

// TestLinuxHostileLocks: past its locks a session is told ENOLCK; ranges reach to
// 2^64 and no further; all go with the fid.
func TestLinuxHostileLocks(t *testing.T) {
	w := newWorld(t, nil)
	c := w.errnoClient()
	status := func(m *wire.Msg) p9.LockStatus { return c.do(m, wire.Rlock).L.Status }
	taken := 0
	for at := uint64(0); status(tlock(fidOpen, p9.WriteLock, at, 1)) == p9.LockStatusOK; at += 2 {
		if taken++; taken > 1<<16 {
			t.Fatal("locks without end")
		}
	}
	if s := status(tlock(fidOpen, p9.WriteLock, 1<<40, 1)); taken != 1024 || s != p9.LockStatusError {
		t.Errorf("%d locks, one more gets status %d", taken, s)
	}
	for _, n := range []uint64{1<<63 + 1, 1<<64 - 2, 1<<64 - 1} {
		c.refused(tlock(fidOpen, p9.WriteLock, n, n), linux.EINVAL)
		c.refused(with(wire.Msg{Type: wire.Tgetlock, Fid: fidOpen}, wire.MsgL{Start: n, Length: n}), linux.EINVAL)
	}
	for _, how := range []p9.LockType{p9.Unlock, p9.WriteLock} {
		if s := status(tlock(fidOpen, how, 0, 0)); s != p9.LockStatusOK {
			t.Errorf("all of it, type %d: status %d", how, s)
		}
	}
	c.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: fidOpen}, wire.Rclunk)
	x := w.linuxClient()
	x.walk(1, "keys", "color")
	x.lopen(1, p9.ReadWrite)
	if s := x.do(tlock(1, p9.WriteLock, 0, 0), wire.Rlock).L.Status; s != p9.LockStatusOK {
		t.Errorf("after the clunk: status %d", s)
	}
}
