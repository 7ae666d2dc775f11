package storetest

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// Fleet is what several hosts' engines keep, as maps.
type Fleet struct {
	mu    sync.Mutex
	ids   uint64
	vms   map[string]*fleetVM
	own   map[string]map[string][]byte // by host
	alias map[string]string            // the VM that has it
	full  string                       // the VM for which there is no room
	noIDs error
	cluster
	stuck chan struct{} // Apply waits until it is closed; nil: it does not
	waits chan struct{} // told when it does
}

type fleetVM struct {
	host   string
	mark   uint64
	number uint64
	data   map[string][]byte
	with   []byte // of the last Gift

	rev     int64 // of the cluster, when host was written
	withRev int64
}

// NewFleet makes an empty one.
func NewFleet() *Fleet {
	f := &Fleet{ids: store.FirstID, vms: make(map[string]*fleetVM), own: make(map[string]map[string][]byte), alias: make(map[string]string)}
	f.cluster.init()
	return f
}

// Host is the engine of one host.
func (f *Fleet) Host(name string) *Host {
	return &Host{fleet: f, name: name, known: make(map[string]int64), ended: make(chan struct{})}
}

// Take makes the VM that host's, without asking its owner.
func (f *Fleet) Take(uuid, host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vms[uuid].host, f.vms[uuid].rev = host, f.next()
}

// With is what came with the VM's last Gift.
func (f *Fleet) With(uuid string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.vms[uuid].with
}

// Full makes an Apply fail for the groups of that VM, with errs.NoSpace; "": for none.
func (f *Fleet) Full(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = uuid
}

// NoIDs makes Block fail; nil: no more.
func (f *Fleet) NoIDs(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noIDs = err
}

// Stick lets Apply of all hosts wait until free is called, or the engine is interrupted.
// One that waits is told through waits.
func (f *Fleet) Stick() (waits <-chan struct{}, free func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stuck := make(chan struct{})
	f.stuck, f.waits = stuck, make(chan struct{}, 1)
	return f.waits, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stuck = nil
		close(stuck)
	}
}

// Harm changes the first byte of a VM's record whose key ends so.
func (f *Fleet) Harm(uuid, end string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.vms[uuid]
	for k, value := range v.data {
		if bytes.HasSuffix([]byte(k), []byte(end)) {
			v.data[k] = append([]byte{value[0] ^ 1}, value[1:]...)
		}
	}
}

// Host is a host's engine.
type Host struct {
	fleet *Fleet
	name  string
	cut   atomic.Bool
	life  *life            // what Join has begun; Fleet.mu guards it
	known map[string]int64 // fleetVM.rev of the VMs that it has; Fleet.mu guards it
	end   sync.Once
	ended chan struct{}
}

var _ store.Shared = (*Host)(nil)

// Scan is store.Engine's.
func (h *Host) Scan(fn func(key, value []byte) error) error {
	h.fleet.mu.Lock()
	all := maps.Clone(h.fleet.own[h.name])
	if all == nil {
		all = make(map[string][]byte)
	}
	for uuid, v := range h.fleet.vms {
		if v.host == h.name {
			h.known[uuid] = v.rev
			maps.Copy(all, v.data)
		}
	}
	h.fleet.mu.Unlock()
	return inOrder(all, fn)
}

func inOrder(all map[string][]byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if err := fn([]byte(k), all[k]); err != nil {
			return err
		}
	}
	return nil
}

// Apply is store.Engine's.
func (h *Host) Apply(groups []store.Group) []error {
	h.fleet.mu.Lock()
	if stuck := h.fleet.stuck; stuck != nil {
		select {
		case h.fleet.waits <- struct{}{}:
		default:
		}
		h.fleet.mu.Unlock()
		select {
		case <-stuck:
		case <-h.ended:
			return store.AllFailed(groups, errs.New(errs.IO, "interrupted"))
		}
		h.fleet.mu.Lock()
	}
	defer h.fleet.mu.Unlock()
	failed := make([]error, len(groups))
	any := false
	for i := range groups {
		failed[i] = h.apply(&groups[i])
		any = any || failed[i] != nil
	}
	if !any {
		return nil
	}
	return failed
}

