package fleet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"meta9/fs/store"
	"meta9/session"
	"meta9/session/residence"
)

// What of a host goes on with its next process.

// leftAtOnce is of how many VMs the sessions are in memory at once when they are left.
const leftAtOnce = 128

// Leave leaves the sessions of this host's VMs beside them in the cluster, as a hand-over does:
// the next process restores them (Start), or a host that claims such a VM before. Call it when
// Stop has returned, the server was frozen and the store is stopped. It tells how many
// sessions are kept, and how many not, and why the first of these. The admin's have no VM, and
// are not.
func (f *Fleet) Leave() (kept, lost int, why error) {
	vms := make(map[string]bool)
	for st := range f.cfg.Server.States() {
		vms[st.VM] = true
	}
	delete(vms, "")
	for some := range slices.Chunk(slices.Sorted(maps.Keys(vms)), leftAtOnce) {
		of := make(map[string][]session.State, len(some))
		for st := range f.cfg.Server.States() {
			if !st.Admin && slices.Contains(some, st.VM) {
				of[st.VM] = append(of[st.VM], st)
			}
		}
		parcels := make(map[string]*residence.Parcel, len(some))
		failed := f.cfg.Store.Leave(f.host, some, func(uuid string, mark uint64, last store.Tail) []byte {
			if f.cfg.Key == nil {
				return nil
			}
			p := residence.NewParcel(f.cfg.Tree, uuid, slices.Values(of[uuid]))
			parcels[uuid] = p
			return p.Seal(f.cfg.Key, f.sealContext(uuid, mark), last)
		})
		for i, uuid := range some {
			if p := parcels[uuid]; p != nil && failed[i] == nil {
				kept, lost = kept+p.Sessions, lost+p.Lost
				continue
			}
			lost += len(of[uuid])
			if why == nil {
				why = failed[i]
			}
		}
	}
	return kept, lost, why
}

// Memory is what a live update takes along beside sessions.
type Memory struct {
	Draining bool             `json:"draining,omitempty"`
	Expected map[string]int64 `json:"expected,omitempty"` // until when, in Unix seconds, by VM
}

// Memory is as of now.
func (f *Fleet) Memory() Memory {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := Memory{Draining: f.draining, Expected: make(map[string]int64, len(f.expected))}
	for uuid, e := range f.expected {
		m.Expected[uuid] = e.until.Unix()
	}
	return m
}

// Remember has the Fleet go on so, before anybody is served. A VM that cannot be
// looked at is not expected any more.
func (f *Fleet) Remember(ctx context.Context, m Memory) {
	f.mu.Lock()
	f.draining = m.Draining
	f.mu.Unlock()
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for uuid, until := range m.Expected {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			f.expectAgain(ctx, uuid, time.Unix(until, 0))
		})
	}
	all.Wait()
}

func (f *Fleet) expectAgain(ctx context.Context, uuid string, until time.Time) {
	if f.cfg.Store.Cell(uuid) != nil {
		return
	}
	v, err := store.Peek(ctx, f.cluster, uuid)
	if err != nil {
		f.cfg.Log.Warn().Str("vm", uuid).Err(err).Msg("fleet: a VM is not expected any more")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expect(uuid, v, time.Until(until))
}

// EachExpected calls fn for each VM that is expected.
func (f *Fleet) EachExpected(fn func(uuid string)) {
	f.mu.Lock()
	uuids := slices.Collect(maps.Keys(f.expected))
	f.mu.Unlock()
	for _, uuid := range uuids {
		fn(uuid)
	}
}
