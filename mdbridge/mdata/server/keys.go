package server

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/macro"
)

// keys are a VM's keys by their names in the protocol. It knows which file of the
// guest's tree a name means.
type keys struct {
	view *fs.View
	root *fs.Ref
	cell *store.Cell
	done chan error // the result of the change at hand
}

// open attaches to the VM's tree; false: the VM is not there.
func (k *keys) open(t *fs.Tree, who fs.Principal) bool {
	k.cell = t.Store().Cell(who.VM)
	k.view = t.View(who)
	root, err := k.view.Attach("", "")
	if err != nil || k.cell == nil {
		k.view.Close()
		return false
	}
	k.root, k.done = root, make(chan error, 1)
	return true
}

// vm is the VM as it is now. errs.Stale: it was deleted.
func (k *keys) vm() (*vm.VM, error) {
	if m := k.cell.VM(); m != nil {
		return m, nil
	}
	return nil, errs.New(errs.Stale, "VM %s was deleted", k.cell.UUID())
}

// errNoValue is for a property that is an object or an array. A SmartOS host answers
// FAILURE without a text.
var errNoValue = errors.New("no value that could be told")

// sdcPrefix begins the names that are derived from the VM's properties.
const sdcPrefix = "sdc:"

// get appends the value of the key to b. Errors: NotFound; TooBig when it has over
// max bytes; errNoValue; Invalid, with a SmartOS host's text, for a key of customer
// metadata where the VM has none.
func (k *keys) get(b []byte, key string, max int) ([]byte, error) {
	m, err := k.vm()
	if err != nil {
		return b, err
	}
	if name, ok := strings.CutPrefix(key, sdcPrefix); ok {
		return k.getSdc(b, m, name, max)
	}
	s := m.GuestSpace(key)
	if _, there := m.Prop(s.Member()); !there && s == vm.Keys {
		return b, errs.New(errs.Invalid, "Zone did not contain customer_metadata")
	}
	b, err = macro.Get(b, k.root, []string{s.String(), vm.FileName(key)}, max)
	return b, asNotFound(err)
}

// getSdc appends the value of a file in sdc/. A property that is an object or an array
// has no file there; a SmartOS host tells it from one that does not exist.
func (k *keys) getSdc(b []byte, m *vm.VM, name string, max int) ([]byte, error) {
	b, err := macro.Get(b, k.root, []string{"sdc", vm.FileName(name)}, max)
	err = asNotFound(err)
	if v, _ := m.Prop(name); err == errs.NotFound && (v.Kind == ordjson.Object || v.Kind == ordjson.Array) {
		err = errNoValue
	}
	return b, err
}

// asNotFound is errs.NotFound for every error which means that the key is not there:
// also for what cannot be a name, and for a key that was removed meanwhile.
func asNotFound(err error) error {
	switch errs.KindOf(err) {
	case errs.NotFound, errs.NameTooLong, errs.Invalid, errs.Gone, errs.Stale:
		return errs.NotFound
	}
	return err
}

// names appends the names of all keys that the guest sees, separated by LF: first
// customer metadata, then internal metadata.
//
// They are all of one row, so that KEYS shows no part of a transaction.
func (k *keys) names(b []byte) ([]byte, error) {
	m, err := k.vm()
	if err != nil {
		return b, err
	}
	begun := len(b)
	for s := range vm.NumSpaces {
		for e := range m.Entries(s) {
			if !m.GuestSees(s, e.Name) {
				continue
			}
			if len(b) > begun {
				b = append(b, '\n')
			}
			b = append(b, e.Name...)
		}
	}
	return b, nil
}

// count is how many keys the VM has, the hidden ones too.
func (k *keys) count() int {
	if m := k.cell.VM(); m != nil {
		return m.Count()
	}
	return 0
}

// put sets the key's value, and returns when that is durable. The error's detail says
// what is allowed.
func (k *keys) put(key string, value []byte) error {
	return k.change(key, func(names []string) {
		macro.Put(k.root, names, value, k.finish)
	})
}

// remove removes the key. No error: it was not there.
func (k *keys) remove(key string) error {
	err := k.change(key, func(names []string) {
		macro.Delete(k.root, names, k.finish)
	})
	if err != nil && asNotFound(err) == errs.NotFound {
		return nil
	}
	return err
}

// change begins a change of the key's file and waits until it is durable. It asks first
// whether the guest may write such a name, since a DELETE of a key that is not there
// is refused as well.
func (k *keys) change(key string, begin func(names []string)) error {
	m, err := k.vm()
	if err != nil {
		return err
	}
	s := m.GuestSpace(key)
	if err := m.GuestMayWrite(s, key); err != nil {
		return err
	}
	begin([]string{s.String(), vm.FileName(key)})
	err = <-k.done
	k.view.Settle()
	return err
}

// finish is called by the store's committer, so it must not wait: done has room for
// one result.
func (k *keys) finish(err error) { k.done <- err }

// keyOf is the key that the bytes name, without blanks at its ends. Bytes that are not
// UTF-8 become U+FFFD, as on a SmartOS host, whose server is JavaScript.
func keyOf(b []byte) string {
	s := string(b)
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
}
