package vm

import (
	"cmp"
	"iter"
	"slices"
)

// pieces are entries in the order of a key, in slices of at most maxPiece, none of
// them empty. A piece is never changed: whoever changes pieces owns the outer slice
// and puts a changed copy of the piece in. So what a change costs does not grow
// with the number of entries but with their number over maxPiece, and a VM and the
// one that was made of it share all pieces but those that were changed.
type pieces [][]*Entry

const maxPiece = 64

// place is where an entry is in pieces, or belongs.
type place struct{ piece, at int }

// cut makes pieces of sorted entries, which they take over.
func cut(entries []*Entry) pieces {
	p := make(pieces, 0, (len(entries)+maxPiece-1)/maxPiece)
	for piece := range slices.Chunk(entries, maxPiece) {
		p = append(p, piece)
	}
	return p
}

// find is where the key is; ok is false where it only belongs.
func find[K cmp.Ordered](p pieces, key K, of func(*Entry) K) (at place, ok bool) {
	// The first piece that does not end before the key, or the last of all.
	lo, hi := 0, len(p)-1
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if last := len(p[mid]) - 1; of(p[mid][last]) < key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(p) {
		return place{}, false
	}
	in := p[lo]
	i, j := 0, len(in)
	for i < j {
		mid := int(uint(i+j) >> 1)
		if of(in[mid]) < key {
			i = mid + 1
		} else {
			j = mid
		}
	}
	return place{lo, i}, i < len(in) && of(in[i]) == key
}

func byName(e *Entry) string { return e.Name }
func byID(e *Entry) uint64   { return e.ID }

// replace puts e in the place of an entry with the same key.
func (p pieces) replace(at place, e *Entry) {
	piece := slices.Clone(p[at.piece])
	piece[at.at] = e
	p[at.piece] = piece
}

// insert puts e in where it belongs, and gives the pieces with it.
func (p pieces) insert(at place, e *Entry) pieces {
	if len(p) == 0 {
		return append(p, []*Entry{e})
	}
	old := p[at.piece]
	if len(old) < maxPiece {
		p[at.piece] = with(old, at.at, e)
		return p
	}
	// A full piece becomes two; behind its end a new one begins, so that what comes
	// in order fills pieces.
	half := len(old) / 2
	if at.at == len(old) {
		half = len(old)
	}
	left, right := old[:half:half], old[half:]
	if at.at <= half && half < len(old) {
		left = with(left, at.at, e)
	} else {
		right = with(right, at.at-half, e)
	}
	p[at.piece] = left
	return slices.Insert(p, at.piece+1, right)
}

// with is a copy of the piece with e at i.
func with(piece []*Entry, i int, e *Entry) []*Entry {
	next := make([]*Entry, 0, len(piece)+1)
	next = append(next, piece[:i]...)
	next = append(next, e)
	return append(next, piece[i:]...)
}

// remove takes an entry out, and gives the pieces without it. What is left of its
// piece joins the one before if both are small.
func (p pieces) remove(at place) pieces {
	old := p[at.piece]
	if len(old) == 1 {
		return slices.Delete(p, at.piece, at.piece+1)
	}
	rest := make([]*Entry, 0, len(old)-1)
	rest = append(append(rest, old[:at.at]...), old[at.at+1:]...)
	p[at.piece] = rest
	if i := at.piece - 1; i >= 0 && len(p[i])+len(rest) <= maxPiece/2 {
		p[i] = slices.Concat(p[i], rest)
		return slices.Delete(p, at.piece, at.piece+1)
	}
	return p
}

// from gives the entries from that place on.
func (p pieces) from(at place) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := at.piece; i < len(p); i++ {
			for _, e := range p[i][at.at:] {
				if !yield(e) {
					return
				}
			}
			at.at = 0
		}
	}
}
