package fleet

import (
	"context"
	"errors"
	"slices"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// claim is the work to make one VM this host's. Fleet.mu guards what changes.
type claim struct {
	uuid string
	wake chan struct{} // something may have changed
	done chan struct{} // closed when err is set
	err  error         // nil: the VM is served here
	why  string        // what it waits for, for the error
	till time.Time     // when it gives up

	owned bool // all who want the VM know that this host owns it: no other host is asked for it
}

// errLate is the error of a claim that nobody waits for any more, or that was to ask no other host
// (owned), and another host owns the VM: a new caller must begin a new claim.
var errLate = errors.New("it took too long")

// Claim makes the VM this host's, and returns when the VM is served here. If another host
// owns it, and is alive, that host is asked, and may take until ctx ends. Errors:
// NotFound: no host has the VM; Busy: the owner refuses, or ctx has ended (the text says
// what the claim was waiting for); IO: the VM's records are damaged.
func (f *Fleet) Claim(ctx context.Context, uuid string) error {
	for {
		c, err := f.claiming(uuid, false)
		if c == nil {
			return err
		}
		select {
		case <-c.done:
			if c.err != errLate {
				return c.err
			}
		case <-ctx.Done():
			f.mu.Lock()
			defer f.mu.Unlock()
			return errs.New(errs.Busy, "VM %s is not here yet: %s", uuid, c.why)
		}
	}
}

// Appears tells the Fleet that the VM's guest runs on this host: unless the VM is here, a
// claim begins in the background. why is for the log.
func (f *Fleet) Appears(uuid, why string) {
	if c, err := f.claiming(uuid, false); err != nil {
		f.cfg.Log.Warn().Str("vm", uuid).Str("why", why).Err(err).Msg("fleet: a VM that runs here cannot be claimed")
	} else if c != nil {
		f.cfg.Log.Debug().Str("vm", uuid).Str("why", why).Msg("fleet: claiming")
	}
}

// claiming returns the VM's claim that is under way, or begins one. nil: the VM is here,
// or the error says why no claim can begin. owned: this host owns the VM already, so that it
// may be served also while this host is drained; it ends where that is not so.
func (f *Fleet) claiming(uuid string, owned bool) (*claim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	till := time.Now().Add(claimTime)
	c, none := f.claims[uuid], f.takesNone()
	switch {
	case f.stopped:
		return nil, errs.New(errs.Busy, "meta9d is ending")
	case c != nil:
		c.till, c.owned = till, c.owned && owned
		return c, nil
	case f.cfg.Store.Cell(uuid) != nil && f.giving[uuid] == nil:
		return nil, nil
	case none != nil && !owned:
		return nil, none
	case len(f.claims) >= maxClaims:
		return nil, errs.New(errs.Busy, "%d VMs are being claimed already", len(f.claims))
	}
	c = &claim{uuid: uuid, wake: make(chan struct{}, 1), done: make(chan struct{}), till: till, owned: owned, why: "its owner is not known yet"}
	f.claims[uuid] = c
	f.working.Go(func() {
		err := f.pursue(c)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.claims, uuid)
		c.err = err
		close(c.done)
	})
	return c, nil
}

// wakeClaims lets all claims check their VMs again.
func (f *Fleet) wakeClaims() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.claims {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// waits notes what the claim waits for.
func (f *Fleet) waits(c *claim, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.why = why
}

// over tells whether the claim must give up.
func (f *Fleet) over(c *claim) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped || time.Now().After(c.till)
}

// pursue works on a claim until it is done or has failed.
func (f *Fleet) pursue(c *claim) error {
	a := pursuit{Fleet: f, claim: c, from: time.Now()}
	for {
		done, err := a.step()
		switch {
		case done:
			return nil
		case err != nil:
			_ = a.unask() // if it fails, the request was answered already
			return err
		case f.over(c) && a.giveUp():
			return nil
		case f.over(c): // not yet, if a new caller waits for it
			_ = a.unask() // where Stop was called, the request is still there
			return errLate
		}
		a.pause()
	}
}

