package fs

import (
	"strconv"
	"sync"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// txnFile is txn of one VM (docs/tree.md, "Transactions"): each line that is written is
// a transaction, and a read of the same Handle gives what became of the last one.
type txnFile struct{ dir *vmDir }

func (n *txnFile) QID() p9.QID { return n.dir.streamQID(slotTxn, 0) }

func (n *txnFile) Stat(st *Stat) error {
	return n.dir.v.statStream(st, n.QID(), n.dir, "txn", 0o600)
}

// Open needs nothing; truncation is ignored.
func (n *txnFile) Open(f Flags) (Handle, error) {
	if _, err := n.dir.vm(); err != nil {
		return nil, err
	}
	return newLineHandle(n, f, func() ([]byte, error) { return nil, nil }), nil
}

// AppendValue appends nothing: there is no value before a transaction.
func (n *txnFile) AppendValue(b []byte, _ int) ([]byte, error) { return b, nil }

// PutValue does the lines of data; its end ends the last one.
func (n *txnFile) PutValue(data []byte, by Author, done func(error)) {
	putLines(n, data, by, done)
}

// SetStat is setLineFile.
func (n *txnFile) SetStat(c Change, _ Author, done func(error)) { setLineFile(n, c, done) }

func (n *txnFile) longest() (int, errs.Kind) { return vm.MaxTxn, errs.Invalid }

func (n *txnFile) refused(err error) []byte { return appendRefused(nil, nil, err) }

func (n *txnFile) reserve(more int) error {
	if n.dir.v.who.Admin {
		return nil
	}
	return n.dir.v.tree.unended.add(n.dir.cell, more)
}

func (n *txnFile) view() *View { return n.dir.v }

// run does one transaction.
func (n *txnFile) run(line []byte, by Author, answer func([]byte), done func(error)) {
	refuse := func(t *store.Transaction, err error) {
		answer(appendRefused(nil, t, err))
		done(err)
	}
	m, err := n.dir.vm()
	if err != nil {
		refuse(nil, err)
		return
	}
	space := func(string) vm.Space { return vm.Keys }
	if n.dir.v.guest() {
		space = m.GuestSpace
	}
	t, err := parseTxn(line, space)
	if err != nil {
		refuse(nil, err)
		return
	}
	in := &store.Intent{Kind: store.Txn, Cell: n.dir.cell, Txn: t, By: by.By, As: by.As}
	n.dir.v.send(in, func(r store.Result) {
		if r.Err != nil {
			refuse(t, r.Err)
			return
		}
		n.dir.v.note(commit{cell: n.dir.cell})
		answer(appendDone(nil, t))
		done(nil)
	})
}

// appendDone appends the line that says what a transaction has made of each key.
func appendDone(b []byte, t *store.Transaction) []byte {
	b = strconv.AppendUint(append(b, `{"rev":`...), t.Rev, 10)
	b = append(b, `,"done":[`...)
	for i := range t.Do {
		if i > 0 {
			b = append(b, ',')
		}
		part, e := &t.Do[i], t.Entries[i]
		if e == nil {
			b = append(appendKey(append(b, '{'), part.Space, part.Name), `,"removed":true}`...)
			continue
		}
		b = append(appendFound(append(b, '{'), part.Space, e), '}')
	}
	return append(b, ']', '}', '\n')
}

// appendRefused appends the line that says why nothing was done: for a condition that
// does not hold also of which key, and what that is now.
func appendRefused(b []byte, t *store.Transaction, err error) []byte {
	b = ordjson.Str(err.Error()).AppendJSON(append(b, `{"error":`...))
	switch {
	case t == nil || t.Failed == nil:
	case t.Found == nil:
		b = append(appendKey(append(b, ','), t.Failed.Space, t.Failed.Name), `,"absent":true`...)
	default:
		b = appendFound(append(b, ','), t.Failed.Space, t.Found)
	}
	return append(b, '}', '\n')
}

func appendKey(b []byte, s vm.Space, name string) []byte {
	b = ordjson.Str(name).AppendJSON(append(b, `"key":`...))
	if s != vm.Keys {
		b = appendMember(b, "space", s.String())
	}
	return b
}

func appendFound(b []byte, s vm.Space, e *vm.Entry) []byte {
	b = append(appendKey(b, s, e.Name), `,"version":`...)
	b = strconv.AppendUint(b, uint64(vm.Version(e.Rev)), 10)
	return strconv.AppendUint(append(b, `,"rev":`...), e.Rev, 10)
}

// unended counts, for each VM, the bytes of transactions that its guests have begun to
// write and not ended: a guest may leave one unended for ever. At most vm.MaxTxn a VM.
type unended struct {
	mu sync.Mutex
	of map[*store.Cell]int
}

// add counts more bytes, or fewer. errs.Again: they would be too many.
func (l *unended) add(c *store.Cell, more int) error {
	if more == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.of[c] + more
	switch {
	case more > 0 && n > vm.MaxTxn:
		return errs.New(errs.Again, "%d bytes of transactions of this VM are begun and not ended, %d is its limit", l.of[c], vm.MaxTxn)
	case n == 0:
		delete(l.of, c)
		return nil
	}
	if l.of == nil {
		l.of = make(map[*store.Cell]int)
	}
	l.of[c] = n
	return nil
}
