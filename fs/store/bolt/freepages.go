package bolt

import (
	"errors"
	"fmt"
)

// claim notes that the page is in use. It must be neither so already nor free.
func (r *reader) claim(p *page) error {
	for i := range p.takes(r.pageSize) {
		switch {
		case r.used.has(p.id + i):
			return damaged(p.id+i, "it is in use twice")
		case r.free.has(p.id + i):
			return damaged(p.id+i, "it is in use, and in the list of free pages (page %d)", r.freelist)
		}
		r.used.add(p.id + i)
	}
	return nil
}

// readFree reads the list of free pages.
func (r *reader) readFree() error {
	r.free, r.freeRead = newBitmap(r.pages), false
	if r.freelist == noFreelist {
		return nil
	}
	err := r.readFreePage()
	if r.freeRead = err == nil; !r.freeRead {
		r.free = newBitmap(r.pages)
	}
	return r.note(err)
}

func (r *reader) readFreePage() error {
	p, err := r.page(r.freelist, 0)
	if err != nil {
		return fmt.Errorf("%w; the list of free pages should be there", err)
	}
	if p.kind != freePage {
		return damaged(p.id, "it is %s, where the list of free pages should be", kindName(p.kind))
	}
	ids, n := p.b[pageHead:], uint64(p.count)
	if n == manyFreeMark {
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return damaged(p.id, "it has no room for %d free pages", n)
	}
	last := uint64(firstPage - 1)
	for ; n > 0; n-- {
		id := order.Uint64(ids)
		ids = ids[8:]
		if id <= last || id >= r.pages {
			return damaged(p.id, "the free page %d after %d, of %d pages", id, last, r.pages)
		}
		r.free.add(id)
		last = id
	}
	return r.claim(&p)
}

// lost is how many pages are neither in use nor free. That does no harm. walk was called.
func (r *reader) lost() (n uint64) {
	for id := uint64(firstPage); id < r.pages; id++ {
		if !r.used.has(id) && !r.free.has(id) {
			n++
		}
	}
	return n
}

// checkFree looks at the list of free pages alone.
func (r *reader) checkFree() error {
	r.used = newBitmap(r.pages)
	return r.readFree()
}

// report is all that a walk through everything has found, and what does no harm as yet.
func (r *reader) report() error {
	err := errors.Join(r.found...)
	if r.more > 0 {
		err = errors.Join(err, fmt.Errorf("and %d more", r.more))
	}
	if n := r.lost(); n > 0 && err == nil {
		err = fmt.Errorf("damaged: %d pages are neither in use nor free", n)
	}
	return err
}

// bitmap has a bit for each page.
type bitmap []uint64

func newBitmap(n uint64) bitmap { return make(bitmap, n/64+1) }

func (b bitmap) has(id uint64) bool { return b[id/64]&(1<<(id%64)) != 0 }

func (b bitmap) add(id uint64) { b[id/64] |= 1 << (id % 64) }
