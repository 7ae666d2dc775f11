package session

import (
	"fmt"
	"math"
	"testing"

	"github.com/hugelgupf/p9/p9"
	"pgregory.net/rapid"
)

// lockModel is what a lockTable means, byte by byte: who has which byte of which
// file, in a world of few bytes. The last byte stands for all up to the end.
type lockModel map[lockByte][]lock

type lockByte struct {
	path uint64
	at   uint64
}

const (
	modelBytes = 9
	modelFiles = 2
)

// bytes are the bytes of the model that a range has.
func (s span) bytes() (list []uint64) {
	for at := range uint64(modelBytes) {
		if at < modelBytes-1 && s.meets(span{at, at}) || at == modelBytes-1 && s.to >= at {
			list = append(list, at)
		}
	}
	return list
}

func (m lockModel) conflict(path uint64, l *lock) bool {
	for _, at := range l.bytes() {
		for _, o := range m[lockByte{path, at}] {
			mine := o.fid == l.fid || o.sess == l.sess && o.pid == l.pid && o.client == l.client
			if !mine && (o.write || l.write) {
				return true
			}
		}
	}
	return false
}

func (m lockModel) set(path uint64, l lock, op lockOp) p9.LockStatus {
	if op == lockRange && m.conflict(path, &l) {
		return p9.LockStatusBlocked
	}
	for _, at := range l.bytes() {
		var kept []lock
		for _, o := range m[lockByte{path, at}] {
			process := o.sess == l.sess && o.pid == l.pid && o.client == l.client
			if !process && (o.fid != l.fid || op == freeProcess) {
				kept = append(kept, o)
			}
		}
		if op == lockRange {
			kept = append(kept, l)
		}
		m[lockByte{path, at}] = kept
	}
	return p9.LockStatusOK
}

func (m lockModel) drop(path uint64, owner *fid) {
	for at := range uint64(modelBytes) {
		var kept []lock
		for _, o := range m[lockByte{path, at}] {
			if o.fid != owner {
				kept = append(kept, o)
			}
		}
		m[lockByte{path, at}] = kept
	}
}

// who has a byte: the fid, the pid, how.
func who(l *lock) string {
	return fmt.Sprintf("%d/%d/%v", l.fid.num, l.pid, l.write)
}

// check compares every byte, and the counts.
func (m lockModel) check(t *rapid.T, table *lockTable, sessions []*session) {
	count := map[*session]int{}
	for path := range uint64(modelFiles) {
		f := table.files[path]
		if f == nil {
			f = &fileLocks{}
		} else if len(f.held) == 0 {
			t.Fatalf("file %d has no locks and is kept", path)
		}
		for _, l := range f.held {
			count[l.sess]++
		}
		for at := range uint64(modelBytes) {
			got, want := map[string]bool{}, map[string]bool{}
			for _, l := range f.held {
				if l.from <= at && at <= l.to {
					got[who(&l)] = true
				}
			}
			for _, l := range m[lockByte{path, at}] {
				want[who(&l)] = true
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("file %d byte %d: %v, want %v", path, at, got, want)
			}
		}
	}
	for _, s := range sessions {
		if s.locks != count[s] {
			t.Fatalf("a session counts %d locks, and has %d", s.locks, count[s])
		}
	}
}

// TestLockModel takes, frees and tests random ranges for a few fids, sessions and
// processes.
func TestLockModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sessions := []*session{{}, {}}
		var fids []*fid
		paths := map[*fid]uint64{}
		for i := range 6 {
			f := &fid{num: uint32(i)}
			fids, paths[f] = append(fids, f), uint64(i%modelFiles)
		}
		table, model := &lockTable{}, lockModel{}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { model.check(t, table, sessions) },
			"set": func(t *rapid.T) {
				l := drawLock(t, fids, sessions)
				op := rapid.SampledFrom([]lockOp{lockRange, lockRange, freeProcess, freeFid}).Draw(t, "op")
				want := model.set(paths[l.fid], l, op)
				if got := table.set(paths[l.fid], l, op); got != want {
					t.Fatalf("status %d, want %d", got, want)
				}
			},
			"test": func(t *rapid.T) {
				l := drawLock(t, fids, sessions)
				path := paths[l.fid]
				o, got := table.test(path, &l)
				if want := model.conflict(path, &l); got != want {
					t.Fatalf("in the way: %v, want %v", got, want)
				}
				if got && !l.meets(o.span) {
					t.Fatalf("%v is not in the way of %v", o.span, l.span)
				}
			},
			"drop": func(t *rapid.T) {
				f := rapid.SampledFrom(fids).Draw(t, "fid")
				model.drop(paths[f], f)
				table.drop(paths[f], f)
			},
		})
	})
}

// drawLock is a lock of some fid, whose session goes with it.
func drawLock(t *rapid.T, fids []*fid, sessions []*session) lock {
	f := rapid.SampledFrom(fids).Draw(t, "fid")
	from := rapid.Uint64Range(0, modelBytes-1).Draw(t, "from")
	to := rapid.Uint64Range(from, modelBytes-1).Draw(t, "to")
	if to == modelBytes-1 {
		to = math.MaxUint64
	}
	return lock{
		span: span{from, to}, write: rapid.Bool().Draw(t, "write"), fid: f,
		sess: sessions[f.num/3], client: "h", pid: rapid.Uint32Range(1, 2).Draw(t, "pid"),
	}
}

// TestLockLimits: neither locks nor unlocks that split one go past the bounds, and
// what frees a lock never fails for them.
func TestLockLimits(t *testing.T) {
	table, f, s := &lockTable{}, &fid{}, &session{}
	byteOf := func(path, at uint64, op lockOp) p9.LockStatus {
		return table.set(path, lock{span: span{at, at}, write: true, fid: f, sess: s}, op)
	}
	whole := lock{span: span{0, math.MaxUint64}, write: true, fid: f, sess: s}
	if table.set(1, whole, lockRange) != p9.LockStatusOK {
		t.Fatal("the first lock is refused")
	}
	refused := uint64(0)
	for at := uint64(1); refused == 0; at += 2 {
		if byteOf(1, at, freeFid) == p9.LockStatusError {
			refused = at
		}
	}
	if got := len(table.files[1].held); got != maxFileLocks || s.locks != got {
		t.Errorf("unlocking made %d locks, the session counts %d; %d are allowed", got, s.locks, maxFileLocks)
	}
	if byteOf(2, 0, lockRange) != p9.LockStatusError {
		t.Error("a session has more locks than it may")
	}
	if byteOf(1, 0, freeProcess) != p9.LockStatusOK || byteOf(2, 0, lockRange) != p9.LockStatusOK {
		t.Error("room was made, and none is there")
	}
	if table.set(1, whole, freeFid) != p9.LockStatusOK {
		t.Error("a whole file cannot be unlocked")
	}
	table.drop(2, f)
	if s.locks != 0 || len(table.files) != 0 {
		t.Errorf("%d locks and %d files are left", s.locks, len(table.files))
	}
}
