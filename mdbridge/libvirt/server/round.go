package server

import (
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/mdbridge/libvirt"
	"meta9/mdbridge/said"
)

// author is the "by" of what is changed here.
const author = "libvirt"

// noDomain is what libvirt_state says of a VM that had a domain and has none.
const noDomain = "no domain"

// stopped is the state of a VM whose domain has no QEMU.
const stopped = "stopped"

// Looks at one VM because of events: a second, and at once. Events past that wait.
const (
	lookRate, lookBurst = 5, 32
	laterTime           = 200 * time.Millisecond
)

// round is one connection to a libvirtd. One goroutine owns it.
type round struct {
	f       *Follower
	c       *libvirt.Client
	domains map[string]bool          // UUIDs, of all that libvirtd has
	vms     map[string]bool          // those of them that are VMs
	owned   map[string]bool          // VMs that were left to somebody else
	looks   map[string]*rate.Limiter // of VMs that were looked at
	later   map[string]bool          // VMs of which too many events came
	untold  map[string]bool          // domains of which Elsewhere could not be told
	pending sync.WaitGroup           // changes on their way into the store
}

func newRound(f *Follower, c *libvirt.Client) *round {
	return &round{
		f: f, c: c, domains: make(map[string]bool), vms: make(map[string]bool), owned: make(map[string]bool),
		looks: make(map[string]*rate.Limiter), later: make(map[string]bool), untold: make(map[string]bool),
	}
}

// follow keeps the VMs' states as libvirtd says that they are, until the connection ends.
func (r *round) follow(path string) error {
	version, err := r.c.Version(r.f.ctx)
	if err == nil {
		err = r.list(true)
	}
	if err == nil {
		err = r.settle()
	}
	if err != nil {
		return err
	}
	r.f.connected(path, version)
	probe := time.NewTicker(r.f.cfg.ProbeTime)
	defer probe.Stop()
	for {
		var again <-chan time.Time
		if len(r.later) > 0 {
			again = time.After(laterTime)
		}
		select {
		case <-r.f.wake:
		case <-again:
			for uuid := range r.later {
				r.f.look(uuid)
			}
			clear(r.later)
		case <-probe.C:
			if err := r.list(false); err != nil {
				return err
			}
		case <-r.c.Done():
			return r.c.Err()
		case <-r.f.ctx.Done():
			return r.f.ctx.Err()
		}
		if err := r.settle(); err != nil {
			return err
		}
	}
}

// list asks for all domains, and has those VMs looked at whose domain is there or is gone
// unseen. All: those, too, that have one still.
func (r *round) list(all bool) error {
	uuids, err := r.c.Domains(r.f.ctx)
	if err != nil {
		return err
	}
	before := r.domains
	r.domains = make(map[string]bool, len(uuids))
	for _, uuid := range uuids {
		r.domains[uuid] = true
	}
	maps.DeleteFunc(r.looks, func(uuid string, _ *rate.Limiter) bool { return r.f.cfg.Store.Cell(uuid) == nil && !r.domains[uuid] })
	clear(r.vms)
	r.f.cfg.Store.Cells(0, func(c *store.Cell) bool {
		uuid := c.UUID()
		if r.domains[uuid] && c.VM() != nil {
			r.vms[uuid] = true
		}
		if !r.domains[uuid] && !before[uuid] && !had(c.VM()) {
			return true
		}
		if all || r.owned[uuid] || r.domains[uuid] != before[uuid] {
			r.f.look(uuid)
		}
		return true
	})
	clear(r.owned)
	if r.f.cfg.Elsewhere != nil {
		for uuid := range r.domains {
			if r.f.cfg.Store.Cell(uuid) == nil && (all || r.untold[uuid] || !before[uuid]) {
				r.f.look(uuid)
			}
		}
		clear(r.untold)
	}
	return nil
}

// had tells whether the VM has, or had, a domain.
func had(v *vm.VM) bool { return v != nil && v.Text(vm.PropLibvirtState) != "" }

