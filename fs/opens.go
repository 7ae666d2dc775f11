package fs

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"meta9/fs/budget"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// opens has the files that are open for reading, by VM, so that the committer can count
// the old values that they pin. Its mutexes are taken when a file is opened or closed, at a
// commit, and by the first reader of a new value; never two of them at a time.
type opens struct {
	limit  int64 // vm.Limits.Bytes; 0: none
	budget *budget.Budget

	mu     sync.Mutex // guards tables, paid and every table's opens
	tables map[*store.Cell]*openTable
	paid   map[*budget.Account]*openTable // by their account
}

// openTable is the open files of one VM.
type openTable struct {
	cell    *store.Cell
	account *budget.Account // the VM's
	admin   *budget.Account // of what is made for the admin alone
	opens   int

	mu    sync.Mutex // guards files, lists, what is published in them, and old
	files map[fileKey]*openFile
	lists [2]int     // how many of the files are listings, those of the guest last
	old   []*version // oldest first; some may be unused by now

	oldBytes  atomic.Int64 // what the old versions that are used cost, without listings
	listBytes atomic.Int64 // what those of listings do
	oldCount  atomic.Int64
}

// fileKey tells open files apart. Guest and admin have separate ones, since they
// do not see the same.
type fileKey struct {
	path  uint64 // qid.path
	guest bool
	form  formKey // of a folder: its listing
}

// openFile is one file that is open for reading, by one Handle or more.
type openFile struct {
	table  *openTable
	key    fileKey
	space  vm.Space
	derive *deriver // nil: a key
	opens  int      // guarded by table.mu
	gone   bool     // the key was removed; guarded by table.mu

	renewing sync.Mutex              // lets one at a time compute a derived file
	cur      atomic.Pointer[version] // the newest known; nil: not looked up yet
}

// deriver computes the content of a derived file.
type deriver struct {
	// text makes it, of size bytes; ok is false when there is none.
	text func(m *vm.VM, size int) (content string, ok bool)
	// size is how long it is, without making it; nil: it is never long.
	size func(m *vm.VM) int
}

// maxLists is how many listings of one VM are open at a time: of folders, dialects and
// Looks, which a guest chooses. At each commit the committer looks at all of them. The admin
// may have as many beside the guest.
const maxLists = 128

// open finds or makes the openFile, and counts one more user of it; nil: it would be one
// listing too many (tooMany).
func (o *opens) open(c *store.Cell, k fileKey, s vm.Space, d *deriver) *openFile {
	o.mu.Lock()
	t := o.tables[c]
	if t == nil {
		t = &openTable{cell: c, account: o.budget.Account(c.UUID()), admin: o.budget.Admin(), files: make(map[fileKey]*openFile)}
		o.tables[c] = t
		if t.account != nil {
			o.paid[t.account] = t
		}
	}
	t.opens++
	o.mu.Unlock()

	f := t.open(k, s, d)
	if f == nil {
		o.leave(t)
	}
	return f
}

// tooMany says that a listing is not to be had.
func tooMany() error {
	return errs.New(errs.Again, "%d listings of the VM are open, which differ in folder, dialect or owner (aname uid=, gid=, mode=)", maxLists)
}

// open is opens.open in the table.
func (t *openTable) open(k fileKey, s vm.Space, d *deriver) *openFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[k]
	if f == nil {
		f = &openFile{table: t, key: k, space: s, derive: d}
		if f.lists() {
			n := t.listsOf(f)
			if *n >= maxLists {
				return nil
			}
			*n++
		}
		t.files[k] = f
	}
	f.opens++
	return f
}

// listsOf is the number of listings that f is one of.
func (t *openTable) listsOf(f *openFile) *int {
	if f.key.guest {
		return &t.lists[1]
	}
	return &t.lists[0]
}

// close undoes one open.
func (o *opens) close(f *openFile) {
	t := f.table
	t.mu.Lock()
	f.opens--
	if f.opens == 0 {
		f.set(nil)
		delete(t.files, f.key)
		if f.lists() {
			*t.listsOf(f)--
		}
	}
	t.mu.Unlock()
	o.leave(t)
}

