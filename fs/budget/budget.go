// Package budget keeps account of the bytes that requests hold while they are under
// way: input, replies, renderings, old values that are open, changes that wait. Each
// VM has one Account for all its connections, whatever they speak, and all together
// have one Budget.
//
// Code that is about to take memory asks for it first: Try; Await where the request can
// wait, or Wait where there is no goroutine to wait in; Force for what must not fail, which
// is small or was begun already. So no memory is taken before it is counted.
//
// # What an account gets
//
// An account never has more than its share. Up to its floor, which holds the largest
// request and its reply, it may use the whole total; above the floor it may not use the
// last quarter of the total, which is left for the floors of other accounts. A request
// waits at most Limits.Wait: the requests of one account in their order, the accounts in
// turn. While requests wait for the total, the VM that holds most is asked to give bytes
// back (OnShortage).
//
// # Concurrency
//
// Every method may be called at any time from any goroutine, and no callback is called
// with a lock of this package held. Bytes are counted with two atomic operations and no lock as long as an
// account stays within what it has been lent of the total; Budget.mu guards the lending.
// A nil *Account gives all that it is asked for.
package budget

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meta9/fs/errs"
)

// Limits bound what is in flight. Zero fields take those of Default.
type Limits struct {
	VM    int64         // bytes of one VM
	All   int64         // bytes of all, the admin's not counted
	Admin int64         // bytes of the admin, which are beside those of all
	Floor int64         // bytes that a VM gets before others get more: the largest request and its reply
	Wait  time.Duration // how long a request waits before it is refused
}

// Default are the limits that a zero field stands for.
var Default = Limits{VM: 64 << 20, All: 768 << 20, Admin: 128 << 20, Floor: 6 << 20, Wait: 10 * time.Second}

// lending is how much is lent at a time while there is enough.
const lending = 64 << 10

// Budget is the total of all accounts.
type Budget struct {
	limits Limits
	admin  *Account
	tight  atomic.Bool // more than half is lent: unused bytes are returned to the total at once

	waits, refused, short atomic.Int64

	mu       sync.Mutex
	accounts map[string]*Account
	lent     int64      // to all accounts but the admin's
	turns    []*Account // accounts with waiting requests, in the order of their turns
	asking   bool       // a goroutine asks the VM that holds most to give back
	isShort  bool       // when serve was last called, the total was too small for a waiting request
	givers   []func(vm string)
	evictors []func(a *Account)
}

// Account is what one VM, or the admin, has in flight.
type Account struct {
	b       *Budget
	vm      string // "": all connections that have not authenticated yet
	share   int64
	used    atomic.Int64
	lent    atomic.Int64 // of the total; written with b.mu held
	waiting atomic.Bool  // queue is not empty: a release must call serve
	closed  atomic.Bool  // it has no holders: the last release removes it

	holders int     // guarded by b.mu, as the rest
	unasked bool    // see Unasked
	queue   []*Wait // in the order in which they came
}

// New makes a Budget.
func New(l Limits) *Budget {
	l.VM, l.All = cmp.Or(l.VM, Default.VM), cmp.Or(l.All, Default.All)
	l.Admin, l.Floor = cmp.Or(l.Admin, Default.Admin), cmp.Or(l.Floor, Default.Floor)
	l.Wait = cmp.Or(l.Wait, Default.Wait)
	b := &Budget{limits: l, accounts: map[string]*Account{}}
	b.admin = &Account{b: b, vm: "admin", share: l.Admin, holders: 1}
	b.admin.lent.Store(l.Admin)
	return b
}

// OnShortage adds a function that is called with the VM that holds most while others wait
// for the total. It releases what it can of that VM's bytes, and may wait. Call
// OnShortage before the first Account.
func (b *Budget) OnShortage(give func(vm string)) { b.givers = append(b.givers, give) }

// OnFull adds what drops the bytes that an account has only so that they need not be made
// again; nil: all accounts'. It is called before a request is refused, by whoever asks, so
// it must not wait. Call it before the first Account.
func (b *Budget) OnFull(evict func(a *Account)) { b.evictors = append(b.evictors, evict) }

// evict calls them.
func (b *Budget) evict(a *Account) {
	for _, evict := range b.evictors {
		evict(a)
	}
}

