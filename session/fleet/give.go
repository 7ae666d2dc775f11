package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session/residence"
)

// answerAsks begins to answer the requests of other hosts.
func (f *Fleet) answerAsks() {
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Patience)
	defer cancel()
	asks, err := f.cluster.Asks(ctx)
	if err != nil {
		return // the next look asks again
	}
	for _, ask := range asks {
		if f.cfg.Store.Cell(ask.UUID) == nil {
			f.askedInVain(ctx, ask)
			continue
		}
		if done := f.giveBegins(ask.UUID, maxGiven); done != nil {
			f.working.Go(func() {
				defer done()
				f.give(ask)
			})
		}
	}
}

// askedInVain is called for a request for a VM that is not served here. If this host owns
// the VM (it came after its claim had given up), it is taken over first, also while this host
// is drained. If it cannot be served, because it is damaged, the request is refused.
func (f *Fleet) askedInVain(ctx context.Context, ask store.Ask) {
	owner, err := f.cluster.Owner(ctx, ask.UUID)
	f.mu.Lock()
	claimed := f.claims[ask.UUID] != nil
	f.mu.Unlock()
	if err != nil || owner.Host != f.host || claimed {
		return
	}
	c, _ := f.claiming(ask.UUID, true) // if it cannot begin, the next look tries again
	if c == nil {
		return
	}
	f.working.Go(func() {
		if <-c.done; store.IsDamaged(c.err) {
			f.refuse(ask, f.cannotGive(ask.UUID, c.err))
		}
	})
}

// giveBegins adds a VM to giving, unless the VM is being claimed or given already, or as many
// as most are being given. Call done when it is over. nil: it was not added.
func (f *Fleet) giveBegins(uuid string, most int) (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped || f.giving[uuid] != nil || f.claims[uuid] != nil || len(f.giving) >= most {
		return nil
	}
	over := make(chan struct{})
	f.giving[uuid] = over
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.giving, uuid)
		close(over)
	}
}

// give gives the VM to the host that asks for it, or answers why not.
func (f *Fleet) give(ask store.Ask) {
	why := ""
	if f.cfg.Running(ask.UUID) {
		why = fmt.Sprintf("VM %s runs at the host %q, as its hypervisor says", ask.UUID, f.host)
	} else if err := f.handOver(f.ctx, ask.UUID, ask.By); err != nil {
		why = f.cannotGive(ask.UUID, err)
	}
	if why != "" {
		f.refuse(ask, why)
	}
}

func (f *Fleet) cannotGive(uuid string, err error) string {
	return fmt.Sprintf("the host %q cannot give VM %s away: %s", f.host, uuid, errs.Detail(err))
}

// refuse answers a request: why the VM is not given.
func (f *Fleet) refuse(ask store.Ask, why string) {
	f.count(func(s *Status) { s.Refused++ })
	f.tell(Event{Type: Refused, VM: ask.UUID, From: f.host, To: ask.By, What: why})
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Patience)
	defer cancel()
	_ = f.cluster.Answer(ctx, ask, why) // if this fails, the request is still there, and is answered later
}

// handOver gives a VM, which is in giving, to a host, or with "" to nobody.
func (f *Fleet) handOver(ctx context.Context, uuid, to string) error {
	from := time.Now()
	cell := f.cfg.Store.Cell(uuid)
	if cell == nil {
		return errs.New(errs.NotFound, "VM %s is not here", uuid)
	}
	cell.Hurry(true) // what the guest has begun is awaited
	defer cell.Hurry(false)
	again := f.cfg.Quiet(uuid)
	defer again()
	freezing, cancel := context.WithTimeout(ctx, freezeTime)
	frozen, err := f.cfg.Server.FreezeVM(freezing, uuid)
	cancel()
	if err != nil {
		return err
	}
	parcel := new(residence.Parcel)
	gift := &store.Gift{To: to}
	if f.cfg.Key != nil {
		parcel = residence.NewParcel(f.cfg.Tree, uuid, frozen.States())
		gift.Pack = func(mark uint64, last store.Tail) []byte {
			return parcel.Seal(f.cfg.Key, f.sealContext(uuid, mark), last)
		}
	}
	r := f.cfg.Store.Do(&store.Intent{Kind: store.Yield, Cell: cell, Gift: gift, By: "fleet"})
	if r.Err == nil || cell.VM() == nil {
		frozen.End()
	} else {
		frozen.Thaw()
	}
	e := Event{Type: Given, VM: uuid, From: f.host, To: to, Sessions: parcel.Sessions, Took: time.Since(from)}
	if r.Err != nil {
		f.count(func(s *Status) { s.Failed++ })
		e.Type, e.What = Failed, r.Err.Error()
		f.tell(e)
		return r.Err
	}
	f.count(func(s *Status) { s.Given++; s.SessionsLost += int64(parcel.Lost) })
	f.tell(e)
	return nil
}

