package fs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// Verb does what one line of a ctl asks for. It must return soon and call done
// once, from any goroutine; done may be called before it returns. A Verb may be
// called from any goroutine, too.
type Verb func(call Call, done func(error))

// Call is one line.
type Call struct {
	View *View       // whose it is
	Cell *store.Cell // the VM; nil at the root
	Arg  string      // the rest of the line, without blanks at its ends
	By   Author

	// Answer makes text what is read from here on through the Handle to which the
	// line was written. It is called before done, if at all.
	Answer func(text []byte)
}

type verbs map[string]Verb

// RootVerb adds a verb to the root's ctl, which has create, update and delete.
func (t *Tree) RootVerb(name string, v Verb) { t.rootVerbs[name] = v }

// VMVerb adds a verb to every VM's ctl, which has update and delete.
func (t *Tree) VMVerb(name string, v Verb) { t.vmVerbs[name] = v }

// run runs one line.
func (n *ctlFile) run(line []byte, by Author, answer func([]byte), done func(error)) {
	t := n.v.tree
	known, call := t.rootVerbs, Call{View: n.v, By: by, Answer: answer}
	if n.dir != nil {
		known, call.Cell = t.vmVerbs, n.dir.cell
	}
	name, arg, _ := strings.Cut(string(line), " ")
	call.Arg = strings.TrimSpace(arg)
	v := known[name]
	if v == nil {
		done(errs.New(errs.Invalid, "no verb %.32q; there is %s", name,
			strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		return
	}
	v(call, func(err error) {
		t.cfg.Log.Debug().Str("verb", name).Stringer("who", n.v.who).Err(err).Msg("ctl")
		done(err)
	})
}

// longest is a whole VM in JSON, with room for the properties, and for what escaping adds: a
// control character takes six bytes, and a guest that has filled its VM with them must not
// keep it from being imported.
func (n *ctlFile) longest() (int, errs.Kind) {
	const unlimited = 256 << 20
	if lim := n.v.tree.store.Limits().Bytes; lim > 0 && lim < unlimited/8 {
		return max(int(8*lim), 64<<10), errs.TooLarge
	}
	return unlimited, errs.TooLarge
}

// refused has nothing: the state is read.
func (n *ctlFile) refused(error) []byte { return nil }

// reserve has no limit: only the admin has a ctl.
func (n *ctlFile) reserve(int) error { return nil }

func (n *ctlFile) view() *View { return n.v }

func createVM(call Call, done func(error)) {
	call.submit(&store.Intent{Kind: store.CreateVM, Data: call.Arg}, done)
}

func updateVM(call Call, done func(error)) {
	call.submit(&store.Intent{Kind: store.UpdateVM, Cell: call.Cell, Data: call.Arg}, done)
}

func deleteVM(call Call, done func(error)) {
	if call.Arg != "" {
		done(errs.New(errs.Invalid, "delete takes nothing more here"))
		return
	}
	call.submit(&store.Intent{Kind: store.DeleteVM, Cell: call.Cell}, done)
}

// updateUUID is update UUID JSON.
func updateUUID(call Call, done func(error)) {
	if call, ok := call.of(done); ok {
		updateVM(call, done)
	}
}

// deleteUUID is delete UUID.
func deleteUUID(call Call, done func(error)) {
	if call, ok := call.of(done); ok {
		deleteVM(call, done)
	}
}

// of is the call for the VM that its first word names; it tells done where there
// is none.
func (c Call) of(done func(error)) (Call, bool) {
	word, rest, _ := strings.Cut(c.Arg, " ")
	uuid, err := vm.ParseUUID(word)
	if err != nil {
		done(err)
		return c, false
	}
	c.Cell, c.Arg = c.View.tree.store.Cell(uuid), strings.TrimSpace(rest)
	if c.Cell == nil {
		done(errs.New(errs.NotFound, "there is no VM %s", uuid))
		return c, false
	}
	return c, true
}

// submit sends an intent on a VM, or that makes one. A VM that is made is answered when its
// channels are there as well, so that who started it may start its QEMU at once.
func (c Call) submit(in *store.Intent, done func(error)) {
	in.By, in.As = c.By.By, c.By.As
	in.Done = func(r store.Result) {
		made := c.View.tree.cfg.Made
		switch {
		case r.Err != nil:
		case in.Kind == store.UpdateVM:
			c.View.note(commit{cell: in.Cell})
		case in.Kind == store.CreateVM && made != nil:
			made(r.Cell.UUID(), func() { done(nil) })
			return
		}
		done(r.Err)
	}
	c.View.tree.store.Submit(in)
}

// status is what reading ctl gives: lines of a name and a value.
func (n *ctlFile) status() ([]byte, error) {
	if n.dir == nil {
		return n.v.tree.status(), nil
	}
	m, err := n.dir.vm()
	if err != nil {
		return nil, err
	}
	b := fmt.Appendf(nil, "uuid %s\n", m.UUID)
	if m.Alias() != "" {
		b = fmt.Appendf(b, "alias %q\n", m.Alias())
	}
	if m.State() != "" {
		b = fmt.Appendf(b, "state %s\n", m.State())
	}
	b = fmt.Appendf(b, "keys %d\nbytes %d\nbytes_limit %d\nrev %d\n", m.Count(), m.Bytes(), n.v.tree.store.Limits().Bytes, m.Rev)
	if more := n.v.tree.cfg.VMStatus; more != nil {
		b = append(b, more(m.UUID)...)
	}
	return b, nil
}

func (t *Tree) status() []byte {
	health, err := "ok", t.store.Err()
	if err == nil && t.cfg.Trouble != nil {
		err = t.cfg.Trouble()
	}
	if err != nil {
		health = strings.ReplaceAll(err.Error(), "\n", " ")
	}
	b := fmt.Appendf(nil, "version %s\nuptime %d\nvms %d\nkeys %d\nbytes %d\nrev %d\nhealth %s\n",
		t.cfg.Version, int64(t.cfg.Now().Sub(t.started)/time.Second),
		t.store.Count(), t.keys(), t.store.Bytes(), t.store.Rev(), health)
	if t.cfg.Status != nil {
		b = append(b, t.cfg.Status()...)
	}
	return b
}

// keys counts the keys of all VMs.
func (t *Tree) keys() int {
	n := 0
	t.store.Cells(0, func(c *store.Cell) bool {
		if m := c.VM(); m != nil {
			n += m.Count()
		}
		return true
	})
	return n
}
