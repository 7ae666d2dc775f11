package fs

import (
	"reflect"
	"unsafe"
)

// Meter adds up the memory that places and open files of one View take while it is
// parked, each once, however many fids share it. What they share with other Views
// (values, rows of VMs, contents of derived files) is not in it. A View has one Meter
// at a time, used as the View is.
type Meter struct {
	turn  uint32
	bytes int64
	names map[*byte]struct{} // the long ones that are counted
}

// Holder is a Handle that keeps bytes beside itself: what was read or written and is
// not done with.
type Holder interface {
	// Holds is how many, of memory.
	Holds() int64
}

// longName is from where on a name is looked for among those that are counted: a
// client that walks the same way again shares them.
const longName = 48

// Meter begins to count, with what the View itself takes.
func (v *View) Meter() *Meter {
	v.turn++
	m := &Meter{turn: v.turn, bytes: Block(int64(unsafe.Sizeof(*v)))}
	const held = int64(unsafe.Sizeof(commit{}))*4 + 48 // a hold, its slice, its places in lists and maps
	for _, holds := range v.holds {
		m.bytes += int64(len(holds)) * 4 * held
	}
	return m
}

// Bytes is the sum so far.
func (m *Meter) Bytes() int64 { return m.bytes }

// Ref counts a place and those on its way.
func (m *Meter) Ref(r *Ref) {
	for ; r != nil && r.turn != m.turn; r = r.parent {
		r.turn = m.turn
		m.bytes += Block(int64(unsafe.Sizeof(*r))) + sizeOf(r.node)
		m.name(r.name)
		if r.parent == nil {
			m.bytes += Block(int64(unsafe.Sizeof(*r.by))) + Block(int64(len(r.by.By))) + Block(int64(len(r.by.As)))
		}
	}
}

func (m *Meter) name(s string) {
	if len(s) >= longName {
		p := unsafe.StringData(s)
		if _, ok := m.names[p]; ok {
			return
		}
		if m.names == nil {
			m.names = make(map[*byte]struct{})
		}
		m.names[p] = struct{}{}
	}
	m.bytes += Block(int64(len(s)))
}

// Handle counts an open file.
func (m *Meter) Handle(h Handle) {
	m.bytes += sizeOf(h)
	if h, ok := h.(Holder); ok {
		m.bytes += h.Holds()
	}
}

// sizeOf is what x itself takes of the heap.
func sizeOf(x any) int64 {
	t := reflect.TypeOf(x)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return Block(int64(t.Size()))
}

// Block is what the runtime gives who asks for n bytes, about: it has blocks of
// certain sizes, an eighth apart.
func Block(n int64) int64 {
	if n <= 0 {
		return 0
	}
	step := int64(16)
	for n > 16*step {
		step *= 2
	}
	return (n + step - 1) / step * step
}

// Holds is what was taken when it was read.
func (h *fileHandle) Holds() int64 { return Block(int64(cap(h.data))) }

// Holds is the content, the unfinished line and the answers.
func (h *lineHandle) Holds() int64 {
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	return h.fileHandle.Holds() + Block(int64(cap(h.lines.line))) + Block(int64(cap(h.lines.answer))) + Block(int64(cap(h.answer)))
}

// Holds is the lines that were made last.
func (h *stream) Holds() int64 { return Block(int64(h.buffer)) + sizeOf(h.src) }

// Holds is the stat of a key that is only written.
func (h *keyHandle) Holds() int64 {
	if h.stat == nil {
		return 0
	}
	return Block(int64(unsafe.Sizeof(*h.stat)))
}
