package fs

import (
	"strings"
	"sync"
	"sync/atomic"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// View is the tree as one connection, or one client of a bridge, sees it: who it
// is, the files that it holds open, and the truncations that only it sees yet. It
// belongs to one goroutine at a time (see the package comment); only the fields
// below mu are touched by the committer.
type View struct {
	receipt func(number uint64, r store.Result) // of the next intent; nil: none
	tree    *Tree
	who     Principal
	readers *reader                  // all that are open, the newest first
	holds   map[uint64][]*store.Hold // held truncations by Entry.ID
	closed  bool
	turn    uint32     // of the last Meter
	answers []*Pending // to what the step that is taken now has asked before
	recent  *recent    // nil: nothing

	unsettled atomic.Bool
	mu        sync.Mutex // guards the rest
	commits   []commit
	created   []*keyHandle
}

// recent is what a View has asked for last, while it is not parked.
type recent struct {
	derived [4]*reader // files, with nothing pinned
	oldest  int        // of derived
	perms   struct {   // of a VM, by numbers: a row would keep its values
		id, rev uint64
		perm    vm.Perm
	}
}

func (v *View) asks() *recent {
	if v.recent == nil {
		v.recent = new(recent)
	}
	return v.recent
}

// commit is what a change of this View did, until Settle: to one key, or with ID
// 0 to all keys of the VM, or without a Cell to any.
type commit struct {
	cell *store.Cell
	id   uint64
}

// maxCommits is how many commits are kept for Settle one by one; past it, all keys count
// as changed.
const maxCommits = 64

// maxUname is the longest name that an attach may give, since it is kept in the
// event of every change that is made from there.
const maxUname = 255

// maxNames is how many names a path has at most (9P's MAXWELEM).
const maxNames = 16

// View makes a view of the tree for p. It costs little until something is opened;
// Close it in the end.
func (t *Tree) View(p Principal) *View {
	return &View{tree: t, who: p}
}

func (v *View) guest() bool { return !v.who.Admin }

// Attach gives the place that aname names: "" or "/" is the principal's root,
// anything else a path below it, with or without a slash in front, and before that
// options for how files look from there (Look). uname goes into
// the events of what is done from there (Author.As), and gives no rights. Errors: AuthFailed
// for nobody, NotFound, NotDir when aname is a file, NameTooLong for the uname,
// Invalid for an option.
func (v *View) Attach(uname, aname string) (*Ref, error) {
	uname = strings.ToValidUTF8(uname, "\uFFFD") // it goes into events, which are JSON
	if len(uname) > maxUname {
		return nil, errs.New(errs.NameTooLong, "a user name is at most %d bytes", maxUname)
	}
	r, err := v.root(uname)
	if err != nil {
		return nil, err
	}
	look, names, err := cutLook(strings.FieldsFunc(aname, func(c rune) bool { return c == '/' }))
	switch {
	case err != nil:
		return nil, err
	case len(names) > maxNames:
		return nil, errs.New(errs.NotFound, "a path has at most %d names", maxNames)
	}
	r.look = look
	for _, name := range names {
		if r, err = r.Walk(name); err != nil {
			return nil, err
		}
	}
	if !r.IsDir() {
		return nil, errs.NotDir
	}
	r.top = true
	return r, nil
}

// author is the View's principal under the name that an attach gave.
func (v *View) author(uname string) *Author { return &Author{By: v.who.String(), As: uname} }

// root is the principal's root.
func (v *View) root(uname string) (*Ref, error) {
	r := &Ref{view: v, name: "/", by: v.author(uname)}
	switch {
	case v.who.Nobody():
		return nil, errs.New(errs.AuthFailed, "this channel proves nobody")
	case v.who.Admin:
		r.node = newRootDir(v)
		return r, nil
	}
	cell := v.tree.store.Cell(v.who.VM)
	if cell == nil {
		return nil, errs.New(errs.NotFound, "there is no VM %s", v.who.VM)
	}
	r.node = newVMDir(v, cell, "/")
	return r, nil
}

// Receipt gives the next intent on a key its Receipt (store.Intent): that of the request
// that is about to ask for one. nil: none.
func (v *View) Receipt(receipt func(number uint64, r store.Result)) { v.receipt = receipt }

// submit is send for an intent on a key, which gets the Receipt.
func (v *View) submit(in *store.Intent, done func(store.Result)) {
	in.Receipt, v.receipt = v.receipt, nil
	v.send(in, done)
}

// send sends an intent of this View's; done runs in the committer, once the commit is noted
// for Settle. One that changes nothing (the same name, a create that finds the key) gives an
// Entry from before. send may be called from any goroutine.
func (v *View) send(in *store.Intent, done func(store.Result)) {
	cell, rev := in.Cell, v.tree.store.Rev()
	in.Guest = v.guest()
	in.Done = func(res store.Result) {
		if res.Err == nil && res.Entry != nil && res.Entry.Rev > rev {
			v.note(commit{cell, res.Entry.ID})
		}
		done(res)
	}
	v.tree.store.Submit(in)
}

// note keeps a commit for Settle. It is called in the committer, which must not
// touch the readers: their View's goroutine may be using them.
func (v *View) note(c commit) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.commits) >= maxCommits {
		v.commits = append(v.commits[:0], commit{})
	} else {
		v.commits = append(v.commits, c)
	}
	v.unsettled.Store(true)
}

