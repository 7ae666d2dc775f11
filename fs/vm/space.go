package vm

import (
	"cmp"
	"slices"

	"meta9/fs/errs"
)

// makeSpace takes over the entries, in any order, and sorts them. Two of one
// name or one ID are an error (Invalid).
func makeSpace(entries []*Entry) (space, error) {
	sp := space{byName: slices.Clone(entries), byID: entries}
	slices.SortFunc(sp.byName, func(a, b *Entry) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(sp.byID, func(a, b *Entry) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(entries); i++ {
		if a, b := sp.byName[i-1], sp.byName[i]; a.Name == b.Name {
			return space{}, errs.New(errs.Invalid, "the key %q is there twice", a.Name)
		}
		if a, b := sp.byID[i-1], sp.byID[i]; a.ID == b.ID {
			return space{}, errs.New(errs.Invalid, "the keys %q and %q have the same id %d", a.Name, b.Name, a.ID)
		}
	}
	return sp, nil
}

// nameAt is where the name is in byName, or belongs.
func (sp *space) nameAt(name string) (int, bool) {
	return slices.BinarySearchFunc(sp.byName, name, func(e *Entry, name string) int {
		return cmp.Compare(e.Name, name)
	})
}

// idAt is where the ID is in byID, or belongs.
func (sp *space) idAt(id uint64) (int, bool) {
	return slices.BinarySearchFunc(sp.byID, id, func(e *Entry, id uint64) int {
		return cmp.Compare(e.ID, id)
	})
}

// get is the entry of that name, or nil.
func (sp *space) get(name string) *Entry {
	if i, ok := sp.nameAt(name); ok {
		return sp.byName[i]
	}
	return nil
}

// getID is the entry with that ID, or nil.
func (sp *space) getID(id uint64) *Entry {
	if i, ok := sp.idAt(id); ok {
		return sp.byID[i]
	}
	return nil
}

// put takes the entry in, in the place of the one with its name, which has the
// same ID, or as a new one. Like remove it changes the slices in place: only an
// Edit that owns them may call it.
func (sp *space) put(e *Entry) {
	i, ok := sp.nameAt(e.Name)
	j, _ := sp.idAt(e.ID)
	if ok {
		sp.byName[i], sp.byID[j] = e, e
		return
	}
	sp.byName = slices.Insert(sp.byName, i, e)
	sp.byID = slices.Insert(sp.byID, j, e)
}

// remove takes out an entry that is there.
func (sp *space) remove(e *Entry) {
	i, _ := sp.nameAt(e.Name)
	j, _ := sp.idAt(e.ID)
	sp.byName = slices.Delete(sp.byName, i, i+1)
	sp.byID = slices.Delete(sp.byID, j, j+1)
}

// clone copies the space with room for one more entry, since most edits are one
// write.
func (sp *space) clone() space {
	n := len(sp.byName)
	return space{
		byName: append(make([]*Entry, 0, n+1), sp.byName...),
		byID:   append(make([]*Entry, 0, n+1), sp.byID...),
	}
}

// Get is the entry of that name, or nil.
func (v *VM) Get(s Space, name string) *Entry { return v.spaces[s].get(name) }

// Entries is every entry of the space in the order of creation, which is that of
// their IDs. The slice is the VM's own: not to be changed.
func (v *VM) Entries(s Space) []*Entry { return v.spaces[s].byID }

// EntriesAfter is those of Entries whose ID is greater than id, so that a listing
// goes on where it stopped whatever came and went since.
func (v *VM) EntriesAfter(s Space, id uint64) []*Entry {
	i, ok := v.spaces[s].idAt(id)
	if ok {
		i++
	}
	return v.spaces[s].byID[i:]
}

// Count is how many entries both spaces have.
func (v *VM) Count() int {
	n := 0
	for s := range v.spaces {
		n += len(v.spaces[s].byID)
	}
	return n
}

// Bytes is the size of all names and values of both spaces, which Limits.Bytes
// bounds.
func (v *VM) Bytes() int64 { return v.bytes }

// bytes is what the entry counts for in VM.Bytes.
func (e *Entry) bytes() int64 { return int64(len(e.Name) + len(e.Value)) }
