package storetest

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// Disk is an engine that is a map. It keeps its content when it is closed, and so
// can be opened again by giving it to another store.
type Disk struct {
	mu    sync.Mutex
	data  map[string][]byte
	limit int

	number uint64
	full   string // the VM for whose groups there is no room
}

// NewDisk makes an empty one.
func NewDisk() *Disk { return &Disk{data: make(map[string][]byte)} }

// Limit makes an Apply after which there are more than so many bytes of keys and
// values fail with errs.NoSpace; 0: none does.
func (d *Disk) Limit(bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = bytes
}

// Size is how many bytes of keys and values there are.
func (d *Disk) Size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return size(d.data)
}

func size(data map[string][]byte) int {
	n := 0
	for k, v := range data {
		n += len(k) + len(v)
	}
	return n
}

// Keys are all keys in order.
func (d *Disk) Keys() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.data))
}

// Get is a copy of a value.
func (d *Disk) Get(key string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.data[key])
}

// Put changes a value behind the store's back; nil removes the key.
func (d *Disk) Put(key string, value []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set(d.data, key, value)
}

// Clone is a copy of the whole.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{data: maps.Clone(d.data), number: d.number}
}

func (d *Disk) set(data map[string][]byte, key string, value []byte) {
	if value == nil {
		delete(data, key)
		return
	}
	data[key] = value
}

// Scan is store.Engine's.
func (d *Disk) Scan(fn func(key, value []byte) error) error {
	for _, k := range d.Keys() {
		if err := fn([]byte(k), d.Get(k)); err != nil {
			return err
		}
	}
	return nil
}

// Full makes an Apply fail for the groups of that VM alone, with errs.NoSpace; "":
// for none.
func (d *Disk) Full(vm string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = vm
}

// Apply is store.Engine's.
func (d *Disk) Apply(groups []store.Group) []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.data
	if d.limit > 0 {
		next = maps.Clone(d.data)
	}
	var failed []error
	for i, g := range groups {
		if d.full != "" && g.VM == d.full {
			if failed == nil {
				failed = make([]error, len(groups))
			}
			failed[i] = errs.New(errs.NoSpace, "no room for VM %s", g.VM)
			continue
		}
		for _, op := range g.Ops {
			if op.Value == nil {
				delete(next, string(op.Key))
				continue
			}
			next[string(op.Key)] = slices.Concat(op.Value, []byte(op.Tail))
		}
	}
	if d.limit > 0 { // size looks at all, and tests put thousands of keys
		if n := size(next); n > d.limit {
			return store.AllFailed(groups, errs.New(errs.NoSpace, "%d bytes are more than %d", n, d.limit))
		}
	}
	d.data = next
	if len(groups) > 0 {
		d.number = groups[0].Number
	}
	return failed
}

// Number is store.Engine's.
func (d *Disk) Number(string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.number
}

// Close does nothing.
func (d *Disk) Close() error { return nil }
