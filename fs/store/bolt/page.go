package bolt

import (
	"bytes"
	"slices"
)

// page is a page whose head is right.
type page struct {
	id     uint64
	kind   uint16
	count  int
	b      []byte // all of it
	inline bool
}

// page reads one at that level, of which it is nobody's before the next of that level
// is read.
func (r *reader) page(id uint64, level int) (p page, err error) {
	if id < firstPage || id >= r.pages {
		return p, damaged(id, "there is none, %d is the last", r.pages-1)
	}
	b := slices.Grow(r.buf[level][:0], r.pageSize)[:r.pageSize]
	r.buf[level] = b
	at := int64(id) * int64(r.pageSize)
	if _, err := r.file.ReadAt(b, at); err != nil {
		return p, damaged(id, "%w", err)
	}
	p = page{id: id, kind: order.Uint16(b[8:]), count: int(order.Uint16(b[10:])), b: b}
	overflow := uint64(order.Uint32(b[12:]))
	switch {
	case order.Uint64(b) != id:
		return p, damaged(id, "it says that it is page %d", order.Uint64(b))
	case p.kind != branchPage && p.kind != leafPage && p.kind != freePage:
		return p, damaged(id, "its type is %#x", p.kind)
	case overflow >= r.pages-id:
		return p, damaged(id, "it goes on for %d pages, which are not there", overflow)
	case overflow > 0:
		b = slices.Grow(b, int(overflow)*r.pageSize)[:int(overflow+1)*r.pageSize]
		r.buf[level] = b
		if _, err := r.file.ReadAt(b[r.pageSize:], at+int64(r.pageSize)); err != nil {
			return p, damaged(id, "%w", err)
		}
		p.b = b
	}
	return p, nil
}

// inlinePage is the page that lies in its bucket, on that page.
func inlinePage(on uint64, b []byte) (page, error) {
	if len(b) < pageHead || order.Uint64(b) != 0 || order.Uint16(b[8:]) != leafPage || order.Uint32(b[12:]) != 0 {
		return page{}, damaged(on, "the page within it is no leaf")
	}
	return page{id: on, kind: leafPage, count: int(order.Uint16(b[10:])), b: b, inline: true}, nil
}

// takes is how many pages it takes.
func (p *page) takes(pageSize int) uint64 { return uint64(len(p.b) / pageSize) }

// leaf gives an element of a leaf that was checked.
func (p *page) leaf(i int) (flags uint32, key, value []byte) {
	e := p.b[pageHead+i*elementSize:]
	from := order.Uint32(e[4:])
	to := from + order.Uint32(e[8:])
	end := to + order.Uint32(e[12:])
	return order.Uint32(e), e[from:to:to], e[to:end:end]
}

// branch gives an element of a branch that was checked.
func (p *page) branch(i int) (key []byte, id uint64) {
	e := p.b[pageHead+i*elementSize:]
	from := order.Uint32(e)
	to := from + order.Uint32(e[4:])
	return e[from:to:to], order.Uint64(e[8:])
}

// check looks at the elements: each lies where the one before ends, and the keys are
// in order, from the first, which is low unless low is nil, to before high.
func (p *page) check(low, high []byte) error {
	b := p.b
	next := uint64(pageHead + p.count*elementSize)
	if next > uint64(len(b)) {
		return damaged(p.id, "it has no room for its %d elements", p.count)
	}
	if p.count == 0 && (p.kind == branchPage || low != nil) {
		return damaged(p.id, "it is empty")
	}
	var last []byte
	for i := range p.count {
		at := pageHead + i*elementSize
		e := b[at : at+elementSize]
		pos, ksize, vsize := order.Uint32(e), order.Uint32(e[4:]), uint32(0)
		if p.kind == leafPage {
			pos, ksize, vsize = order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
		}
		if uint64(at)+uint64(pos) != next {
			return damaged(p.id, "element %d of %d is not where it should be", i, p.count)
		}
		if next += uint64(ksize) + uint64(vsize); next > uint64(len(b)) || ksize == 0 || ksize > maxKeySize {
			return damaged(p.id, "element %d of %d has a key of %d bytes and a value of %d", i, p.count, ksize, vsize)
		}
		key := b[at+int(pos) : at+int(pos)+int(ksize)]
		switch {
		case i > 0 && bytes.Compare(last, key) >= 0:
			return damaged(p.id, "the keys of the elements %d and %d are out of order", i-1, i)
		case i == 0 && low != nil && !bytes.Equal(key, low):
			return damaged(p.id, "its first key is not the one that the page above it says")
		}
		last = key
	}
	switch {
	case high != nil && last != nil && bytes.Compare(last, high) >= 0:
		return damaged(p.id, "its last key belongs into the page after it")
	case p.inline && next != uint64(len(b)):
		return damaged(p.id, "the page within it has %d bytes, %d are right", len(b), next)
	case !p.inline && p.id > 0 && p.count > 0 && !p.fits(next):
		return damaged(p.id, "it takes %d bytes for %d", len(b), next)
	}
	return nil
}

// fits says whether so many bytes take as many pages as the page has: the last of them
// is begun.
func (p *page) fits(bytes uint64) bool {
	each := uint64(len(p.b)) / (uint64(order.Uint32(p.b[12:])) + 1)
	return bytes > uint64(len(p.b))-each
}

func kindName(kind uint16) string {
	switch kind {
	case branchPage:
		return "a branch"
	case leafPage:
		return "a leaf"
	}
	return "the list of free pages"
}