// Admin is the admin's account, which no VM can touch. A nil Budget has none.
func (b *Budget) Admin() *Account {
	if b == nil {
		return nil
	}
	return b.admin
}

// Account is the account of a VM, or with "" the one of all connections that have not
// authenticated. The caller closes it; bytes that it holds then stay counted until they
// are released.
func (b *Budget) Account(vm string) *Account {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[vm]
	if a == nil {
		a = &Account{b: b, vm: vm, share: b.limits.VM}
		b.accounts[vm] = a
	}
	a.holders++
	a.closed.Store(false)
	return a
}

// Unasked says that nobody can make the account give bytes back, so that OnShortage is
// never called with it: it must not hide the VM that can. It returns the account.
func (a *Account) Unasked() *Account {
	if a != nil {
		a.b.mu.Lock()
		defer a.b.mu.Unlock()
		a.unasked = true
	}
	return a
}

// Close undoes Budget.Account.
func (a *Account) Close() {
	if a == nil || a == a.b.admin {
		return
	}
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	a.holders--
	if a.holders == 0 {
		a.closed.Store(true)
		a.b.forgetUnused(a)
	}
}

// forgetUnused removes an account that has no holder, no bytes and no requests. b.mu is
// held.
func (b *Budget) forgetUnused(a *Account) {
	if a == b.admin || a.holders > 0 || a.used.Load() > 0 || len(a.queue) > 0 || b.accounts[a.vm] != a {
		return
	}
	b.lent -= a.lent.Load()
	a.lent.Store(0)
	delete(b.accounts, a.vm)
}

// Try takes n bytes if it can now. The error is errs.Again and says how much the account
// has.
func (a *Account) Try(n int64) error {
	if a == nil || n <= 0 || a.fits(n) {
		return nil
	}
	if a.tries(n) {
		return nil
	}
	a.b.evict(a)
	if a.tries(n) {
		return nil
	}
	return a.refusal(n)
}

// tries takes n bytes, if they are to be had behind those who wait.
func (a *Account) tries(n int64) bool {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	return len(a.queue) == 0 && a.b.grant(a, n) == given
}

// fits takes n bytes of what has been lent already.
func (a *Account) fits(n int64) bool {
	for {
		u := a.used.Load()
		if u+n > a.lent.Load() || u+n > a.share {
			return false
		}
		if a.used.CompareAndSwap(u, u+n) {
			if u+n > a.lent.Load() { // a trim came between Load and CompareAndSwap
				a.b.mu.Lock()
				a.b.cover(a)
				a.b.mu.Unlock()
			}
			return true
		}
	}
}

// Force takes n bytes, also beyond the account's share and the total.
func (a *Account) Force(n int64) {
	if a == nil || n <= 0 || a.used.Add(n) <= a.lent.Load() {
		return
	}
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	a.b.cover(a)
}

// Release returns n bytes.
func (a *Account) Release(n int64) {
	if a == nil || n <= 0 {
		return
	}
	u := a.used.Add(-n)
	if b := a.b; a.waiting.Load() || b.tight.Load() || u == 0 && a.closed.Load() {
		b.returnUnused(a)
	}
}

// returnUnused returns to the total what a does not use, if the total is tight, and
// serves waiting requests.
func (b *Budget) returnUnused(a *Account) {
	b.mu.Lock()
	if b.tight.Load() {
		b.trim(a)
		if b.lent < b.limits.All/2 && len(b.turns) == 0 {
			b.tight.Store(false)
		}
	}
	ready := b.serve()
	b.forgetUnused(a)
	b.mu.Unlock()
	for _, w := range ready {
		w.ready()
	}
}

// Share is how many bytes the account may hold; of a nil Account, as many as anybody asks for.
func (a *Account) Share() int64 {
	if a == nil {
		return math.MaxInt64
	}
	return a.share
}

// Used is how many bytes the account holds.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.used.Load()
}

// Over tells by how many bytes the account is past its share, which Force can do.
func (a *Account) Over() int64 {
	if a == nil {
		return 0
	}
	return max(0, a.used.Load()-a.share)
}

// outcome is what became of a grant.
type outcome uint8

const (
	given   outcome = iota
	ownFull         // the account's share is too small
	allFull         // the total is too small
)

// grant takes n bytes for a, if it may have them. b.mu is held.
func (b *Budget) grant(a *Account, n int64) outcome {
	want := a.used.Load() + n
	if want > a.share {
		return ownFull
	}
	if want > a.lent.Load() && !b.lend(a, want) {
		return allFull
	}
	a.used.Add(n)
	return given
}