// pursuit is one goroutine's work on a claim.
type pursuit struct {
	*Fleet
	claim *claim
	from  time.Time
	of    string // the host that was asked for the VM; "": none
	owner store.Owner
	how   string
}

// step does what can be done now. An error is final. If it returns neither an error nor
// done, call it again.
func (a *pursuit) step() (done bool, err error) {
	uuid := a.claim.uuid
	if done := a.settled(uuid); done != nil {
		select { // it is being given to another host
		case <-done:
		case <-a.ctx.Done():
			return false, nil
		}
	}
	if a.cfg.Store.Cell(uuid) != nil {
		return true, nil
	}
	if since, unsure := a.cfg.Member.Since(); unsure {
		a.waits(a.claim, "this host has no answer of the cluster since "+since.UTC().Format(time.RFC3339))
		return false, nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.cfg.Patience)
	defer cancel()
	owner, err := a.cluster.Owner(ctx, uuid)
	switch {
	case errors.Is(err, errs.NotFound), store.IsDamaged(err):
		return false, err
	case err != nil:
		a.waits(a.claim, errs.Detail(err))
		return false, nil
	case owner.Host == a.host:
		return a.takeOver()
	case a.ownedOnly():
		return false, errLate
	}
	lives, err := a.lives(ctx, owner.Host)
	switch {
	case err != nil:
		a.waits(a.claim, errs.Detail(err))
		return false, nil
	case lives:
		return false, a.ask(ctx, owner.Host)
	}
	a.how, a.owner = Claimed, owner // even if this claim gets no answer: the transaction may have been made
	if err := a.cluster.Claim(ctx, uuid, owner); err != nil {
		a.waits(a.claim, errs.Detail(err))
		return false, nil
	}
	return a.takeOver()
}

// ownedOnly tells whether the claim is to ask no other host (claim.owned).
func (a *pursuit) ownedOnly() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.claim.owned
}

// pause waits until something may have changed.
func (a *pursuit) pause() {
	select {
	case <-a.claim.wake:
	case <-time.After(lookEvery):
	case <-a.ctx.Done():
	}
}

// unask deletes the request, if there is one.
func (a *pursuit) unask() error {
	if a.of == "" {
		return nil
	}
	within := a.cfg.Patience
	if a.ctx.Err() != nil {
		within = min(within, stopTime)
	}
	// A live update keeps the lease, and with it what was asked under it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), within)
	defer cancel()
	return a.cluster.Unask(ctx, a.of, a.claim.uuid)
}

// settled returns a channel that is closed when the VM is no longer being given away. nil:
// it is not being given away.
func (f *Fleet) settled(uuid string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.giving[uuid]
}

// lives tells whether a host is alive, which means that it has its lease.
func (f *Fleet) lives(ctx context.Context, host string) (bool, error) {
	if host == "" {
		return false, nil
	}
	hosts, err := f.cluster.Hosts(ctx)
	return slices.ContainsFunc(hosts, func(h store.HostInfo) bool { return h.Host == host && !h.Fenced }), err
}

// ask sends the owner a request for the VM. The error is the owner's refusal.
func (a *pursuit) ask(ctx context.Context, of string) error {
	if a.of != of {
		if err := a.unask(); err != nil {
			a.waits(a.claim, errs.Detail(err))
			return nil
		}
	}
	a.of, a.owner, a.how = of, store.Owner{Host: of}, Taken
	answer, err := a.cluster.Ask(ctx, of, a.claim.uuid)
	switch {
	case err != nil:
		a.waits(a.claim, errs.Detail(err))
		return nil
	case answer != "":
		return errs.New(errs.Busy, "%s", answer)
	}
	a.waits(a.claim, "the host "+of+" was asked for it and has not answered")
	return nil
}

