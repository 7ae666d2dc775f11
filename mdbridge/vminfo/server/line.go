package server

import (
	"strconv"
	"sync"
	"time"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// line is what became of one VM by one commit, or by several (join). All but what feed.mu
// guards stays as it is once the feed has it.
type line struct {
	vm       uint64 // its ID
	uuid     string
	zonename string
	date     time.Time

	what kind
	// from is the VM before; nil: that is not kept. to is the VM after; nil: it was
	// deleted.
	from, to *vm.VM

	first  uint64 // the revision of the first change in it
	rev    uint64 // of the last; where it was late, of what was told before it
	seq    uint64 // its place in the feed; 0: it is not there yet
	middle uint64 // the place of the first line that it was joined of; 0: none was told
	late   bool   // it has waited, and something newer was told before it

	weight int64 // of its text, roughly
	texts  [4]text

	// Guarded by feed.mu.
	size  int64 // what it keeps alive
	users int   // listeners that are taking it
	gone  bool  // the feed keeps it no longer
}

// text is one form of a line, without the brace that ends it.
type text struct {
	once  sync.Once
	bytes []byte // nil: this form has nothing to tell
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

// newLine is that of one commit: from nil, the VM was created; to nil, it was deleted.
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
	l.measure()
	if l.what == deleted {
		l.size += from.Size() // it stays in memory for as long as a line before this one has it
		l.from = nil
	}
	return l
}

// join is two lines of one VM, none of which is its creation, as one in the place of the
// newer. Neither is changed. Who has taken the older already is told of all changes
// again, since what the VM was between is not kept.
func join(a, b *line) *line {
	l := b.telling(b.to)
	l.first, l.middle = a.first, a.middle
	if l.middle == 0 {
		l.middle = a.seq
	}
	if l.to != nil {
		l.from = a.from
	}
	l.measure()
	return l
}

// telling is the line without what the VM was before and without texts, and with another
// VM after it.
func (l *line) telling(to *vm.VM) *line {
	other := &line{
		vm: l.vm, uuid: l.uuid, zonename: l.zonename, date: l.date, what: l.what, to: to,
		first: l.first, rev: l.rev, seq: l.seq, middle: l.middle, late: l.late,
	}
	other.measure()
	return other
}

// measure finds out what the line keeps alive: what the VM was has values that it has no
// more.
func (l *line) measure() {
	l.size, l.weight = lineBytes, lineBytes
	if l.to == nil {
		return
	}
	if l.from != nil {
		l.size += l.from.Alone(l.to)
	}
	l.weight += l.to.Size() + 2*(l.size-lineBytes)
}

// within tells whether a snapshot of that revision, or what a listener says that it has,
// has the line.
func (l *line) within(rev uint64) bool { return l.rev < rev || l.rev == rev && !l.late }

// large tells whether no text of the line is kept.
func (l *line) large() bool { return l.weight > largeText }

// view picks by Access.Internal.
func view(internal bool) int {
	if internal {
		return 1
	}
	return 0
}

// text is the line as those see it who have that access, up to the brace that ends
// it; nil when nothing has changed for them. made tells that it was made by this call.
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

// seen is the VM, which may be nil, as those see it who have that access. vminfod's
// clients file VMs by their zonename, so that it always has one.
func seen(m *vm.VM, internal bool) *vm.VM {
	switch {
	case m == nil:
		return nil
	case internal:
		return m.Named()
	}
	return m.Public().Named()
}

// write appends the line; false: it has nothing to tell, and nothing is appended.
func (l *line) write(p *ordjson.Pieces, internal, inside bool) bool {
	from, to := seen(l.from, internal), seen(l.to, internal)
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