// lend lends a enough to use want bytes; false: the total is too small. b.mu is held.
func (b *Budget) lend(a *Account, want int64) bool {
	limit := b.limits.All
	if want > b.limits.Floor {
		limit -= limit / 4
	}
	room := func(to int64) bool { return b.lent+to-a.lent.Load() <= limit }
	if to := rounded(want); !b.tight.Load() && room(to) {
		b.lendUpTo(a, to)
		return true
	}
	if !b.tight.Load() {
		b.tight.Store(true)
		for _, other := range b.accounts {
			b.trim(other)
		}
	}
	if !room(want) {
		return false
	}
	b.lendUpTo(a, max(want, a.lent.Load()))
	return true
}

// cover lends a what it uses already beyond what it was lent. b.mu is held.
func (b *Budget) cover(a *Account) {
	if u := a.used.Load(); u > a.lent.Load() {
		if !b.tight.Load() {
			u = rounded(u)
		}
		b.lendUpTo(a, u)
	}
}

func (b *Budget) lendUpTo(a *Account, to int64) {
	if a != b.admin {
		b.lent += to - a.lent.Load()
	}
	a.lent.Store(to)
}

// trim takes back what a was lent and does not use. b.mu is held.
func (b *Budget) trim(a *Account) {
	if a == b.admin {
		return
	}
	if u := max(0, a.used.Load()); u < a.lent.Load() {
		b.lendUpTo(a, u)
	}
	b.cover(a) // it may have taken more meanwhile
}

func rounded(n int64) int64 { return (n + lending - 1) / lending * lending }

// refusal is the error for a request for n bytes.
func (a *Account) refusal(n int64) error {
	used := a.used.Load()
	if used+n > a.share {
		return errs.New(errs.Again, "VM has %d bytes in flight, %d is its share", used, a.share)
	}
	return errs.New(errs.Again, "VM has %d bytes in flight, and there is no room for %d more now", used, n)
}

// Stats are figures of a Budget.
type Stats struct {
	Used    int64 // bytes in flight of all but the admin
	Admin   int64 // of the admin
	Most    int64 // of the account that holds most
	Waiting int   // requests that wait now
	Waits   int64 // requests that have waited since the start
	Refused int64 // of these, how many were refused
	Short   int64 // how often a VM was asked to give back
}

// Stats reads the figures.
func (b *Budget) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := Stats{Admin: b.admin.used.Load(), Waits: b.waits.Load(), Refused: b.refused.Load(), Short: b.short.Load()}
	for _, a := range b.accounts {
		u := a.used.Load()
		st.Used += u
		st.Most = max(st.Most, u)
	}
	for _, a := range b.turns {
		st.Waiting += len(a.queue)
	}
	return st
}

// most is the VM that holds most, above the floor, of those that can be asked to give back;
// ok is false where there is none.
// b.mu is held.
func (b *Budget) most() (vm string, ok bool) {
	over := b.limits.Floor
	for _, a := range b.accounts {
		if u := a.used.Load(); u > over && !a.unasked {
			over, vm, ok = u, a.vm, true
		}
	}
	return vm, ok
}

// askEvery is the pause between two requests to give back, while others wait.
const askEvery = time.Second / 5

// askGivers starts a goroutine that drops what can be made again (OnFull), and asks the VM
// which holds most to give back, as long as requests wait for the total. b.mu is held.
func (b *Budget) askGivers() {
	if b.asking || len(b.givers) == 0 {
		return
	}
	b.asking = true
	go func() {
		for {
			b.evict(nil)
			b.mu.Lock()
			vm, ok := b.most()
			if !ok || !b.isShort || len(b.turns) == 0 {
				b.asking = false
				b.mu.Unlock()
				return
			}
			b.mu.Unlock()
			b.short.Add(1)
			for _, give := range b.givers {
				give(vm)
			}
			time.Sleep(askEvery)
		}
	}()
}

// endTurns removes an account from the turns. b.mu is held.
func (b *Budget) endTurns(a *Account) {
	if i := slices.Index(b.turns, a); i >= 0 {
		b.turns = slices.Delete(b.turns, i, i+1)
	}
	a.waiting.Store(false)
}
