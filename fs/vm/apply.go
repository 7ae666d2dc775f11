package vm

import (
	"slices"

	"meta9/fs/vm/ordjson"
)

// Draft is what is to become of a VM: all its properties, the keys that get a value,
// and those that go unless they get one.
type Draft struct {
	Props ordjson.Members
	Sets  []Setting
	Gone  []KeyRef
}

// KeyRef names a key.
type KeyRef struct {
	Space Space
	Name  string
}

// Apply makes the VM what the draft says: all of it or, with an error, nothing. What
// is there already is no change. The limits are for the result, so that the order of
// the keys does not matter. The errors are those of Put.
func (e *Edit) Apply(d Draft, st Stamp, lim Limits) error {
	saved := e.Save()
	if err := e.apply(d, st, lim); err != nil {
		*e = saved
		return err
	}
	return nil
}

// apply changes in the edit what is different in the draft.
func (e *Edit) apply(d Draft, st Stamp, lim Limits) error {
	count, bytes := e.vm.Count(), e.vm.bytes
	if !d.Props.Equal(e.vm.Props) {
		e.ownVM()
		e.vm.Props = d.Props
		e.change(Change{Type: Changed}, st)
	}
	given := make(map[KeyRef]bool, len(d.Sets))
	for _, w := range d.Sets {
		given[KeyRef{w.Space, w.Name}] = true
	}
	for _, k := range d.Gone {
		if old := e.Get(k.Space, k.Name); old != nil && !given[k] {
			e.Remove(k.Space, old, st)
		}
	}
	for _, w := range d.Sets {
		old := e.Get(w.Space, w.Name)
		if old != nil && old.Value == w.Value && old.Kind == w.Kind {
			continue
		}
		if _, err := e.set(old, w, st, Limits{Value: lim.Value}); err != nil {
			return err
		}
	}
	if err := lim.checkKeys(count, e.vm.Count()-count); err != nil {
		return err
	}
	return lim.checkBytes(bytes, e.vm.bytes-bytes)
}

// Replace makes the VM what New would make of props and sets: what they lack goes.
// The keys that stay keep their ID, mode and place. Like Apply it does all or
// nothing.
func (e *Edit) Replace(props ordjson.Members, sets []Setting, st Stamp, lim Limits) error {
	for s := range NumSpaces {
		if slices.ContainsFunc(sets, func(w Setting) bool { return w.Space == s }) {
			props = placeholder(props, s)
		}
	}
	if err := e.Apply(Draft{props, sets, e.vm.keys()}, st, lim); err != nil {
		return err
	}
	if len(e.vm.Props) != len(props) { // a placeholder came back with the removal of the last key
		e.vm.Props = props
	}
	return nil
}

// keys names every key of both spaces.
func (v *VM) keys() []KeyRef {
	keys := make([]KeyRef, 0, v.Count())
	for s := range NumSpaces {
		for e := range v.spaces[s].all() {
			keys = append(keys, KeyRef{s, e.Name})
		}
	}
	return keys
}
