package session

import (
	"context"
	"iter"
	"sync"
	"time"

	"meta9/fs/errs"
)

// A VM goes to another host's server without a restart of this one (session/fleet): its
// connections end as by Freeze, and its sessions are taken out of the table, so that nobody
// resumes them or sees them change while they are written down. Nobody can come for the VM
// until that is over, one way or the other.

// Frozen is what a VM has here while nobody is served for it. Thaw or End it.
type Frozen struct {
	srv      *Server
	uuid     string
	sessions []*session // with a key; the longest parked first
}

// errFrozen is what who comes for a frozen VM gets: he is hung up on, and comes again.
var errFrozen = errs.New(errs.Busy, "the VM is on its way to or from another host")

// FreezeVM ends the VM's connections when what they have begun is done, and keeps its
// sessions. When ctx ends first the connections are closed at once, and what they have
// begun is awaited all the same. Where there is nothing of the VM it only keeps others out.
// errs.Busy: it is frozen already, or the server ends.
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
	for _, n := range s.byID { // that has a connection which is no longer counted
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
		f.sessions = append(f.sessions, s.release(u.oldest())...)
	}
	s.mu.Unlock()
	for _, n := range f.sessions {
		if n.carried != nil {
			n.carried.settle(n)
		}
	}
	return f, nil
}

// freeze has the loop end as if the time to read were over. Server.mu is held.
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

// frozen tells who waits for the connection that it has ended.
func (c *conn) frozen() {
	c.srv.mu.Lock()
	ends := c.freezes
	c.srv.mu.Unlock()
	if ends != nil {
		ends.Done()
	}
}

// isFrozen tells whether nobody may come for the VM. Server.mu is held.
func (t *table) isFrozen(uuid string) bool {
	u := t.vms[uuid]
	return uuid != "" && u != nil && u.frozen
}

// States gives the states of the VM's sessions.
func (f *Frozen) States() iter.Seq[State] {
	return func(yield func(State) bool) {
		for _, n := range f.sessions {
			if !yield(n.state(nil)) {
				return
			}
		}
	}
}

// Thaw lets the VM be served again; its sessions can be resumed for another lifetime.
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

// End ends the VM's sessions: they are elsewhere, or nowhere.
func (f *Frozen) End() {
	closeAll(f.sessions)
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	f.srv.thawed(f)
}

func (s *Server) thawed(f *Frozen) {
	f.sessions = nil
	s.use(f.uuid).frozen = false
	s.forgetUnused(f.uuid)
}