// noteCreated keeps a handle that a create made for Settle to enter.
func (v *View) noteCreated(h *keyHandle) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.created = append(v.created, h)
	v.unsettled.Store(true)
}

// Settle applies what this View's own commits mean for it: open files on a key
// that it changed read the new value from now on, and files that it created
// become readable. The caller calls it with its lock held, after done functions
// ran and before it answers.
func (v *View) Settle() {
	if !v.unsettled.Load() {
		return
	}
	v.mu.Lock()
	commits, created := v.commits, v.created
	v.commits, v.created = nil, nil
	v.unsettled.Store(false)
	v.mu.Unlock()
	for _, h := range created {
		h.enter()
	}
	for _, c := range commits {
		v.retake(c)
	}
}

// retake lets every open reader of what was committed read the newest value.
func (v *View) retake(c commit) {
	for r := v.readers; r != nil; r = r.next {
		if c.matches(r.file) {
			r.retake(nil)
		}
	}
}

func (c commit) matches(f *openFile) bool {
	switch {
	case f.derive != nil:
		return false
	case c.cell == nil:
		return true
	case c.id == 0:
		return c.cell == f.table.cell
	}
	return c.id == f.key.path
}

// Truncates tells whether this View may hold a truncation of any key.
func (v *View) Truncates() bool { return len(v.holds) > 0 }

// Empties tells whether this View sees the key as empty (held).
func (v *View) Empties(id uint64) bool { return v.Truncates() && v.held(id) }

// held tells whether this View sees the key as empty, since it holds a truncation
// of it. When the hold has ended by a commit, open files read what that made.
func (v *View) held(id uint64) bool {
	holds, ok := v.holds[id]
	if !ok {
		return false
	}
	for _, h := range holds {
		if h.Active() {
			return true
		}
	}
	delete(v.holds, id)
	for r := v.readers; r != nil; r = r.next {
		if r.file.derive == nil && r.file.key.path == id {
			r.retake(nil)
		}
	}
	return false
}

// hold registers a truncation of the key. errs.Gone: the key is no longer there.
func (v *View) hold(c *store.Cell, s vm.Space, id uint64) (*store.Hold, error) {
	h := v.tree.store.Hold(c, s, id, v.guest())
	if !h.Active() {
		return nil, errs.Gone
	}
	if v.holds == nil {
		v.holds = make(map[uint64][]*store.Hold)
	}
	var live []*store.Hold
	for _, other := range v.holds[id] {
		if other.Active() {
			live = append(live, other)
		}
	}
	v.holds[id] = append(live, h)
	return h, nil
}

// withDerived calls use with what a file derives from the VM as it is now, made by
// whoever asks first at its revision. The file stays open for the next who asks, here
// or by another View, so that what was made stays too as long as the VM does not change
// and there is memory. false: there is nothing, no memory for it, or too many listings.
func (v *View) withDerived(c *store.Cell, k fileKey, derive func() *deriver, use func(e *vm.Entry) error) (used bool, err error) {
	r := v.keptFor(c, k)
	if r == nil {
		file := v.tree.opens.open(c, k, 0, derive())
		if file == nil {
			return false, nil
		}
		r = new(reader)
		r.enter(v, file)
		last := v.asks()
		if old := last.derived[last.oldest]; old != nil {
			old.close()
		}
		last.derived[last.oldest] = r
		last.oldest = (last.oldest + 1) % len(last.derived)
	}
	defer r.unpin()
	e := r.retake(nil)
	if e == nil || r.err != nil {
		return false, nil
	}
	return true, use(e)
}

func (v *View) keptFor(c *store.Cell, k fileKey) *reader {
	for _, r := range v.asks().derived {
		if r != nil && r.file != nil && r.file.key == k && r.file.table.cell == c {
			return r
		}
	}
	return nil
}

// Park lets go of derived files that are open; they are made anew when they are read
// again. Everything else stays: held truncations, listings that are being read, and the
// values of keys, so that who reads one in pieces does not get the head of one value and the
// tail of another when the transport is lost in between. Old values that parked sessions pin
// count against the VM's bytes as others do, and go when those run out.
func (v *View) Park() {
	if v.recent != nil {
		for _, r := range v.recent.derived {
			if r != nil {
				r.close()
			}
		}
		v.recent = nil
	}
	for r := v.readers; r != nil; r = r.next {
		if r.file != nil && r.file.derive != nil && !r.file.lists() {
			r.unpin()
		}
	}
}

// Close ends every open file without a clunk: held truncations are forgotten.
// Requests on the way still call their done functions.
func (v *View) Close() {
	v.closed = true
	for v.readers != nil {
		v.readers.close()
	}
	var all []*store.Hold
	for _, holds := range v.holds {
		all = append(all, holds...)
	}
	store.DropAll(all)
	v.holds = nil
	v.Settle()
}
