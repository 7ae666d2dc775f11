package vm

import (
	"cmp"
	"iter"
	"slices"

	"meta9/fs/errs"
)

// makeSpace takes over the entries, in any order, and sorts them. Two of one
// name or one ID are an error (Invalid).
func makeSpace(entries []*Entry) (space, error) {
	names := slices.Clone(entries)
	slices.SortFunc(names, func(a, b *Entry) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(entries, func(a, b *Entry) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(entries); i++ {
		if a, b := names[i-1], names[i]; a.Name == b.Name {
			return space{}, errs.New(errs.Invalid, "the key %q is there twice", a.Name)
		}
		if a, b := entries[i-1], entries[i]; a.ID == b.ID {
			return space{}, errs.New(errs.Invalid, "the keys %q and %q have the same id %d", a.Name, b.Name, a.ID)
		}
	}
	return space{names: cut(names), ids: cut(entries), count: len(entries)}, nil
}

// get is the entry of that name, or nil.
func (sp *space) get(name string) *Entry {
	if at, ok := find(sp.names, name, byName); ok {
		return sp.names[at.piece][at.at]
	}
	return nil
}

// getID is the entry with that ID, or nil.
func (sp *space) getID(id uint64) *Entry {
	if at, ok := find(sp.ids, id, byID); ok {
		return sp.ids[at.piece][at.at]
	}
	return nil
}

// put takes the entry in, in the place of the one with its name, which has the
// same ID, or as a new one. Only an Edit that owns the space may call it, or
// remove.
func (sp *space) put(e *Entry) {
	name, ok := find(sp.names, e.Name, byName)
	id, _ := find(sp.ids, e.ID, byID)
	if ok {
		sp.names.replace(name, e)
		sp.ids.replace(id, e)
		return
	}
	sp.names = sp.names.insert(name, e)
	sp.ids = sp.ids.insert(id, e)
	sp.count++
}

// remove takes out an entry that is there.
func (sp *space) remove(e *Entry) {
	name, _ := find(sp.names, e.Name, byName)
	id, _ := find(sp.ids, e.ID, byID)
	sp.names = sp.names.remove(name)
	sp.ids = sp.ids.remove(id)
	sp.count--
}

// clone is a space whose pieces may be changed. All that it copies is the slices
// that hold the pieces.
func (sp *space) clone() space {
	return space{names: slices.Clone(sp.names), ids: slices.Clone(sp.ids), count: sp.count}
}

// all is every entry in the order of the IDs.
func (sp *space) all() iter.Seq[*Entry] { return sp.ids.from(place{}) }

// Get is the entry of that name, or nil.
func (v *VM) Get(s Space, name string) *Entry { return v.spaces[s].get(name) }

// GetID is the entry with that ID, or nil.
func (v *VM) GetID(s Space, id uint64) *Entry { return v.spaces[s].getID(id) }

// Entries is every entry of the space in the order of creation, which is that of
// their IDs.
func (v *VM) Entries(s Space) iter.Seq[*Entry] { return v.spaces[s].all() }

// EntriesAfter is those of Entries whose ID is greater than id, so that a listing
// goes on where it stopped whatever came and went since.
func (v *VM) EntriesAfter(s Space, id uint64) iter.Seq[*Entry] {
	ids := v.spaces[s].ids
	at, ok := find(ids, id, byID)
	if ok {
		at.at++
	}
	return ids.from(at)
}

// CountOf is how many entries the space has.
func (v *VM) CountOf(s Space) int { return v.spaces[s].count }

// Count is how many entries both spaces have.
func (v *VM) Count() int {
	n := 0
	for s := range v.spaces {
		n += v.spaces[s].count
	}
	return n
}

// Bytes is the size of all names and values of both spaces, which Limits.Bytes
// bounds.
func (v *VM) Bytes() int64 { return v.bytes }

// bytes is what the entry counts for in VM.Bytes.
func (e *Entry) bytes() int64 { return int64(len(e.Name) + len(e.Value)) }