// leave counts one out who has opened something in the table.
func (o *opens) leave(t *openTable) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t.opens--
	if t.opens == 0 {
		delete(o.tables, t.cell)
		if o.paid[t.account] == t { // a VM of the same UUID may have one, too
			delete(o.paid, t.account)
		}
		t.account.Close()
	}
}

// committed retires what the commit replaced, and drops old values past the
// limit. It runs in the committer.
func (o *opens) committed(c store.Committed) {
	o.mu.Lock()
	t := o.tables[c.Cell]
	o.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.After == nil {
		t.close()
		return
	}
	t.refresh(c)
	o.trim(t, c.After)
	if t.account.Over() > 0 {
		t.trimLists(t.account)
	}
}

// trim drops old values of the VM m past the limit, and those that its account has no bytes for.
// t.mu is held.
func (o *opens) trim(t *openTable, m *vm.VM) {
	if o.limit > 0 {
		t.trim(o.limit - m.Bytes())
	}
	if over := t.account.Over(); over > 0 {
		t.trim(max(0, t.oldBytes.Load()-over))
	}
}

// giveBack drops the old values of a VM, so that its account has bytes for other VMs.
func (o *opens) giveBack(c *store.Cell) {
	o.mu.Lock()
	t := o.tables[c]
	o.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.trim(0)
		t.trimLists(t.account)
	}
}

// evict drops derived content that nobody reads and that this account (nil: any) has paid
// for.
func (o *opens) evict(a *budget.Account) {
	var tables []*openTable
	o.mu.Lock()
	if t := o.paid[a]; t != nil {
		tables = append(tables, t)
	} else if a == nil || a == o.budget.Admin() {
		tables = slices.AppendSeq(tables, maps.Values(o.tables))
	}
	o.mu.Unlock()
	for _, t := range tables {
		t.evict(a)
	}
}

func (t *openTable) evict(a *budget.Account) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.files {
		if p := f.cur.Load(); p != nil && f.derive != nil && p.paid && (a == nil || p.bill == a) && p.state.Load() == 0 {
			f.set(nil)
		}
	}
}

// refresh brings the open files up to date with a commit. t.mu is held.
func (t *openTable) refresh(c store.Committed) {
	for _, f := range t.files {
		if f.derive != nil {
			f.set(nil)
		}
	}
	for i := range c.Changes {
		ch := &c.Changes[i]
		if c.Before == nil || ch.Type != vm.KeySet && ch.Type != vm.KeyRemoved {
			continue
		}
		// Whatever changed an entry named it as it was called before; an entry that
		// is new in this commit is open nowhere.
		was := c.Before.Get(ch.Space, ch.Key)
		if was == nil {
			continue
		}
		for _, guest := range [...]bool{false, true} {
			if f := t.files[fileKey{path: was.ID, guest: guest}]; f != nil {
				f.update(c.After)
			}
		}
	}
}

// close ends every open file of a VM that was deleted. t.mu is held.
func (t *openTable) close() {
	for _, f := range t.files {
		f.gone = true
		f.set(nil)
	}
	t.trim(-1)
	t.trimLists(nil)
}

// update makes what m has of the key the newest version. An ID never comes back, so
// a key that is gone stays gone; one that is hidden may come back. table.mu is held.
func (f *openFile) update(m *vm.VM) {
	e := m.GetID(f.space, f.key.path)
	if e == nil {
		f.gone = true
	}
	if e == nil || f.hides(m, e) {
		f.publish(nil)
		return
	}
	f.publish(newVersion(f.table, e))
}

// publish makes p (nil: nothing) the newest version, unless a newer one is there,
// and returns the newest. table.mu is held.
func (f *openFile) publish(p *version) *version {
	cur := f.cur.Load()
	switch {
	case p == nil || f.gone || f.opens == 0:
		return f.set(nil)
	case cur != nil && cur.rev >= p.rev:
		return cur
	}
	return f.set(p)
}

