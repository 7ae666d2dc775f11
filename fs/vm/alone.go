package vm

import (
	"unsafe"

	"meta9/fs/vm/ordjson"
)

// Alone is about how many bytes of memory v takes beside w, one of which was made of
// the other: what both share does not count.
func (v *VM) Alone(w *VM) int64 {
	const vmSize, entrySize, pointer = 256, 128, 8
	n := int64(vmSize)
	for s := range v.spaces {
		mine, theirs := v.spaces[s].ids, &w.spaces[s]
		for _, piece := range mine {
			at, _ := find(theirs.ids, piece[0].ID, byID)
			if at.piece < len(theirs.ids) && &theirs.ids[at.piece][0] == &piece[0] {
				continue
			}
			n += int64(2 * pointer * len(piece))
			for _, e := range piece {
				switch other := theirs.getID(e.ID); {
				case other == e:
				case other != nil && len(other.Value) == len(e.Value) && unsafe.StringData(other.Value) == unsafe.StringData(e.Value):
					n += entrySize // another mode, time or name
				default:
					n += entrySize + e.bytes()
				}
			}
		}
		n += int64(2 * 3 * pointer * len(mine))
	}
	if len(v.Props) > 0 && (len(w.Props) == 0 || &v.Props[0] != &w.Props[0]) {
		n += propBytes(v.Props)
	}
	return n
}

// Size is about how many bytes the VM's properties and metadata have, in memory and as
// JSON with nothing to escape.
func (v *VM) Size() int64 {
	const perKey, head = 64, 512
	return head + v.bytes + int64(perKey*v.Count()) + propBytes(v.Props)
}

// propBytes is about the memory of properties.
func propBytes(o ordjson.Members) int64 {
	const perValue = 96
	values, bytes := o.Measure()
	return int64(perValue*values + bytes)
}