func (h *Host) apply(g *store.Group) error {
	f := h.fleet
	if g.VM == "" {
		if f.own[h.name] == nil {
			f.own[h.name] = make(map[string][]byte)
		}
		change(f.own[h.name], g.Ops)
		return nil
	}
	v := f.vms[g.VM]
	switch {
	case f.full != "" && f.full == g.VM:
		return errs.New(errs.NoSpace, "no room for VM %s", g.VM)
	case g.New && v != nil:
		return store.Unchanged(errs.New(errs.Exists, "VM %s is host %s's", g.VM, v.host))
	case g.New:
		v = &fleetVM{host: h.name, data: make(map[string][]byte)}
		v.rev = f.next()
		h.known[g.VM] = v.rev
	case v == nil || v.host != h.name || h.known[g.VM] != v.rev:
		return store.Unchanged(errs.New(errs.Moved, "VM %s is another host's", g.VM))
	}
	if other := f.alias[g.Takes]; g.Takes != "" && other != "" && other != g.VM {
		return store.Unchanged(errs.New(errs.Exists, "alias: %q is VM %s's already", g.Takes, other))
	}
	if g.Takes != "" {
		f.alias[g.Takes] = g.VM
	}
	if f.alias[g.Frees] == g.VM {
		delete(f.alias, g.Frees)
	}
	f.vms[g.VM] = v
	change(v.data, g.Ops)
	v.number = g.Number
	if g.Gift != nil {
		if g.Gift.To != h.name {
			delete(f.asks, askKey{h.name, g.VM})
		}
		v.host, v.mark, v.with = g.Gift.To, g.Gift.Mark, g.Gift.With
		v.rev = f.next()
		v.withRev = v.rev
		for came, host := range f.cames {
			if host == g.Gift.To && host != h.name {
				go (*came)(g.VM)
			}
		}
	}
	if g.Gone {
		delete(f.vms, g.VM)
	}
	return nil
}

func change(data map[string][]byte, ops []store.Op) {
	for _, op := range ops {
		if op.Value == nil {
			delete(data, string(op.Key))
			continue
		}
		data[string(op.Key)] = slices.Concat(op.Value, []byte(op.Tail))
	}
}

// Number is store.Engine's.
func (h *Host) Number(vm string) uint64 {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if v := h.fleet.vms[vm]; v != nil {
		return v.number
	}
	return 0
}

// Block is store.Shared's; its blocks are small.
func (h *Host) Block(least uint64) (first, count uint64, err error) {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if err := h.fleet.noIDs; err != nil {
		return 0, 0, err
	}
	first, count = h.fleet.ids, max(least, 100)
	h.fleet.ids += count
	return first, count, nil
}

// Fetch is store.Shared's.
func (h *Host) Fetch(uuid string, fn func(key, value []byte) error) (mark uint64, err error) {
	h.fleet.mu.Lock()
	v := h.fleet.vms[uuid]
	if v == nil || v.host != h.name {
		h.fleet.mu.Unlock()
		return 0, errs.New(errs.Moved, "VM %s is another host's", uuid)
	}
	data, mark := maps.Clone(v.data), v.mark
	h.known[uuid] = v.rev
	h.fleet.mu.Unlock()
	return mark, inOrder(data, fn)
}

// Mark is store.Shared's.
func (h *Host) Mark() (mark uint64) {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	for _, v := range h.fleet.vms {
		if v.host == h.name {
			mark = max(mark, v.mark)
		}
	}
	return mark
}

// Keep is store.Shared's.
func (h *Host) Keep(limit uint64) (bool, error) {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if h.fleet.ids != store.FirstID {
		return false, nil
	}
	h.fleet.ids = max(limit, store.FirstID+1)
	return true, nil
}

// Trouble is store.Shared's.
func (h *Host) Trouble() error {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if h.fleet.stuck != nil {
		return errs.New(errs.IO, "the test's cluster stands still")
	}
	return nil
}

// Interrupt is store.Shared's.
func (h *Host) Interrupt() { h.end.Do(func() { close(h.ended) }) }

// Close does nothing.
func (h *Host) Close() error { return nil }
