package fs

import (
	"slices"
	"sync/atomic"

	"meta9/fs/budget"
	"meta9/fs/vm"
)

// version is the value that an open file reads: the one at the time of its last read at
// offset 0. All readers of a value share its version, and find it by openFile.cur as long
// as it is the newest. A commit retires it; from then on its bytes count against its VM,
// and when they are too many the committer drops the oldest, whose readers then get the
// newest.
//
// Readers are counted by atomic operations, so that a read takes no lock. The count and the
// two bits share one word, so that the last reader of an old version knows that it is the
// last.
//
// The cost of a version is taken from an account: the VM's when a key's version is retired,
// since until then the store has the value itself; the reader's as soon as a large derived
// one is made.
type version struct {
	table   *openTable
	bill    *budget.Account
	paid    bool                     // cost is taken; guarded by table.mu until it is retired
	listing bool                     // of a folder: only the account bounds it
	entry   atomic.Pointer[vm.Entry] // nil: dropped
	rev     uint64
	cost    int64
	state   atomic.Int64 // how many readers, and the bits below
}

const (
	retired = 1 << 32 // no longer the newest; nobody starts to read it
	dropped = 1 << 33 // given up, and no longer counted
)

// pinCost is what an old version costs beside its value, so that a great many
// small ones are bounded too.
const pinCost = 128

func newVersion(t *openTable, e *vm.Entry) *version {
	p := &version{table: t, bill: t.account, rev: e.Rev, cost: int64(len(e.Value)) + pinCost}
	p.entry.Store(e)
	return p
}

// content is what the version holds; nil when it was dropped, or p is nil.
func (p *version) content() *vm.Entry {
	if p == nil {
		return nil
	}
	return p.entry.Load()
}

// acquire counts a reader in, unless the version is retired.
func (p *version) acquire() bool {
	for {
		s := p.state.Load()
		if s >= retired {
			return false
		}
		if p.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

// release counts a reader out; the last one of an old version ends its cost.
func (p *version) release() {
	if p.state.Add(-1) == retired {
		p.table.uncount(p)
	}
}

// unused tells whether a retired version has no reader, or was given up.
func (p *version) unused() bool {
	s := p.state.Load()
	return s == retired || s&dropped != 0
}

// retire makes p an old version. t.mu is held, and p is no longer anybody's cur.
func (t *openTable) retire(p *version) {
	t.count(p)
	if p.state.Add(retired) == retired {
		t.uncount(p)
		return
	}
	t.old = append(t.old, p)
	if len(t.old) > 2*int(t.oldCount.Load())+16 {
		t.old = slices.DeleteFunc(t.old, (*version).unused)
	}
}

func (t *openTable) count(p *version) {
	t.bytesOf(p).Add(p.cost)
	t.oldCount.Add(1)
	if !p.paid {
		p.paid = true
		p.bill.Force(p.cost)
	}
}

func (t *openTable) uncount(p *version) {
	t.bytesOf(p).Add(-p.cost)
	t.oldCount.Add(-1)
	p.bill.Release(p.cost)
}

// bytesOf is the sum that p is in.
func (t *openTable) bytesOf(p *version) *atomic.Int64 {
	if p.listing {
		return &t.listBytes
	}
	return &t.oldBytes
}

// trim drops the oldest versions until those that are left fit the room, listings not
// counted. t.mu is held.
func (t *openTable) trim(room int64) {
	if t.oldBytes.Load() <= room {
		return
	}
	kept := t.old[:0]
	for i, p := range t.old {
		switch {
		case t.oldBytes.Load() <= room:
			kept = append(kept, t.old[i:]...)
			clear(t.old[len(kept):])
			t.old = kept
			return
		case p.listing:
			kept = append(kept, p)
		default:
			t.drop(p)
		}
	}
	clear(t.old[len(kept):])
	t.old = kept
}

// trimLists drops the old listings that the account has paid for; nil: all. t.mu is held.
func (t *openTable) trimLists(a *budget.Account) {
	if t.listBytes.Load() == 0 {
		return
	}
	t.old = slices.DeleteFunc(t.old, func(p *version) bool {
		drops := p.listing && (a == nil || p.bill == a)
		if drops {
			t.drop(p)
		}
		return drops
	})
}

// drop gives a retired version up; its readers find the newest.
func (t *openTable) drop(p *version) {
	for {
		s := p.state.Load()
		if s == retired {
			return // its last reader is gone
		}
		if p.state.CompareAndSwap(s, s|dropped) {
			p.entry.Store(nil)
			t.uncount(p)
			return
		}
	}
}
