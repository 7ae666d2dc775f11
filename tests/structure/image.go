// Package structure damages the data file's structure, in ways that its checksums do not
// show: each image that is made so either is refused at the start, and by --check, which
// say where, or it serves what is right, and goes on to.
package structure

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
)

// The layout of bbolt's pages, as fs/store/bolt has it.
const (
	pageSize = 4096
	head     = 16
	element  = 16
	metaEnd  = head + 56 // where its checksum is

	branch   = 0x01
	leaf     = 0x02
	freelist = 0x10
)

var le = binary.LittleEndian

// image is a data file.
type image []byte

func (f image) page(id int) []byte { return f[id*pageSize : (id+1)*pageSize] }
func (f image) pages() int         { return len(f) / pageSize }

func kind(p []byte) uint16  { return le.Uint16(p[8:]) }
func count(p []byte) int    { return int(le.Uint16(p[10:])) }
func overflow(p []byte) int { return int(le.Uint32(p[12:])) }

// field is where a number lies in the file, and its size in bytes.
type field struct {
	what     string
	at, size int
}

func (f image) get(x field) uint64 {
	var b [8]byte
	copy(b[:], f[x.at:x.at+x.size])
	return le.Uint64(b[:])
}

func (f image) set(x field, v uint64) {
	var b [8]byte
	le.PutUint64(b[:], v)
	copy(f[x.at:x.at+x.size], b[:])
}

// newest is the page of the newer transaction, 0 or 1.
func (f image) newest() int {
	if le.Uint64(f.page(1)[head+48:]) > le.Uint64(f.page(0)[head+48:]) {
		return 1
	}
	return 0
}

// seal makes the checksum of a meta page right.
func (f image) seal(id int) {
	p := f.page(id)
	sum := fnv.New64a()
	sum.Write(p[head:metaEnd])
	le.PutUint64(p[metaEnd:], sum.Sum64())
}

// plan is what the file's pages are used for.
type plan struct {
	root, freelist          int
	branches, leaves, large []int // of the tree of all keys; large: leaves that go on
	parent                  map[int]int
	inline                  bool // the bucket is in the root page
}

func (f image) plan() plan {
	m := f.page(f.newest())
	p := plan{root: int(le.Uint64(m[head+16:])), freelist: int(le.Uint64(m[head+32:])), parent: map[int]int{}}
	top := f.bucket(p.root)
	if p.inline = top == 0; !p.inline {
		f.descend(&p, top, 0)
	}
	return p
}

// bucket is the page that the bucket of all keys begins with, by an element of the root;
// 0: it is in the element itself.
func (f image) bucket(root int) int {
	b := f.page(root)
	for i := range count(b) {
		e := b[head+i*element:]
		key := e[le.Uint32(e[4:]):]
		if size := le.Uint32(e[8:]); string(key[:size]) == "meta9" {
			return int(le.Uint64(key[size:]))
		}
	}
	panic("no bucket meta9")
}

func (f image) descend(p *plan, id, parent int) {
	p.parent[id] = parent
	b := f.page(id)
	if kind(b) == leaf {
		p.leaves = append(p.leaves, id)
		if overflow(b) > 0 {
			p.large = append(p.large, id)
		}
		return
	}
	p.branches = append(p.branches, id)
	for i := range count(b) {
		f.descend(p, int(le.Uint64(b[head+i*element+8:])), id)
	}
}

// metaFields are the numbers of a meta page.
func metaFields(id int) []field {
	at := id * pageSize
	list := headFields(id)
	for i, name := range []string{"magic", "version", "page size", "flags"} {
		list = append(list, field{name, at + head + 4*i, 4})
	}
	for i, name := range []string{"root", "sequence", "freelist", "pages", "transaction", "checksum"} {
		list = append(list, field{name, at + head + 16 + 8*i, 8})
	}
	return list
}

func headFields(id int) []field {
	at := id * pageSize
	return []field{{"id", at, 8}, {"flags", at + 8, 2}, {"count", at + 10, 2}, {"overflow", at + 12, 4}}
}

// elementFields are the numbers of an element.
func (f image) elementFields(id, i int) []field {
	at := id*pageSize + head + i*element
	if kind(f.page(id)) == branch {
		return []field{{"pos", at, 4}, {"key size", at + 4, 4}, {"child", at + 8, 8}}
	}
	return []field{{"flags", at, 4}, {"pos", at + 4, 4}, {"key size", at + 8, 4}, {"value size", at + 12, 4}}
}

