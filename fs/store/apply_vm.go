package store

import (
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/payload"
)

var errGuestVM = errs.New(errs.NotPermitted, "VMs are the operator's to create, update and delete")

// createVM makes a VM of a payload.
func (b *batch) createVM(in *Intent) (Result, error) {
	if in.Guest {
		return Result{}, errGuestVM
	}
	v, changes, err := payload.Create([]byte(in.Data), b.stamp(in), b.store.cfg.Limits)
	if err != nil {
		return Result{}, err
	}
	if err := b.room(v.Bytes()); err != nil {
		return Result{}, err
	}
	c := b.store.newCell(v)
	if err := claim(b.txn, c, nil, v); err != nil {
		return Result{}, err
	}
	b.bytes += v.Bytes()
	w := &work{cell: c, base: v, edit: v.Edit()}
	b.join(w)
	for _, ch := range changes {
		b.change(w, in, ch)
	}
	return Result{Cell: c}, nil
}

// updateVM applies a patch to the properties and the metadata, or replaces both.
func (b *batch) updateVM(w *work, in *Intent) (Result, error) {
	if in.Guest {
		return Result{}, errGuestVM
	}
	was := w.begin()
	edit := payload.Update
	if in.Kind == ReplaceVM {
		edit = payload.Replace
	}
	if err := edit(w.edit, []byte(in.Data), b.stamp(in), b.store.cfg.Limits); err != nil {
		return Result{}, err
	}
	now := w.edit.VM()
	more := now.Bytes() - was.Bytes()
	err := b.room(more)
	if err == nil {
		err = claim(b.txn, w.cell, was, now)
	}
	if err != nil {
		w.reset(was)
		return Result{}, err
	}
	b.bytes += more
	b.harvest(w, in)
	w.reset(now)
	return Result{}, nil
}

// deleteVM takes the VM away with all its keys: one event.
func (b *batch) deleteVM(w *work, in *Intent) (Result, error) {
	if in.Guest {
		return Result{}, errGuestVM
	}
	v := w.begin()
	if err := claim(b.txn, w.cell, v, nil); err != nil {
		return Result{}, err
	}
	b.bytes -= v.Bytes()
	w.deleted = true
	b.change(w, in, vm.Change{Type: vm.Deleted, Rev: b.store.numbers.rev()})
	return Result{}, nil
}
