package store

import (
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
)

var errGuestVM = errs.New(errs.NotPermitted, "VMs are the operator's to create, update and delete")

// createVM makes a VM of a payload: as vmadm does, or as it is for the mirror, whose
// VMs somebody else's vmadm has made.
func (b *batch) createVM(in *Intent) (Result, error) {
	if in.Guest {
		return Result{}, errGuestVM
	}
	if why := b.store.noNew.Load(); why != nil {
		return Result{}, *why
	}
	if err := b.store.numbers.stock(idsOf(in)); err != nil {
		return Result{}, err
	}
	create := payload.Create
	if in.Mirror || in.Exact {
		create = payload.Keep
	}
	v, changes, err := create([]byte(in.Data), b.stamp, b.limits.Limits)
	if err != nil {
		return Result{}, err
	}
	v.Describe(in.About)
	if err := b.limits.room(b.bytes, v.Bytes()); err != nil {
		return Result{}, err
	}
	c := b.store.newCell(v)
	if err := b.claim(c, nil, v); err != nil {
		return Result{}, err
	}
	b.bytes += v.Bytes()
	w := b.join(c, nil, v)
	w.edit.Note(changes...)
	b.recordChanges(w, in)
	return Result{Cell: c}, nil
}

// idsOf is how many ids the payload of an intent takes at most: those of the VM, and each
// key has at least a byte in it.
func idsOf(in *Intent) uint64 { return vm.IDsPerVM + uint64(len(in.Data)) }

// updateVM applies a patch to the properties and the metadata, or replaces both.
func (b *batch) updateVM(w *work, in *Intent) (Result, error) {
	if in.Guest {
		return Result{}, errGuestVM
	}
	if err := b.store.numbers.stock(idsOf(in)); err != nil {
		return Result{}, err
	}
	saved := w.edit.Save()
	edit := payload.Update
	if in.Kind == ReplaceVM {
		edit = payload.Replace
	}
	was := saved.Now()
	if err := edit(w.edit, []byte(in.Data), b.stamp, b.limits.Limits); err != nil {
		return Result{}, err
	}
	w.edit.Describe(in.About, b.stamp)
	now := w.edit.Now()
	more := now.Bytes() - was.Bytes()
	err := b.limits.room(b.bytes, more)
	if err == nil {
		err = b.claim(w.cell, was, now)
	}
	if err != nil {
		*w.edit = saved
		return Result{}, err
	}
	b.bytes += more
	return Result{}, nil
}

// deleteVM takes the VM away with all its keys: one event.
func (b *batch) deleteVM(w *work, in *Intent) (Result, error) {
	if in.Guest {
		return Result{}, errGuestVM
	}
	v := w.edit.Now()
	if err := b.claim(w.cell, v, nil); err != nil {
		return Result{}, err
	}
	b.bytes -= v.Bytes()
	w.deleted = true
	w.edit.Note(vm.Change{Type: vm.Deleted, Rev: b.store.numbers.rev()})
	return Result{}, nil
}