// change makes the number of a field another one.
func (f image) change(r *rand.Rand, x field) string {
	old := f.get(x)
	now := old
	for now == old {
		switch r.IntN(6) {
		case 0, 1:
			now = old ^ 1<<r.IntN(8*x.size)
		case 2:
			now = old + 1
		case 3:
			now = old - 1
		case 4:
			now = r.Uint64N(uint64(f.pages()) + 2)
		case 5:
			now = []uint64{0, 1, 1<<16 - 1, 1<<31 - 1, 1<<32 - 1, 1<<63 - 1, 1<<64 - 1}[r.IntN(7)]
		}
		if x.size < 8 {
			now &= 1<<(8*x.size) - 1
		}
	}
	f.set(x, now)
	return fmt.Sprintf("%s at byte %d: %d is %d", x.what, x.at, old, now)
}

// mutate changes one thing. older are states of the same file before.
func (f image) mutate(r *rand.Rand, older []image) string {
	p := f.plan()
	used := slices.Concat([]int{p.root, p.freelist}, p.branches, p.leaves)
	page := used[r.IntN(len(used))]
	switch way := r.IntN(20); {
	case way < 3: // the meta pages, with a checksum that is right, or without one
		id := r.IntN(2)
		fields := metaFields(id)
		what := f.change(r, fields[r.IntN(len(fields))])
		if r.IntN(3) > 0 {
			f.seal(id)
			what += ", sealed"
		}
		return "meta page: " + what
	case way < 5:
		n := count(f.page(p.freelist))
		if n == 0 {
			return "free pages: " + f.change(r, headFields(p.freelist)[r.IntN(4)])
		}
		return "free page: " + f.change(r, field{"id", p.freelist*pageSize + head + 8*r.IntN(min(n, (pageSize-head)/8)), 8})
	case way < 7:
		return "head: " + f.change(r, headFields(page)[r.IntN(4)])
	case way < 9 && len(p.branches) > 0:
		id := p.branches[r.IntN(len(p.branches))]
		fields := f.elementFields(id, r.IntN(count(f.page(id))))
		return fmt.Sprintf("branch %d: %s", id, f.change(r, fields[r.IntN(len(fields))]))
	case way < 11 && len(p.branches) > 0: // a child that is another page
		id := p.branches[r.IntN(len(p.branches))]
		x := f.elementFields(id, r.IntN(count(f.page(id))))[2]
		to := []int{id, p.parent[id], p.root, p.freelist, page, 0, 1}[r.IntN(7)]
		f.set(x, uint64(to))
		return fmt.Sprintf("a child of branch %d is page %d", id, to)
	case way < 13 && len(p.leaves) > 0:
		id := p.leaves[r.IntN(len(p.leaves))]
		if len(p.large) > 0 && r.IntN(4) == 0 {
			id = p.large[r.IntN(len(p.large))]
		}
		fields := f.elementFields(id, r.IntN(count(f.page(id))))
		return fmt.Sprintf("leaf %d: %s", id, f.change(r, fields[r.IntN(len(fields))]))
	case way < 14: // the buckets
		fields := f.elementFields(p.root, r.IntN(count(f.page(p.root))))
		return fmt.Sprintf("root %d: %s", p.root, f.change(r, fields[r.IntN(len(fields))]))
	case way < 15: // a byte anywhere in a page that is used
		at := (page+r.IntN(overflow(f.page(page))+1))*pageSize + r.IntN(pageSize)
		return "byte: " + f.change(r, field{"byte", at, 1})
	case way < 16: // two pages change places, with the right ids or not
		to := used[r.IntN(len(used))]
		a, b := f.page(page), f.page(to)
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
		what := fmt.Sprintf("the pages %d and %d in each other's place", page, to)
		if r.IntN(2) == 0 {
			le.PutUint64(a, uint64(page))
			le.PutUint64(b, uint64(to))
			what += ", with the right ids"
		}
		return what
	case way < 17: // one page in the place of another
		from := used[r.IntN(len(used))]
		copy(f.page(page), f.page(from))
		le.PutUint64(f.page(page), uint64(page))
		return fmt.Sprintf("page %d in the place of %d", from, page)
	case way < 19: // a write that was lost
		o := older[r.IntN(len(older))]
		if r.IntN(6) == 0 {
			page = r.IntN(2)
		}
		last := min(page+overflow(f.page(page)), o.pages()-1)
		if page < 2 {
			last = page
		}
		for id := page; id <= last; id++ {
			copy(f.page(id), o.page(id))
		}
		return fmt.Sprintf("the pages %d to %d of an older state", page, last)
	}
	b := f.page(page)
	clear(b)
	if r.IntN(2) == 0 {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	return fmt.Sprintf("zeros or noise in page %d", page)
}
