package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/residence"
)

// What a host keeps for its next process, and the sessions that come with a VM.

// leftAtOnce is the number of VMs whose sessions Leave has in memory at once.
const leftAtOnce = 128

// Leave writes the sessions of this host's VMs into the cluster, as a hand-over does. The next
// process of the host restores them (Restore), or a host that claims such a VM before that. Call
// it when Stop has returned, the server was frozen and the store is stopped. It returns how
// many sessions are kept, how many are lost, and why the first of these is lost. Sessions of
// the admin have no VM, and are not kept.
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

// Memory is what a Fleet hands over in a live update, beside sessions.
type Memory struct {
	Draining bool             `json:"draining,omitempty"`
	Expected map[string]int64 `json:"expected,omitempty"` // by VM: when the expectation ends, in Unix seconds
}

// Memory returns that of this moment.
func (f *Fleet) Memory() Memory {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := Memory{Draining: f.draining, Expected: make(map[string]int64, len(f.expected))}
	for uuid, e := range f.expected {
		m.Expected[uuid] = e.until.Unix()
	}
	return m
}

// Remember takes over the Memory of the program before. Call it after Restore, before anybody is
// served. A VM that cannot be read from the cluster is no longer expected.
func (f *Fleet) Remember(ctx context.Context, m Memory) {
	f.mu.Lock()
	f.drains(m.Draining)
	f.mu.Unlock()
	if m.Draining {
		_ = f.tellDrains(ctx, true) // else the member does it when the cluster answers
	}
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

// expectAgain expects a VM until that time, unless it is here by now.
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

// sealContext is the associated data of the encryption of a VM's sessions. So a parcel of
// another hand-over cannot be decrypted.
func (f *Fleet) sealContext(uuid string, mark uint64) []byte {
	return fmt.Appendf(nil, "meta9 %q %s %d", f.cfg.Name, uuid, mark)
}

// open decrypts the parcel that came with a VM. What cannot be read is lost, and o says
// so.
func (f *Fleet) open(uuid, with string, mark uint64) (o residence.Opened) {
	if with == "" {
		return o
	}
	err := errors.New("this host has no key for it (cluster.key_file)")
	if f.cfg.Key != nil {
		o, err = residence.OpenParcel(f.cfg.Key, f.sealContext(uuid, mark), with)
	}
	if err != nil {
		o.Lost, o.Why = max(1, o.Lost), err
	}
	return o
}

// restore restores the sessions of a parcel, and returns how many.
func (f *Fleet) restore(uuid string, o *residence.Opened) (n int) {
	for _, st := range o.Sessions {
		err := errs.New(errs.Invalid, "it is not the VM's")
		if st.VM == uuid && !st.Admin {
			err = f.cfg.Server.Restore(st)
		}
		if err == nil {
			n++
		} else if o.Lost++; o.Why == nil {
			o.Why = err
		}
	}
	f.count(func(s *Status) { s.Sessions += int64(n); s.SessionsLost += int64(o.Lost) })
	if o.Lost > 0 {
		f.cfg.Log.Warn().Str("vm", uuid).Int("lost", o.Lost).Int("restored", n).Err(o.Why).Msg("not all sessions that came with a VM could be restored")
	}
	return n
}

// restoreLeft restores the sessions of a VM that came to this host's earlier process. rev is
// when they were written.
func (f *Fleet) restoreLeft(ctx context.Context, uuid string) (rev int64, err error) {
	owner, err := f.cluster.Owner(ctx, uuid)
	switch {
	case errors.Is(err, errs.NotFound), err == nil && owner.Host != f.host:
		return 0, f.taken(ctx, uuid)
	case err != nil:
		return 0, err
	}
	with, rev, err := f.cluster.Residence(ctx, uuid)
	if err != nil {
		return 0, err
	}
	o := f.open(uuid, with, owner.Mark)
	if o.Tail != nil {
		o.Tail.VM = uuid
		if err := f.cfg.Store.RestoreTail(*o.Tail); err != nil && o.Why == nil {
			o.Why = err
		}
	}
	if len(o.Sessions) > 0 {
		// The journal may have them, too: a process before has begun it, and was killed before it
		// called Forget. A session that is restored twice would lose its locks.
		f.cfg.Server.DropVM(uuid)
	}
	f.tell(Event{Type: Sessions, VM: uuid, To: f.host, Sessions: f.restore(uuid, &o)})
	return rev, nil
}

// taken ends what this host has of a VM that another one has taken, sessions too, before it
// was served.
func (f *Fleet) taken(ctx context.Context, uuid string) error {
	if cell := f.cfg.Store.Cell(uuid); cell != nil {
		return f.cfg.Store.Elsewhere(ctx, cell)
	}
	return nil
}
