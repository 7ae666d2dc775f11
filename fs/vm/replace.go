package vm

import "meta9/fs/errs"

// Replace makes the VM what a payload for Create says, as a mirror does: what the
// payload lacks goes. The keys that stay keep their ID, mode and place; a value
// that is there already is no change. It does all or nothing; the errors are
// those of Create.
func (e *Edit) Replace(payload []byte, st Stamp, lim Limits) error {
	props, sets, err := readPayload(payload)
	if err != nil {
		return err
	}
	if uuid := props.text("uuid"); uuid != e.vm.UUID {
		return errs.New(errs.Invalid, "uuid: cannot change, it is %s", e.vm.UUID)
	}
	for s := range NumSpaces {
		if hasSpace(sets, s) {
			props = props.placeholder(s)
		}
	}
	d := draft{props: props, sets: sets, gone: e.vm.keys()}
	saved := *e
	e.VM() // so that what follows is done on copies
	if err := e.apply(d, st, lim); err != nil {
		*e = saved
		return err
	}
	if len(e.vm.Props) != len(props) { // a placeholder came back with the removal of the last key
		e.vm.Props = props
	}
	return nil
}

func hasSpace(sets []setting, s Space) bool {
	for i := range sets {
		if sets[i].space == s {
			return true
		}
	}
	return false
}

// keys names every key of both spaces.
func (v *VM) keys() []keyRef {
	keys := make([]keyRef, 0, v.Count())
	for s := range NumSpaces {
		for _, e := range v.spaces[s].byID {
			keys = append(keys, keyRef{s, e.Name})
		}
	}
	return keys
}
