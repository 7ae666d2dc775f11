package server

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

// line is what one commit made of one VM: from nil, it was created; to nil, it was
// deleted. Its text is made when the first listener needs it, and shared.
type line struct {
	rev      uint64
	date     time.Time
	from, to *vm.VM
	size     int64 // what it costs to keep, roughly

	texts [2]text // by Access.Internal

	// Guarded by feed.mu.
	users int  // listeners that are taking it
	gone  bool // the feed keeps it no longer
}

// text is one form of a line, without the brace that ends it.
type text struct {
	once  sync.Once
	bytes []byte // nil: this form has nothing to tell
}

// view picks by Access.Internal.
func view(internal bool) int {
	if internal {
		return 1
	}
	return 0
}

// text is the line as those see it who have that access, up to the brace that ends
// it; nil when nothing has changed for them.
func (l *line) text(internal bool) []byte {
	t := &l.texts[view(internal)]
	t.once.Do(func() { t.bytes = l.render(seen(l.from, internal), seen(l.to, internal)) })
	return t.bytes
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

func (l *line) render(from, to *vm.VM) []byte {
	switch {
	case from == nil && to == nil:
		return nil
	case from == nil:
		return to.AppendJSON(append(l.head(vminfo.Create, to), `,"vm":`...), false)
	case to == nil:
		return l.head(vminfo.Delete, from)
	}
	changes := differences(from, to)
	if len(changes) == 0 && bytes.Equal(from.AppendJSON(nil, false), to.AppendJSON(nil, false)) {
		return nil // a key's mode or time, or what is not shown
	}
	b := to.AppendJSON(append(l.head(vminfo.Modify, to), `,"vm":`...), false)
	b = append(b, `,"changes":[`...)
	for i, d := range changes {
		if i > 0 {
			b = append(b, ',')
		}
		b = d.appendJSON(b)
	}
	return append(b, ']')
}

// head begins the line.
func (l *line) head(kind string, m *vm.VM) []byte {
	b := appendHead(nil, kind, l.date)
	return appendText(appendText(b, "zonename", zonename(m)), "uuid", m.UUID)
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
	if name := m.Text("zonename"); name != "" {
		return name
	}
	return m.UUID
}

// cost is the size of the texts that a line may have, and so of the VM that it
// keeps, roughly: it need not be made to be counted.
func (l *line) cost() int64 {
	const head, perMember, perKey = 512, 128, 64
	n := int64(head)
	for _, m := range []*vm.VM{l.from, l.to} {
		if m != nil {
			n += m.Bytes() + int64(perMember*len(m.Props)+perKey*m.Count())
		}
	}
	return n
}