// giveUp deletes the request. The owner may have begun to give the VM; if the VM becomes
// this host's all the same, giveUp returns true, and the VM must be taken over.
func (a *pursuit) giveUp() (came bool) {
	if a.of == "" {
		return false
	}
	for end := time.Now().Add(lateTime); time.Now().Before(end) && a.ctx.Err() == nil; a.pause() {
		err := a.unask()
		ctx, cancel := context.WithTimeout(a.ctx, a.cfg.Patience)
		owner, ownerErr := a.cluster.Owner(ctx, a.claim.uuid)
		cancel()
		if err == nil && ownerErr == nil && owner.Host == a.host {
			if done, err := a.takeOver(); done || err != nil {
				return done
			}
		}
	}
	if a.ctx.Err() == nil {
		a.of = ""
	}
	return false
}

// takeOver starts to serve a VM that this host owns by now. An error is final. If it
// returns neither an error nor done, call it again.
func (a *pursuit) takeOver() (done bool, err error) {
	uuid := a.claim.uuid
	select {
	case a.taking <- struct{}{}:
		defer func() { <-a.taking }()
	case <-a.ctx.Done():
		return false, nil
	}
	a.awaitDropped(uuid)
	ctx, cancel := context.WithTimeout(a.ctx, a.cfg.Patience)
	defer cancel()
	frozen, err := a.cfg.Server.FreezeVM(ctx, uuid)
	if err != nil {
		a.waits(a.claim, errs.Detail(err))
		return false, nil
	}
	defer frozen.Thaw()
	arrival, err := a.cfg.Store.Fetch(uuid)
	var with string
	var rev int64
	if err == nil {
		with, rev, err = a.cluster.Residence(ctx, uuid)
	}
	if store.IsDamaged(err) {
		a.noteDamaged(uuid, err)
		return false, err
	}
	if err != nil {
		a.waits(a.claim, errs.Detail(err))
		return false, nil
	}
	came := a.open(uuid, with, arrival.Mark())
	if came.Tail != nil {
		if err := arrival.Bring(*came.Tail); err != nil && came.Why == nil {
			came.Why = err
		}
	}
	switch r := a.cfg.Store.Do(&store.Intent{Kind: store.Adopt, Arrival: arrival, By: "fleet"}); {
	case errors.Is(r.Err, errs.Exists) && a.cfg.Store.Cell(uuid) != nil:
		return true, nil // it was just being made here
	case r.Err != nil:
		return false, r.Err
	}
	n := a.restore(uuid, &came)
	if err := a.clear(uuid, rev); err != nil {
		return false, err
	}
	a.arrived(uuid, n)
	return true, nil
}

// clear deletes the sessions that came with the VM, and the request for the VM, and tries
// until that succeeds: before that the VM must not be served. Busy: Stop was called, or
// another host has taken the VM.
func (a *pursuit) clear(uuid string, rev int64) error {
	err := a.insist(a.ctx, func(ctx context.Context) (err error) {
		if rev != 0 {
			err = a.cluster.Forget(ctx, uuid, rev)
		}
		if err == nil && a.of != "" {
			err = a.cluster.Unask(ctx, a.of, uuid)
		}
		if err != nil {
			a.waits(a.claim, errs.Detail(err))
		}
		return err
	})
	switch {
	case err == nil:
		a.of = ""
		return nil
	case errors.Is(err, errs.Moved):
		if err := a.taken(a.ctx, uuid); err != nil {
			return err
		}
		return errs.New(errs.Busy, "VM %s was taken by another host before it was served here", uuid)
	}
	return errs.New(errs.Busy, "meta9d is ending")
}

// arrived adds the event that the VM is here.
func (a *pursuit) arrived(uuid string, sessions int) {
	e := Event{Type: Taken, VM: uuid, From: a.owner.Host, To: a.host, Sessions: sessions, Took: time.Since(a.from)}
	a.mu.Lock()
	delete(a.expected, uuid)
	delete(a.damaged, uuid)
	if a.how == Claimed {
		e.Type = Claimed
		a.tally.Claimed++
	} else {
		a.tally.Taken++
	}
	a.mu.Unlock()
	a.tell(e)
}

// awaitDropped waits until all connections and sessions from the VM's earlier time at this
// host have ended.
func (f *Fleet) awaitDropped(uuid string) {
	f.mu.Lock()
	done := f.dropping[uuid]
	f.mu.Unlock()
	if done != nil {
		<-done
	}
}
