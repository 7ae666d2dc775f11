package residence

import (
	"errors"
	"fmt"
	"slices"
)

// What of a journal's batches has become durable, as the engine knows it.

// settle compares the batches with the engine, whose newest durable batch is number, and
// drops the events of those that are not durable.
func (f *folded) settle(number uint64) error {
	done, newest, last := f.place.Number, uint64(0), uint64(0)
	for _, b := range f.batches {
		if b.Number == last && last > 0 {
			continue // a copy at the beginning of a segment
		}
		if newest > 0 && !f.failed[newest] {
			done = newest
		}
		newest, last = b.Number, max(last, b.Number)
	}
	if f.failed[newest] {
		newest = 0
	}
	switch {
	case newest == 0 && number == done, newest > 0 && number == newest:
	case newest > 0 && number == done:
		f.failed[newest] = true
	case number < done:
		return fmt.Errorf("the data folder is at change %d, the journal at %d: an older folder was put back", number, max(done, newest))
	default:
		return fmt.Errorf("the data folder is at change %d, the journal at %d: it was served since", number, max(done, newest))
	}
	f.done = func(number uint64, _ string) bool { return !f.failed[number] }
	f.dropUndone()
	return nil
}

// settleEach is settle of a fleet's host: each VM's newest batch is another. The sessions of VMs
// that have been elsewhere since are dropped, and those of the admin, whose changes
// may be of any VM.
func (f *folded) settleEach(stays Stays) {
	newest, last := make(map[string]uint64), uint64(0)
	for id, s := range f.sessions {
		vm := s.state.VM
		number, is := stays.Before(vm, s.stay)
		switch {
		case s.state.Admin || vm == "":
			f.gone = append(f.gone, errors.New("it is the admin's, at a host of a fleet"))
		case !is:
			f.gone = append(f.gone, fmt.Errorf("VM %s was another host's or another process's since", vm))
		default:
			newest[vm] = number
			continue
		}
		delete(f.sessions, id)
	}
	for _, b := range f.batches {
		last = max(last, b.Number)
	}
	// The store begins a batch only when the outcome of the one before is known, and the journal
	// was told of what has failed. So only the last one must be looked for.
	f.done = func(number uint64, vm string) bool {
		return !f.failed[number] && !slices.Contains(f.alone[number], vm) && (number < last || number <= newest[vm])
	}
	f.dropUndone()
}

// dropUndone drops the events of what is not durable. At a fleet's host an event that changes
// nothing is kept: the VM may have no change in that batch, and its number says nothing then.
func (f *folded) dropUndone() {
	for i := range f.batches {
		if b := &f.batches[i]; b.Number > 0 {
			b.Events = slices.DeleteFunc(b.Events, func(ev eventForm) bool { return !f.done(b.Number, ev.VM) && ev.event().Type.Changes() })
		}
	}
	f.batches = slices.DeleteFunc(f.batches, func(b batchForm) bool { return b.Number > 0 && f.failed[b.Number] })
}

// uuidSize is the length of a UUID's text.
const uuidSize = 36

// failure takes in that a batch has failed, or what it has made of some VMs.
func (f *folded) failure(number uint64, vms []byte) error {
	if len(vms) == 0 {
		f.failed[number] = true
	}
	for ; len(vms) >= uuidSize; vms = vms[uuidSize:] {
		f.alone[number] = append(f.alone[number], string(vms[:uuidSize]))
	}
	if len(vms) > 0 {
		return errSession
	}
	return nil
}