// set replaces cur and retires what was there. table.mu is held.
func (f *openFile) set(p *version) *version {
	if old := f.cur.Swap(p); old != nil {
		f.table.retire(old)
	}
	return p
}

// hides tells whether the file's readers may no longer see the entry: a key that
// an admin gave a name that is not a guest's.
func (f *openFile) hides(m *vm.VM, e *vm.Entry) bool {
	return f.key.guest && f.derive == nil && !m.GuestSees(f.space, e.Name)
}

// newest is the version that is current now; nil when there is none any more. It takes a
// lock only where a commit made a new value that nobody has read yet. It compares with the
// VM's row, not only cur: a client must read what was acknowledged to it, and a commit is
// acknowledged before cur is updated. errs.Again: there is no memory for a new version.
//
// room is how many bytes the caller has taken from the account already, nil for none; what
// is used of them is subtracted.
func (f *openFile) newest(room *int64) (*version, error) {
	m := f.table.cell.VM()
	if m == nil {
		return nil, nil
	}
	rev := m.Rev
	if f.derive == nil {
		e := m.GetID(f.space, f.key.path)
		if e == nil {
			return nil, nil
		}
		rev = e.Rev
	}
	if p := f.cur.Load(); p != nil && p.rev >= rev {
		return p, nil
	}
	return f.renew(room)
}

// renew looks at the VM anew and publishes what it has of the file. What it has
// looked at may be old by then; publish decides by the revision.
func (f *openFile) renew(room *int64) (*version, error) {
	f.renewing.Lock()
	defer f.renewing.Unlock()
	m := f.table.cell.VM()
	if m == nil {
		return nil, nil
	}
	if p := f.cur.Load(); f.derive != nil && p != nil && p.rev >= m.Rev {
		return p, nil // another goroutine computed it meanwhile
	}
	p, err := f.version(m, room)
	if p == nil {
		return nil, err
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	now := f.publish(p)
	if now != p && p.paid {
		p.bill.Release(p.cost)
	}
	return now, nil
}

// smallDerived is up to where the bytes of a derived file are not counted. Those of a
// listing always are: there may be many of one folder.
const smallDerived = 16 << 10

// version is what m has of the file: a key's entry, or for a derived file an Entry
// that no VM has, at the VM's revision; nil: nothing. A long one is taken from its
// reader's account before it is made, in which the old ones make room.
func (f *openFile) version(m *vm.VM, room *int64) (*version, error) {
	if f.derive == nil {
		e := m.GetID(f.space, f.key.path)
		if e == nil || f.hides(m, e) {
			return nil, nil
		}
		return newVersion(f.table, e), nil
	}
	account := f.table.account
	if !f.key.guest {
		account = f.table.admin
	}
	var size int
	var cost int64
	if f.derive.size != nil {
		size = f.derive.size(m)
	}
	if size > smallDerived || f.lists() {
		cost = int64(size) + pinCost
		if err := f.pays(account, cost, room); err != nil {
			return nil, err
		}
	}
	text, ok := f.derive.text(m, size)
	if !ok {
		account.Release(cost)
		return nil, nil
	}
	p := newVersion(f.table, &vm.Entry{ID: f.key.path, Rev: m.Rev, Mtime: m.Mtime, Value: text})
	p.bill, p.listing = account, f.lists()
	if cost > 0 {
		p.cost, p.paid = cost, true
	}
	return p, nil
}

// pays takes n bytes of the account, the caller's room first.
func (f *openFile) pays(account *budget.Account, n int64, room *int64) error {
	if room != nil {
		if *room >= n {
			*room -= n
			return nil
		}
	}
	err := account.Try(n)
	if err != nil {
		f.table.mu.Lock()
		f.table.trim(0)
		f.table.mu.Unlock()
		err = account.Try(n)
	}
	if err != nil {
		return &ShortError{n, err}
	}
	return nil
}

// lists tells whether it is a folder, whose listing it has.
func (f *openFile) lists() bool { return f.key.form.id != 0 }
