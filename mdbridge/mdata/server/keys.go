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

// keys are a VM's keys by the names that the protocol has for them: which file of
// the guest's own tree a name is for.
type keys struct {
	view *fs.View
	root *fs.Ref
	cell *store.Cell
	done chan error // the result of the change at hand
}

// open begins; false: the VM is not there.
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

// errNoValue is for what is there but has no text: an object or an array. The
// host answers FAILURE without a word.
var errNoValue = errors.New("no value that could be told")

// sdcPrefix begins the names that are derived from the VM's properties.
const sdcPrefix = "sdc:"

// get appends the value of the key to b. Errors: NotFound; TooBig when it has over
// max bytes; errNoValue; what the host says of a VM without customer metadata.
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
	return b, absent(err)
}

// getSdc appends what the file of sdc/ has. A property that is there but is no text
// has no file; it is told apart here because the host does.
func (k *keys) getSdc(b []byte, m *vm.VM, name string, max int) ([]byte, error) {
	b, err := macro.Get(b, k.root, []string{"sdc", vm.FileName(name)}, max)
	err = absent(err)
	if v, _ := m.Prop(name); err == errs.NotFound && (v.Kind == ordjson.Object || v.Kind == ordjson.Array) {
		err = errNoValue
	}
	return b, err
}

// absent makes one error of all that say that a key is not there: what cannot be
// a name, or went while it was looked for, is not there either.
func absent(err error) error {
	switch errs.KindOf(err) {
	case errs.NotFound, errs.NameTooLong, errs.Invalid, errs.Gone, errs.Stale:
		return errs.NotFound
	}
	return err
}

// names appends the names of all keys that the guest sees, with an LF between
// two: customer metadata, then internal.
func (k *keys) names(b []byte) ([]byte, error) {
	begun := len(b)
	for s := range vm.NumSpaces {
		err := macro.List(k.root, []string{s.String()}, func(st *fs.Stat) bool {
			if key, err := vm.KeyName(st.Name); err == nil {
				if len(b) > begun {
					b = append(b, '\n')
				}
				b = append(b, key...)
			}
			return true
		})
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// count is how many names there are at most.
func (k *keys) count() int {
	if m := k.cell.VM(); m != nil {
		return m.Count()
	}
	return 0
}

// put makes value the key's, durably. The error's detail says what is allowed.
func (k *keys) put(key string, value []byte) error {
	return k.change(key, func(names []string) {
		macro.Put(k.root, names, value, k.finish)
	})
}

// remove takes the key away; that it is not there is no error.
func (k *keys) remove(key string) error {
	err := k.change(key, func(names []string) {
		macro.Delete(k.root, names, k.finish)
	})
	if err != nil && absent(err) == errs.NotFound {
		return nil
	}
	return err
}

// change begins a change of the key's file, if the guest may change it at all,
// and waits until it is durable: also the name of a key that is not there may be
// one that is refused.
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

// finish runs in the store's committer.
func (k *keys) finish(err error) { k.done <- err }

// keyOf is the key that the bytes name: text, without blanks at its ends. What is
// not UTF-8 becomes U+FFFD, as on a host that is written in JavaScript.
func keyOf(b []byte) string {
	s := string(b)
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
}
