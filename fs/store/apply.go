package store

import (
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// run computes one intent on what the batch has so far; w is the batch's work on
// its VM. An intent that is refused leaves no trace but numbers that nobody else
// gets.
func (b *batch) run(w *work, in *Intent) Result {
	if err := b.store.Writable(); err != nil && !in.Mirror && in.Kind.changes() {
		return Result{Err: err}
	}
	switch {
	case in.Kind == CreateVM:
		return resultOf(b.createVM(in))
	case in.Kind == Adopt:
		return resultOf(b.adopt(in))
	case in.Kind == Note && in.Cell == nil:
		b.note(in)
		return Result{}
	case in.Kind == look:
		b.looks = true
		return Result{}
	case in.Kind == dropHold && in.Hold != nil:
		in.Hold.cell.drop(in.Hold)
		return Result{}
	case in.Cell == nil || in.Kind > Note && in.Kind != elsewhere || in.Space >= vm.NumSpaces:
		return Result{Err: errs.New(errs.Invalid, "an intent of kind %d, space %d", in.Kind, in.Space)}
	case w == nil || w.deleted:
		return Result{Err: notThere(w, in)}
	}
	r, err := b.apply(w, in)
	w.asked, w.found = nil, nil
	if err != nil {
		return Result{Err: err}
	}
	b.recordChanges(w, in)
	return r
}

func resultOf(r Result, err error) Result {
	if err != nil {
		return Result{Err: err}
	}
	return r
}

// notThere is the error of an intent that finds no VM.
func notThere(w *work, in *Intent) error {
	switch {
	case in.Cell.left || w != nil && w.left:
		return errLeft(in.Cell.uuid)
	case in.ID != 0:
		return errs.Gone
	}
	return errs.NotFound
}

func (b *batch) apply(w *work, in *Intent) (Result, error) {
	switch in.Kind {
	case Splice, Append:
		return b.splice(w, in)
	case Put:
		return b.replace(w, in)
	case Create:
		return b.create(w, in)
	case Set:
		return b.set(w, in)
	case Remove:
		return b.remove(w, in)
	case FlushHold:
		return b.flush(w, in)
	case UpdateVM, ReplaceVM:
		return b.updateVM(w, in)
	case DeleteVM:
		return b.deleteVM(w, in)
	case Txn:
		return b.transact(w, in)
	case Yield:
		return b.yield(w, in)
	case elsewhere:
		return Result{}, b.leave(w, nil)
	}
	b.note(in)
	return Result{}, nil
}

// splice is Splice and Append. Without data it changes nothing, as a write of 0
// bytes to any file.
func (b *batch) splice(w *work, in *Intent) (Result, error) {
	e, err := w.find(in)
	if err != nil || in.Data == "" {
		return Result{Entry: e}, err
	}
	old, off := w.value(in, e), in.Off
	if in.Kind == Append {
		off = uint64(len(old))
	}
	if err := b.fits(off, uint64(len(in.Data))); err != nil {
		return Result{}, err
	}
	value := in.Data
	if off > 0 || len(value) < len(old) {
		value = spliced(old, int(off), in.Data)
	}
	r, err := b.put(w, in, e, e.Name, value)
	r.N = len(in.Data)
	return r, err
}

// fits checks the size of a value before it takes memory; off and n may be any
// numbers.
func (b *batch) fits(off, n uint64) error {
	limit := uint64(maxValue)
	if l := b.limits.Value; l > 0 {
		limit = uint64(l)
	}
	if off > limit || n > limit-off {
		return errs.New(errs.TooLarge, "%d bytes is the limit of a value", limit)
	}
	return nil
}

// spliced is old with data at off; a gap is zeros.
func spliced(old string, off int, data string) string {
	end := off + len(data)
	var v strings.Builder
	v.Grow(max(end, len(old)))
	v.WriteString(old[:min(off, len(old))])
	zeros(&v, off-len(old))
	v.WriteString(data)
	if end < len(old) {
		v.WriteString(old[end:])
	}
	return v.String()
}

func zeros(v *strings.Builder, n int) {
	var some [512]byte
	for ; n > 0; n -= len(some) {
		v.Write(some[:min(n, len(some))])
	}
}

// resized is old cut or filled up with zeros.
func resized(old string, n int) string {
	if n <= len(old) {
		return strings.Clone(old[:n])
	}
	return spliced(old, n, "")
}

// put gives the key its value, in the place of old, or as a new one of that name.
func (b *batch) put(w *work, in *Intent, old *vm.Entry, name, value string) (Result, error) {
	more := int64(len(value))
	if old != nil {
		more -= int64(len(old.Value))
	} else {
		more += int64(len(name))
	}
	if err := b.limits.room(b.bytes, more); err != nil {
		return Result{}, err
	}
	if old == nil {
		if err := b.store.numbers.stock(1); err != nil {
			return Result{}, err
		}
	}
	e, err := w.edit.Put(in.Space, old, name, value, b.stamp, b.limits.Limits)
	if err != nil {
		return Result{}, err
	}
	b.bytes += more
	return Result{Entry: e}, nil
}

func (b *batch) replace(w *work, in *Intent) (Result, error) {
	if err := w.permit(in, in.Name); err != nil {
		return Result{}, err
	}
	if err := b.fits(0, uint64(len(in.Data))); err != nil {
		return Result{}, err
	}
	return b.put(w, in, w.edit.Get(in.Space, in.Name), in.Name, in.Data)
}

func (b *batch) create(w *work, in *Intent) (Result, error) {
	if err := w.permit(in, in.Name); err != nil {
		return Result{}, err
	}
	e := w.edit.Get(in.Space, in.Name)
	switch {
	case e == nil:
		return b.put(w, in, nil, in.Name, "")
	case in.Exclusive:
		return Result{}, errs.Exists
	}
	return Result{Entry: e}, nil
}

func (b *batch) remove(w *work, in *Intent) (Result, error) {
	e, err := w.find(in)
	if err != nil {
		return Result{}, err
	}
	w.edit.Remove(in.Space, e, b.stamp)
	b.bytes -= int64(len(e.Name) + len(e.Value))
	return Result{}, nil
}

// flush applies the Hold if it still waits, which makes it end with the key's
// other Holds.
func (b *batch) flush(w *work, in *Intent) (Result, error) {
	if in.Hold == nil || !in.Cell.waits(in.Hold, in.seq) {
		return Result{}, nil
	}
	e := w.edit.GetID(in.Hold.key.space, in.Hold.key.id)
	if e == nil {
		return Result{}, nil
	}
	in.Space = in.Hold.key.space
	if err := w.permit(in, e.Name); err != nil {
		return Result{}, err
	}
	return b.put(w, in, e, e.Name, "")
}

// set is Set: a truncation that is held comes first, then length, mode and time,
// then the name. It is undone as a whole when the name is refused.
func (b *batch) set(w *work, in *Intent) (Result, error) {
	e, err := w.find(in)
	if err != nil {
		return Result{}, err
	}
	renames := in.NewName != "" && in.NewName != e.Name
	resizes := in.Length != nil || (in.Mode != nil || in.Mtime != nil || renames) && w.held(in, e)
	if !renames {
		e, err = b.setMeta(w, in, e, resizes)
		return Result{Entry: e}, err
	}
	if err := w.permit(in, in.NewName); err != nil {
		return Result{}, err
	}
	if !resizes && in.Mode == nil && in.Mtime == nil {
		e, err = b.rename(w, in, e)
		return Result{Entry: e}, err
	}
	saved, bytes := w.edit.Save(), b.bytes
	if e, err = b.setMeta(w, in, e, resizes); err == nil {
		e, err = b.rename(w, in, e)
	}
	if err != nil {
		*w.edit, b.bytes = saved, bytes
		return Result{}, err
	}
	return Result{Entry: e}, nil
}

// setMeta does all of Set except the name, and returns the key as it is then.
func (b *batch) setMeta(w *work, in *Intent, e *vm.Entry, resizes bool) (*vm.Entry, error) {
	if resizes {
		r, err := b.resize(w, in, e)
		if err != nil {
			return nil, err
		}
		e = r.Entry
	}
	return w.edit.SetMeta(in.Space, e, in.Mode, in.Mtime, b.stamp), nil
}

func (b *batch) resize(w *work, in *Intent, e *vm.Entry) (Result, error) {
	value := w.value(in, e)
	if in.Length != nil {
		if err := b.fits(*in.Length, 0); err != nil {
			return Result{}, err
		}
		value = resized(value, int(*in.Length))
	}
	return b.put(w, in, e, e.Name, value)
}

func (b *batch) rename(w *work, in *Intent, e *vm.Entry) (*vm.Entry, error) {
	more := int64(len(in.NewName) - len(e.Name))
	over := w.edit.Get(in.Space, in.NewName)
	if over != nil {
		more -= int64(len(over.Name) + len(over.Value))
	}
	if err := b.limits.room(b.bytes, more); err != nil {
		return nil, err
	}
	next, err := w.edit.Rename(in.Space, e, in.NewName, b.stamp, b.limits.Limits)
	if err == nil {
		b.bytes += more
	}
	return next, err
}

// note is Note: an event of its own, with nothing changed.
func (b *batch) note(in *Intent) {
	ev := Event{
		Rev: b.store.numbers.rev(), Date: b.stamp.Now,
		Type: in.Event, Key: in.Name, Space: in.Space, By: in.By, As: in.As,
	}
	if in.Cell != nil {
		ev.VM = in.Cell.uuid
	}
	b.events = append(b.events, told{nil, in.Cell, ev})
}
