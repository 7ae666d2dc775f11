package server

import (
	"strconv"
	"sync"
	"time"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// line is the change of one VM by one commit, or by several (join). Only what feed.mu
// guards changes once the feed has it.
type line struct {
	vm       uint64 // its ID
	uuid     string
	zonename string
	date     time.Time

	what kind
	// from is the VM before; nil: it is not kept in memory. to is the VM after; nil: it
	// was deleted.
	from, to *vm.VM

	first  uint64 // the revision of its first change
	rev    uint64 // the revision of its last change; if late, that of the line before it
	seq    uint64 // its place in the feed; 0: not published yet
	middle uint64 // the place of the first line that it was joined from; 0: none was published
	late   bool   // it was pending while something newer was published

	weight int64 // of its text, roughly
	texts  [4]text

	// Guarded by feed.mu.
	size  int64 // what it keeps alive
	users int   // listeners that are reading it
	gone  bool  // it was removed from the feed
}

// text is one form of a line, without the brace that ends it.
type text struct {
	once  sync.Once
	bytes []byte // nil: in this form nothing has changed
}

const (
	lineBytes  = 512       // that a line takes beside what it keeps alive, and its head
	largeText  = 256 << 10 // is made for each listener, on the way: to keep it would take too much
	pieceBytes = 32 << 10  // of such a text, at a time
)

// kind is what became of the VM.
type kind int

const (
	modified kind = iota
	created
	deleted
)

// newLine is the line of one commit: from nil: the VM was created; to nil: deleted.
func newLine(rev uint64, date time.Time, from, to *vm.VM) *line {
	l := &line{rev: rev, first: rev, date: date, from: from, to: to}
	m := to
	switch {
	case from == nil:
		l.what = created
	case to == nil:
		l.what = deleted
		m = from
	}
	l.vm, l.uuid, l.zonename = m.ID, m.UUID, zonename(m)
	l.measureKept()
	if l.what == deleted {
		l.size += from.Size() // an earlier line may keep it in memory
		l.from = nil
	}
	return l
}

// join makes one line of two lines of a VM, neither of which is its creation, at the
// place of the newer. It changes neither. A listener that has the older line gets its
// changes again, since the state between the two is not kept.
func join(a, b *line) *line {
	l := b.retold(b.to)
	l.first, l.middle = a.first, a.middle
	if l.middle == 0 {
		l.middle = a.seq
	}
	if l.to != nil {
		l.from = a.from
	}
	l.measureKept()
	return l
}

// retold is a copy of the line without texts and without the VM before it, and with
// another VM after it.
func (l *line) retold(to *vm.VM) *line {
	other := &line{
		vm: l.vm, uuid: l.uuid, zonename: l.zonename, date: l.date, what: l.what, to: to,
		first: l.first, rev: l.rev, seq: l.seq, middle: l.middle, late: l.late,
	}
	other.measureKept()
	return other
}

// measureKept computes what the line keeps in memory: the values that only the VM before
// it has.
func (l *line) measureKept() {
	l.size, l.weight = lineBytes, lineBytes
	if l.to == nil {
		return
	}
	if l.from != nil {
		l.size += l.from.Alone(l.to)
	}
	l.weight += l.to.Size() + 2*(l.size-lineBytes)
}

// coveredBy tells whether a snapshot of that revision, or a listener that has all up to
// it, has the line's changes already.
func (l *line) coveredBy(rev uint64) bool { return l.rev < rev || l.rev == rev && !l.late }

// large tells whether the line's text is made for each listener and not kept.
func (l *line) large() bool { return l.weight > largeText }

// view is the index of a form of text by Access.Internal.
func view(internal bool) int {
	if internal {
		return 1
	}
	return 0
}

// text is the line as listeners with that access see it, without the brace that ends it;
// nil: nothing has changed for them. made: this call has made it.
func (l *line) text(internal, inside bool) (b []byte, made bool) {
	t := &l.texts[2*view(inside)+view(internal)]
	t.once.Do(func() {
		made = true
		var p ordjson.Pieces
		if l.write(&p, internal, inside) {
			t.bytes = p.Text
		}
	})
	return t.bytes, made
}

// visible is the VM, which may be nil, as clients with that access see it. It always has
// a zonename, since vminfod's clients use that as the key of a VM.
func visible(m *vm.VM, internal bool) *vm.VM {
	switch {
	case m == nil:
		return nil
	case internal:
		return m.Named()
	}
	return m.Public().Named()
}

// write appends the line; false: nothing visible has changed, and nothing is appended.
func (l *line) write(p *ordjson.Pieces, internal, inside bool) bool {
	from, to := visible(l.from, internal), visible(l.to, internal)
	switch l.what {
	case created:
		l.head(p, vminfo.Create)
		p.Text = append(p.Text, `,"vm":`...)
		to.WriteJSON(p, false)
		return true
	case deleted:
		l.head(p, vminfo.Delete)
		return true
	}
	var changes []difference
	if from != nil {
		var same bool
		if changes, same = differences(from, to); same && !inside {
			return false // a key's mode or time, or what is not shown
		}
	}
	l.head(p, vminfo.Modify)
	p.Text = append(p.Text, `,"vm":`...)
	to.WriteJSON(p, false)
	p.Text = append(p.Text, `,"changes":[`...)
	for i, d := range changes {
		if i > 0 {
			p.Text = append(p.Text, ',')
		}
		p.Value(d.value())
	}
	p.Text = append(p.Text, ']')
	return true
}

// head begins the line.
func (l *line) head(p *ordjson.Pieces, kind string) {
	p.Text = appendHead(p.Text, kind, l.date)
	p.Text = appendText(appendText(p.Text, "zonename", l.zonename), "uuid", l.uuid)
}

// appendHead begins an object as every event begins.
func appendHead(b []byte, kind string, date time.Time) []byte {
	b = append(append(b, `{"type":"`...), kind...)
	b = append(b, `","date":"`...)
	return append(date.UTC().AppendFormat(b, vminfo.DateFormat), '"')
}

// appendText appends a member after others.
func appendText(b []byte, name, value string) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	return ordjson.Value{Kind: ordjson.String, Text: value}.AppendJSON(b)
}

// appendTail ends an event; with its revision, for a listener that asked for it.
func appendTail(b []byte, withRev bool, rev uint64) []byte {
	if withRev {
		b = strconv.AppendUint(append(b, `,"rev":`...), rev, 10)
	}
	return append(b, '}', '\n')
}

// zonename is the VM's name in vminfod's paths and events.
func zonename(m *vm.VM) string {
	if name := m.Text(vm.PropZonename); name != "" {
		return name
	}
	return m.UUID
}
