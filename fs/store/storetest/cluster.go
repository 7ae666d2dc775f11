package storetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// cluster is what the hosts of a Fleet know of each other; Fleet.mu guards it.
type cluster struct {
	rev    int64
	lives  map[string]*life // by host
	fenced map[string]string
	asks   map[askKey]*asked
	hints  map[*func()]bool
	cames  map[*func(string)]string // of which host
}

// life is a host's lease.
type life struct {
	info  store.HostInfo
	ttl   time.Duration
	until time.Time
}

type askKey struct{ of, uuid string }

type asked struct {
	store.Ask
	by     *life
	answer string
}

func (c *cluster) init() {
	c.lives, c.fenced = make(map[string]*life), make(map[string]string)
	c.asks, c.hints = make(map[askKey]*asked), make(map[*func()]bool)
	c.cames = make(map[*func(string)]string)
}

// next is the next revision. Those who watch get a hint.
func (c *cluster) next() int64 {
	c.rev++
	for hint := range c.hints {
		go (*hint)()
	}
	return c.rev
}

// lives tells whether that is the host's life, and not over.
func (c *cluster) living(l *life) bool {
	return l != nil && c.lives[l.info.Host] == l && time.Now().Before(l.until)
}

var _ store.Cluster = (*Host)(nil)

// Cut has the host not reach the others any more, or again.
func (h *Host) Cut(off bool) { h.cut.Store(off) }

// enter locks the fleet, unless the host is cut off.
func (h *Host) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return errs.New(errs.IO, "%v", err)
	}
	if h.cut.Load() {
		return errs.New(errs.IO, "the test has cut the host off")
	}
	h.fleet.mu.Lock()
	return nil
}

// Join is store.Cluster's.
func (h *Host) Join(ctx context.Context, info store.HostInfo, ttl time.Duration) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	f := h.fleet
	defer f.mu.Unlock()
	info.Host = h.name
	if is := f.lives[h.name]; f.living(is) && is.info.Instance != info.Instance {
		return errs.New(errs.Exists, "another meta9d is the host %q", h.name)
	}
	if f.fenced[h.name] == info.Boot {
		return errs.New(errs.Moved, "the host %q is fenced", h.name)
	}
	delete(f.fenced, h.name)
	h.life = &life{info: info, ttl: ttl, until: time.Now().Add(ttl)}
	f.lives[h.name] = h.life
	f.next()
	return nil
}

// Refresh is store.Cluster's.
func (h *Host) Refresh(ctx context.Context) (time.Duration, error) {
	if err := h.enter(ctx); err != nil {
		return 0, err
	}
	defer h.fleet.mu.Unlock()
	if !h.fleet.living(h.life) {
		return 0, errs.New(errs.NotFound, "this host has no lease")
	}
	h.life.until = time.Now().Add(h.life.ttl)
	return h.life.ttl, nil
}

// Tell is store.Cluster's.
func (h *Host) Tell(ctx context.Context, info store.HostInfo) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.fleet.mu.Unlock()
	if !h.fleet.living(h.life) {
		return errs.New(errs.NotFound, "this host has no lease")
	}
	info.Host = h.name
	h.life.info = info
	h.fleet.next()
	return nil
}

// Leave is store.Cluster's.
func (h *Host) Leave(ctx context.Context) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.fleet.mu.Unlock()
	if h.fleet.lives[h.name] == h.life {
		delete(h.fleet.lives, h.name)
	}
	h.fleet.next()
	return nil
}

// Hosts is store.Cluster's.
func (h *Host) Hosts(ctx context.Context) (all []store.HostInfo, err error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	f := h.fleet
	defer f.mu.Unlock()
	for _, l := range f.lives {
		if f.living(l) {
			all = append(all, l.info)
		}
	}
	for name, boot := range f.fenced {
		all = append(all, store.HostInfo{Host: name, Boot: boot, Fenced: true})
	}
	slices.SortFunc(all, func(a, b store.HostInfo) int { return cmp.Compare(a.Host, b.Host) })
	return all, nil
}

// Fence is store.Cluster's.
func (h *Host) Fence(ctx context.Context, host string) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	f := h.fleet
	defer f.mu.Unlock()
	if !f.living(f.lives[host]) {
		return errs.New(errs.NotFound, "the host %q does not live", host)
	}
	f.fenced[host] = f.lives[host].info.Boot
	delete(f.lives, host)
	f.next()
	return nil
}

// Owner is store.Cluster's.
func (h *Host) Owner(ctx context.Context, uuid string) (store.Owner, error) {
	if err := h.enter(ctx); err != nil {
		return store.Owner{}, err
	}
	defer h.fleet.mu.Unlock()
	v := h.fleet.vms[uuid]
	if v == nil {
		return store.Owner{}, errs.New(errs.NotFound, "no host of the fleet has VM %s", uuid)
	}
	return store.Owner{Host: v.host, Epoch: uint64(v.rev), Mark: v.mark, Rev: v.rev}, nil
}

