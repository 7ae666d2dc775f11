package linear

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// users are those of one VM: each way to its keys.
func (w *world) users(vm int) []user {
	var all []user
	n := 0
	next := func(who string) worker {
		n++
		return w.worker(vm, n, who)
	}
	if !byNames(vm) {
		for _, version := range []string{"9P2000", "9P2000.u", "9P2000.L"} {
			all = append(all, &files{worker: next(version), version: version})
		}
	}
	all = append(all,
		&files{worker: next("9P2000.e"), version: "9P2000.e"},
		&files{worker: next("9P2000.L, admin"), version: "9P2000.L", admin: true})
	if !byNames(vm) {
		all = append(all, &files{worker: next("9P2000.e, admin"), version: "9P2000.e", admin: true})
	}
	sh, sharers := &shared{}, 2
	if byNames(vm) { // whose orders are long to search
		sharers = 1
		all = append(all, &swapper{worker: next("9P2000.e, transactions")})
	}
	for range sharers {
		one := &numbered{worker: next("9P2000.e.n"), shared: sh}
		sh.holds |= one.hold
		all = append(all, one)
	}
	return append(all,
		&guestTool{worker: next("mdata")},
		&monitor{worker: next("qmp")},
		newReader(next("http")))
}

// life runs all users for a while, kills meta9d with their requests on the way, starts
// it again, and gives what they were told, between two looks at what is there.
func (w *world) life(users []user, moment time.Duration) []porcupine.Operation {
	w.look(begin)
	w.quit = make(chan struct{})
	var running sync.WaitGroup
	for _, u := range users {
		running.Go(func() {
			for !w.over() && !w.t.Failed() {
				u.step()
			}
		})
	}
	time.Sleep(moment) // the random moment
	w.kill()
	running.Wait()
	for _, u := range users {
		u.settle()
	}
	w.look(snap)
	return w.h.take(w.dead)
}

// look looks at every VM while nobody else is there.
func (w *world) look(k kind) {
	for vm := range nVMs {
		r := newReader(w.worker(vm, 63, "the last look"))
		r.look(k)
		r.close()
	}
}

// run runs lives for as long as more says so, which is told how many there were, and
// judges each.
func run(t *testing.T, seed uint64, more func(lives int) bool) (ops int, w *world) {
	t.Helper()
	w = newWorld(t, seed)
	var users []user
	for vm := range nVMs {
		users = append(users, w.users(vm)...)
	}
	moments := rand.New(rand.NewPCG(seed, 0))
	for more(len(w.dead)) && !t.Failed() {
		of := w.life(users, time.Duration(100+moments.IntN(1000))*time.Millisecond)
		judge(t, of)
		ops += len(of)
	}
	for _, u := range users {
		u.close()
	}
	return ops, w
}

// TestLinear is the short form.
func TestLinear(t *testing.T) {
	ops, w := run(t, *seed, func(lives int) bool { return lives < 12 })
	t.Logf("seed %d: %d operations, %d kills, %d lost connections: %v", *seed, ops, len(w.dead), w.drops.Load(), w.h.counts)
	for vm := range nVMs {
		for _, u := range w.users(vm) {
			if who := u.kind(); w.h.counts[who] == 0 {
				t.Errorf("%s has done nothing", who)
			}
		}
	}
}
