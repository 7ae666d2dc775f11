package session

import (
	"context"
	"iter"
	"sync"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
)

// A VM moves to another host's server while this one goes on (session/fleet). Its
// connections end as by Freeze. Its sessions are taken out of the table, so that nobody
// resumes or changes them while they are written down. Until that is over, in success or
// failure, no connection of the VM is accepted.

// Frozen is the sessions of a VM while nobody is served for it. Call Thaw or End.
type Frozen struct {
	srv      *Server
	uuid     string
	noted    []uint64   // in the journal, until it is known where they go: a kill may come before
	sessions []*session // with a key; the longest parked first
}

// errFrozen refuses a connection for a frozen VM: it is closed, and its client tries
// again.
var errFrozen = errs.New(errs.Busy, "the VM is on its way to or from another host")

// FreezeVM ends the VM's connections when the requests that they have begun are done, and
// keeps its sessions. If ctx ends first, the connections are closed at once; the requests
// are waited for all the same. If there is nothing of the VM here, FreezeVM only refuses
// its new connections. errs.Busy: the VM is frozen already, or the server ends.
func (s *Server) FreezeVM(ctx context.Context, uuid string) (*Frozen, error) {
	var ends sync.WaitGroup
	s.mu.Lock()
	if s.closing || s.isFrozen(uuid) {
		s.mu.Unlock()
		return nil, errFrozen
	}
	s.use(uuid).frozen = true
	for c := range s.conns {
		if c.vm == uuid {
			c.freeze(&ends)
		}
	}
	for _, n := range s.byID { // also those with a connection that is no longer counted
		if n.who.VM == uuid && n.owner != nil {
			n.owner.freeze(&ends)
		}
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		ends.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.mu.Lock()
		s.kill(func(c *conn) bool { return c.freezes == &ends })
		s.mu.Unlock()
		<-done
	}
	f := &Frozen{srv: s, uuid: uuid}
	s.mu.Lock()
	for u := s.use(uuid); u.parked.Len() > 0; {
		n := u.oldest()
		if n.epoch.Swap(0) != 0 {
			f.noted = append(f.noted, n.id)
			s.countNoted(n, 0)
		}
		f.sessions = append(f.sessions, s.release(n)...)
	}
	s.mu.Unlock()
	for _, n := range f.sessions {
		if n.carried != nil {
			n.carried.settle(n)
		}
	}
	return f, nil
}

// freeze makes the loop end, as if a read deadline had passed. Server.mu is held.
func (c *conn) freeze(ends *sync.WaitGroup) {
	if c.freezes != nil {
		return
	}
	c.freezes = ends
	ends.Add(1)
	c.halts.Store(true)
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	c.wake()
}

// frozen tells FreezeVM that the connection has ended.
func (c *conn) frozen() {
	c.srv.mu.Lock()
	ends := c.freezes
	c.srv.mu.Unlock()
	if ends != nil {
		ends.Done()
	}
}

// isFrozen tells whether new connections of the VM are refused. Server.mu is held.
func (t *table) isFrozen(uuid string) bool {
	u := t.vms[uuid]
	return uuid != "" && u != nil && u.frozen
}

// States gives the states of the VM's sessions.
func (f *Frozen) States() iter.Seq[State] {
	return func(yield func(State) bool) {
		for _, n := range f.sessions {
			if !yield(n.state(nil, fs.MaxOld)) {
				return
			}
		}
	}
}

// Thaw allows connections of the VM again; its sessions can be resumed for another
// lifetime.
func (f *Frozen) Thaw() {
	var gone []*session
	s := f.srv
	for _, n := range f.sessions {
		n.size = n.estimate()
		n.bill.keep(0)
		n.bill.force(n.size)
	}
	s.mu.Lock()
	for _, n := range f.sessions {
		gone = append(gone, s.enterParked(n)...)
	}
	s.thawed(f)
	s.mu.Unlock()
	closeAll(gone)
}

// End ends the VM's sessions: they are at another host, or lost.
func (f *Frozen) End() {
	f.leaveJournal() // before another session gets their locks
	closeAll(f.sessions)
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	f.srv.thawed(f)
}

// leaveJournal removes the sessions, as they were, from the journal.
func (f *Frozen) leaveJournal() {
	for _, id := range f.noted {
		f.srv.cfg.Journal.Gone(id)
	}
	f.noted = nil
}

func (s *Server) thawed(f *Frozen) {
	f.leaveJournal()
	f.sessions = nil
	s.use(f.uuid).frozen = false
	s.forgetUnused(f.uuid)
}