// Named is store.Cluster's.
func (h *Host) Named(ctx context.Context, alias string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.fleet.mu.Unlock()
	if uuid := h.fleet.alias[alias]; uuid != "" {
		return uuid, nil
	}
	return "", errs.New(errs.NotFound, "no VM of the fleet has the alias %q", alias)
}

// Claim is store.Cluster's.
func (h *Host) Claim(ctx context.Context, uuid string, from store.Owner) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	f := h.fleet
	defer f.mu.Unlock()
	switch v := f.vms[uuid]; {
	case v == nil || v.rev != from.Rev:
		return errs.New(errs.Busy, "VM %s has another owner by now", uuid)
	case v.host != h.name && f.living(f.lives[v.host]):
		return errs.New(errs.Busy, "VM %s is host %q's, which lives", uuid, v.host)
	default:
		v.host, v.rev = h.name, f.next()
	}
	return nil
}

// Mine is store.Cluster's.
func (h *Host) Mine(ctx context.Context) (map[string]bool, error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.fleet.mu.Unlock()
	all := make(map[string]bool)
	for uuid, v := range h.fleet.vms {
		if v.host == h.name {
			all[uuid] = h.known[uuid] == v.rev
		}
	}
	return all, nil
}

// Ask is store.Cluster's.
func (h *Host) Ask(ctx context.Context, of, uuid string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	f := h.fleet
	defer f.mu.Unlock()
	if !f.living(h.life) {
		return "", errs.New(errs.NotFound, "this host has no lease")
	}
	key := askKey{of, uuid}
	switch a := f.asks[key]; {
	case a == nil || !f.living(a.by):
		f.asks[key] = &asked{Ask: store.Ask{UUID: uuid, By: h.name, Rev: f.next()}, by: h.life}
	case a.by == h.life:
		return a.answer, nil
	}
	return "", nil
}

// Unask is store.Cluster's.
func (h *Host) Unask(ctx context.Context, of, uuid string) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.fleet.mu.Unlock()
	if a := h.fleet.asks[askKey{of, uuid}]; a != nil && a.by == h.life {
		delete(h.fleet.asks, askKey{of, uuid})
	}
	return nil
}

// Asks is store.Cluster's.
func (h *Host) Asks(ctx context.Context) (all []store.Ask, err error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.fleet.mu.Unlock()
	for key, a := range h.fleet.asks {
		if key.of == h.name && a.answer == "" && h.fleet.living(a.by) {
			all = append(all, a.Ask)
		}
	}
	return all, nil
}

// Answer is store.Cluster's.
func (h *Host) Answer(ctx context.Context, a store.Ask, text string) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.fleet.mu.Unlock()
	if is := h.fleet.asks[askKey{h.name, a.UUID}]; is != nil && is.Rev == a.Rev {
		is.answer = text
		h.fleet.next()
	}
	return nil
}

// Residence is store.Cluster's.
func (h *Host) Residence(ctx context.Context, uuid string) (string, int64, error) {
	if err := h.enter(ctx); err != nil {
		return "", 0, err
	}
	defer h.fleet.mu.Unlock()
	v := h.fleet.vms[uuid]
	if v == nil || v.with == nil {
		return "", 0, nil
	}
	return string(v.with), v.withRev, nil
}

// Forget is store.Cluster's.
func (h *Host) Forget(ctx context.Context, uuid string, rev int64) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.fleet.mu.Unlock()
	v := h.fleet.vms[uuid]
	if v == nil || v.host != h.name {
		return errs.New(errs.Moved, "VM %s is another host's now", uuid)
	}
	if v.withRev == rev {
		v.with = nil
	}
	return nil
}

// Started is store.Cluster's.
func (h *Host) Started(ctx context.Context) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	h.fleet.mu.Unlock()
	return nil
}

// Came is store.Cluster's.
func (h *Host) Came(ctx context.Context) (all []string, err error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.fleet.mu.Unlock()
	for uuid, v := range h.fleet.vms {
		if v.host == h.name && v.with != nil {
			all = append(all, uuid)
		}
	}
	return all, nil
}

// Peek is store.Cluster's.
func (h *Host) Peek(ctx context.Context, uuid string, fn func(key, value []byte) error) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	v := h.fleet.vms[uuid]
	if v == nil {
		h.fleet.mu.Unlock()
		return errs.New(errs.NotFound, "no host of the fleet has VM %s", uuid)
	}
	data := maps.Clone(v.data)
	h.fleet.mu.Unlock()
	return inOrder(data, fn)
}

// Watch is store.Cluster's.
func (h *Host) Watch(ctx context.Context, hint func(), came func(uuid string)) {
	h.fleet.mu.Lock()
	h.fleet.hints[&hint] = true
	h.fleet.cames[&came] = h.name
	h.fleet.mu.Unlock()
	<-ctx.Done()
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	delete(h.fleet.hints, &hint)
	delete(h.fleet.cames, &came)
}