// Release gives the VM and its sessions to a host, or with "" to whichever host claims it.
// Errors: NotFound: the VM is not here, or that host does not live; Busy: it is just coming or
// going, or that host is being drained; others say why it could not be given.
func (f *Fleet) Release(ctx context.Context, uuid, to string) error {
	if to == f.host {
		return errs.New(errs.Invalid, "VM %s would be given to its own host", uuid)
	}
	if to != "" {
		hosts, err := f.cluster.Hosts(ctx)
		if err != nil {
			return err
		}
		switch i := slices.IndexFunc(hosts, func(h store.HostInfo) bool { return h.Host == to && !h.Fenced }); {
		case i < 0:
			return errs.New(errs.NotFound, "no host %q lives", to)
		case hosts[i].Draining:
			return errs.New(errs.Busy, "the host %q is being drained, and takes no VM: end that there by 'meta9 fleet drain --undo', or give it to another host", to)
		}
	}
	if f.cfg.Store.Cell(uuid) == nil {
		return errs.New(errs.NotFound, "VM %s is not here", uuid)
	}
	done := f.giveBegins(uuid, maxClaims)
	if done == nil {
		return errs.New(errs.Busy, "VM %s comes or goes just now", uuid)
	}
	defer done()
	return f.handOver(ctx, uuid, to)
}

// Drain gives all VMs away to the hosts that claim them, except those that run here, and
// refuses new claims and new VMs until Undrain. It returns how many have gone and how many
// stay, and why the first of these stays; or, with none of both, why it has tried none. The host
// is being drained in any case.
func (f *Fleet) Drain(ctx context.Context) (gone, stay int, err error) {
	f.mu.Lock()
	f.drains(true)
	f.mu.Unlock()
	if err := f.tellDrains(ctx, true); err != nil {
		return 0, 0, errs.New(errs.Busy, "the host %q is being drained from now on, and takes no VM and makes none, but its VMs stay here, and the other hosts do not know it yet: %s; drain it again when that is over, or end it by 'meta9 fleet drain --undo'", f.host, errs.Detail(err))
	}
	if err := f.cfg.Store.Settle(ctx); err != nil { // else VMs that are just made would not be listed
		return 0, 0, errs.New(errs.Busy, "the host %q is being drained from now on, and takes no VM and makes none, but its VMs stay here, since some are just being made: drain it again, or end it by 'meta9 fleet drain --undo'", f.host)
	}
	var uuids []string
	f.cfg.Store.Cells(0, func(c *store.Cell) bool {
		uuids = append(uuids, c.UUID())
		return true
	})
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, maxGiven)
	for _, uuid := range uuids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			one := ctx.Err()
			switch {
			case one != nil:
			case f.cfg.Running(uuid):
				one = errs.New(errs.Busy, "VM %s runs here, as its hypervisor says", uuid)
			default:
				one = f.Release(ctx, uuid, "")
			}
			mu.Lock()
			defer mu.Unlock()
			if one == nil {
				gone++
			} else if stay++; err == nil {
				err = one
			}
		})
	}
	all.Wait()
	return gone, stay, err
}

// Undrain allows claims and new VMs again. Other hosts hear of it before it returns, or when the
// cluster answers.
func (f *Fleet) Undrain(ctx context.Context) {
	f.mu.Lock()
	f.drains(false)
	f.mu.Unlock()
	_ = f.tellDrains(ctx, false)
}

// tellDrains tells the other hosts whether this one is being drained.
func (f *Fleet) tellDrains(ctx context.Context, is bool) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Patience)
	defer cancel()
	return f.cfg.Member.drains(ctx, is)
}

// drains notes whether this host is being drained. Fleet.mu is held.
func (f *Fleet) drains(is bool) {
	f.draining = is
	f.refuseNew()
}

// refuseNew has the store make no VM where this host is to have none. Fleet.mu is held.
func (f *Fleet) refuseNew() { f.cfg.Store.RefuseNew(f.takesNone()) }

// takesNone is the error of a claim, and of a new VM, where this host is to have none more.
// Fleet.mu is held.
func (f *Fleet) takesNone() error {
	switch {
	case f.cfg.Member.Fenced():
		return errs.New(errs.Busy, "the host %q is fenced ('meta9 fleet fence'), and takes no VM and makes none: start its meta9d anew", f.host)
	case f.draining:
		return f.drained()
	}
	return nil
}

// drained is the error of a claim, and of a new VM, while this host is drained.
func (f *Fleet) drained() error {
	return errs.New(errs.Busy, "the host %q is being drained, and takes no VM and makes none: do it at another host, or end that by 'meta9 fleet drain --undo'", f.host)
}