// settle looks at all VMs that are noted, and waits until what has changed is durable: so
// no look sees a state that an earlier one is about to change.
func (r *round) settle() error {
	defer r.pending.Wait()
	for uuid := range r.f.take() {
		if err := r.look(uuid); err != nil {
			return err
		}
	}
	r.f.counted(len(r.domains), len(r.vms))
	return nil
}

// look asks for the state of a VM's domain and enters it.
func (r *round) look(uuid string) error {
	cell := r.f.cfg.Store.Cell(uuid)
	if cell == nil || cell.VM() == nil {
		delete(r.vms, uuid)
		if r.f.cfg.Elsewhere != nil {
			return r.elsewhere(uuid)
		}
		delete(r.looks, uuid)
		return nil
	}
	if r.domains[uuid] {
		r.vms[uuid] = true
	}
	if r.f.cfg.Owned(uuid) {
		r.owned[uuid] = true
		return nil
	}
	if !r.allow(uuid) {
		return nil
	}
	is, err := r.c.State(r.f.ctx, uuid)
	state, words := is.VM(), is.String()
	var failed *libvirt.Error
	switch {
	case libvirt.IsNoDomain(err):
		delete(r.domains, uuid)
		delete(r.vms, uuid)
		if !had(cell.VM()) {
			return nil
		}
		state, words = stopped, noDomain
	case errors.As(err, &failed):
		r.f.rare.Warn("no state").Str("vm", uuid).Str("error", said.Text(err.Error())).Msg("libvirt does not say how the domain is")
		return nil
	case err != nil:
		return err
	default:
		r.domains[uuid], r.vms[uuid] = true, true
	}
	if state == libvirt.Unknown {
		r.f.rare.Warn("state").Str("vm", uuid).Str("state", words).Msg("libvirt says a state that none has")
	}
	r.enter(cell, state, words)
	return nil
}

// allow tells whether the domain may be looked at now; else it is later.
func (r *round) allow(uuid string) bool {
	pace := r.looks[uuid]
	if pace == nil {
		pace = rate.NewLimiter(lookRate, lookBurst)
		r.looks[uuid] = pace
	}
	if !pace.Allow() {
		r.later[uuid] = true
		return false
	}
	return true
}

// elsewhere tells Config.Elsewhere of a domain that is no VM here.
func (r *round) elsewhere(uuid string) error {
	if !r.allow(uuid) {
		return nil
	}
	is, err := r.c.State(r.f.ctx, uuid)
	var failed *libvirt.Error
	switch {
	case libvirt.IsNoDomain(err):
		delete(r.domains, uuid)
		delete(r.looks, uuid)
		return nil
	case errors.As(err, &failed):
		return nil // it is said where the domain is a VM
	case err != nil:
		return err
	}
	r.domains[uuid] = true
	if _, err := r.f.cfg.Elsewhere(r.f.ctx, uuid, is.Incoming()); err != nil {
		r.untold[uuid] = true // the next probe tells it
		r.f.rare.Warn("elsewhere").Str("vm", uuid).Err(err).Msg("whether another host has this domain's VM is not known")
	}
	return nil
}

// enter changes the VM, if it is not so yet.
func (r *round) enter(cell *store.Cell, state, words string) {
	v := cell.VM()
	if v == nil || v.State() == state && v.Text(vm.PropLibvirtState) == words {
		return
	}
	b, err := json.Marshal(map[string]string{vm.PropState: state, vm.PropLibvirtState: words})
	if err != nil {
		return // texts are JSON
	}
	uuid := cell.UUID()
	r.pending.Add(1)
	r.f.cfg.Store.Submit(&store.Intent{
		Kind: store.UpdateVM, Cell: cell, Data: string(b), By: author,
		Done: func(res store.Result) {
			defer r.pending.Done()
			if res.Err != nil && !errors.Is(res.Err, errs.NotFound) {
				r.f.rare.Warn("store").Str("vm", uuid).Err(res.Err).Msg("its state could not be set")
			}
		},
	})
}
