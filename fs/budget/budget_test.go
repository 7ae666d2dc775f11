package budget_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta9/fs/budget"
	"meta9/fs/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// small is a Budget of a few MiB.
func small(wait time.Duration) *budget.Budget {
	return budget.New(budget.Limits{VM: 4 * mib, All: 16 * mib, Admin: 2 * mib, Floor: mib, Wait: wait})
}

// take must get n bytes.
func take(t *testing.T, a *budget.Account, n int64) {
	t.Helper()
	if err := a.Try(n); err != nil {
		t.Fatal(err)
	}
}

func refuses(t *testing.T, a *budget.Account, n int64, text string) {
	t.Helper()
	err := a.Try(n)
	if !errors.Is(err, errs.Again) || text != "" && err.Error() != text {
		t.Fatalf("%v, want %q", err, text)
	}
}

func TestShare(t *testing.T) {
	b := small(time.Minute)
	a := b.Account("a")
	defer a.Close()
	take(t, a, 3*mib)
	take(t, a, mib)
	refuses(t, a, 1, "Resource temporarily unavailable: VM has 4194304 bytes in flight, 4194304 is its share")
	a.Force(100)
	if a.Over() != 100 {
		t.Error(a.Over())
	}
	a.Release(mib + 100)
	take(t, a, mib)
	a.Release(4 * mib)
	if st := b.Stats(); st != (budget.Stats{}) {
		t.Errorf("%+v", st)
	}
}

// Two holders of one VM have one account, which is forgotten when nobody has anything
// of it.
func TestOneAccount(t *testing.T) {
	b := small(time.Minute)
	a, same := b.Account("a"), b.Account("a")
	if a != same {
		t.Error("two accounts of one VM")
	}
	take(t, a, mib)
	a.Close()
	same.Close()
	if b.Account("a") != a {
		t.Error("an account that holds bytes was forgotten")
	}
	a.Close()
	a.Release(mib)
	if again := b.Account("a"); again == a {
		t.Error("an account without holders is still there")
	}
}

// However much some have, another gets its floor; and the admin all of its own.
func TestFloor(t *testing.T) {
	b := small(time.Minute)
	for i := range 3 {
		take(t, b.Account(fmt.Sprint(i)), 4*mib) // three quarters are gone
	}
	late := b.Account("late")
	take(t, late, mib)
	refuses(t, late, 1, "")
	take(t, b.Admin(), 2*mib)
	refuses(t, b.Admin(), 1, "Resource temporarily unavailable: VM has 2097152 bytes in flight, 2097152 is its share")
	if st := b.Stats(); st.Used != 13*mib || st.Most != 4*mib || st.Admin != 2*mib {
		t.Errorf("%+v", st)
	}
}

// What accounts were lent and do not use is given to others.
func TestIdleAccountsHoldNothing(t *testing.T) {
	b := small(time.Minute)
	for i := range 10000 {
		a := b.Account(fmt.Sprint(i))
		take(t, a, 1000)
		a.Release(1000)
	}
	for i := range 3 {
		take(t, b.Account(fmt.Sprint(i)), 4*mib)
	}
}

// answer waits for what a Wait's ready sends.
func answer(t *testing.T, ready <-chan int) int {
	t.Helper()
	select {
	case i := <-ready:
		return i
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is ready")
		return 0
	}
}

// The requests of one account are served in their order, the accounts in turn.
func TestTurns(t *testing.T) {
	b := small(time.Minute)
	var full []*budget.Account
	for i := range 16 {
		a := b.Account(fmt.Sprint("full", i))
		take(t, a, mib)
		full = append(full, a)
	}
	ready := make(chan int, 10)
	var waits []*budget.Wait
	for i, vm := range []string{"a", "a", "a", "b"} {
		waits = append(waits, b.Account(vm).Wait(mib/4, func() { ready <- i }))
	}
	refuses(t, b.Account("a"), 1, "")
	for _, want := range []int{0, 3, 1, 2} {
		select {
		case i := <-ready:
			t.Fatalf("%d has what is not there", i)
		default:
		}
		full[want].Release(mib / 4)
		if i := answer(t, ready); i != want {
			t.Fatalf("it was the turn of %d, not of %d", want, i)
		}
		if err := waits[want].Take(); err != nil {
			t.Error(err)
		}
	}
	if st := b.Stats(); st.Used != 16*mib || st.Waits != 4 || st.Refused != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

func TestWaitEnds(t *testing.T) {
	b := small(10 * time.Millisecond)
	a := b.Account("a")
	take(t, a, 4*mib)
	ready := make(chan int, 1)
	w := a.Wait(mib, func() { ready <- 1 })
	answer(t, ready)
	if err := w.Take(); !errors.Is(err, errs.Again) {
		t.Error(err)
	}
	w.End() // gives back what it does not have
	if st := b.Stats(); st.Used != 4*mib || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}

// Await takes what is there at once, and else waits; where its context ends it has nothing.
func TestAwait(t *testing.T) {
	b := small(time.Minute)
	a := b.Account("a")
	if err := a.Await(t.Context(), 4*mib); err != nil {
		t.Fatal(err)
	}
	why := errors.New("nobody waits any more")
	ctx, end := context.WithCancelCause(t.Context())
	end(why)
	if err := a.Await(ctx, mib); err != why || a.Used() != 4*mib {
		t.Errorf("%v; it holds %d bytes", err, a.Used())
	}
	got := make(chan error, 1)
	go func() { got <- a.Await(t.Context(), mib) }()
	for b.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	a.Release(4 * mib)
	if err := <-got; err != nil || a.Used() != mib {
		t.Errorf("%v; it holds %d bytes", err, a.Used())
	}
	if err := (*budget.Account)(nil).Await(t.Context(), mib); err != nil {
		t.Error(err)
	}
}

// An End gives back what nobody took, and lets the next one have it.
func TestEnd(t *testing.T) {
	b := small(time.Minute)
	a := b.Account("a")
	take(t, a, 4*mib)
	ready := make(chan int, 2)
	first := a.Wait(3*mib, func() { ready <- 1 })
	second := a.Wait(3*mib, func() { ready <- 2 })
	third := a.Wait(3*mib, func() { ready <- 3 })
	second.End()
	a.Release(4 * mib)
	if i := answer(t, ready); i != 1 {
		t.Fatal(i)
	}
	first.End()
	if i := answer(t, ready); i != 3 {
		t.Fatal(i)
	}
	if err := third.Take(); err != nil || a.Used() != 3*mib {
		t.Error(err, a.Used())
	}
}

// TestEndOfTheFirst: who stood behind one that is ended is served without any release.
func TestEndOfTheFirst(t *testing.T) {
	b := small(time.Minute)
	a := b.Account("a")
	take(t, a, 2*mib)
	ready := make(chan int, 1)
	first := a.Wait(3*mib, func() { t.Error("there is no room for the first") })
	second := a.Wait(mib, func() { ready <- 2 })
	first.End()
	if i := answer(t, ready); i != 2 {
		t.Fatal(i)
	}
	if err := second.Take(); err != nil || a.Used() != 3*mib {
		t.Error(err, a.Used())
	}
}

// TestAskingEnds: once nobody waits for the total, nobody is asked any more, though one
// waits for its own share.
func TestAskingEnds(t *testing.T) {
	b := small(time.Minute)
	most := b.Account("most")
	asked := make(chan string, 100)
	b.OnShortage(func(vm string) {
		asked <- vm
		most.Release(mib)
	})
	own := b.Account("own")
	take(t, own, mib)
	own.Wait(4*mib, func() {}) // more than its share has room for, until the end
	take(t, most, 4*mib)
	for i := range 11 {
		take(t, b.Account(fmt.Sprint(i)), mib)
	}
	ready := make(chan int, 1)
	b.Account("another").Wait(mib, func() { ready <- 1 })
	answer(t, ready)
	time.Sleep(700 * time.Millisecond) // three times the pause between two askings: that nothing comes is no event
	if n := len(asked); n > 2 {
		t.Errorf("%d were asked to give back", n)
	}
}

// Who holds most is asked to give back while another waits for the total, and not when
// an account waits for its own share.
func TestGiveBack(t *testing.T) {
	b := small(time.Minute)
	var most *budget.Account
	asked := make(chan string, 100)
	b.OnShortage(func(vm string) {
		asked <- vm
		most.Release(mib)
	})
	own := b.Account("own")
	take(t, own, 4*mib)
	own.Wait(1, func() {}).End()
	own.Release(4 * mib)
	take(t, b.Account("network").Unasked(), 4*mib) // as much, and it has nothing to give
	most = b.Account("most")
	take(t, most, 4*mib-1)
	for i := range 8 {
		take(t, b.Account(fmt.Sprint(i)), mib)
	}
	ready := make(chan int, 1)
	w := b.Account("late").Wait(mib, func() { ready <- 1 })
	answer(t, ready)
	if err := w.Take(); err != nil {
		t.Error(err)
	}
	if vm := <-asked; vm != "most" {
		t.Errorf("%s was asked", vm)
	}
}

// Whatever is asked and given back by many at once: no account passes its share, and
// nothing is left at the end.
// TestOnFull: before a request is refused, what an account has only for later goes; and
// what all have, while others wait for the total.
func TestOnFull(t *testing.T) {
	b := small(time.Minute)
	var mu sync.Mutex
	cached := map[*budget.Account]int64{}
	b.OnFull(func(of *budget.Account) {
		mu.Lock()
		defer mu.Unlock()
		for a, n := range cached {
			if of == nil || of == a {
				a.Release(n)
				delete(cached, a)
			}
		}
	})
	b.OnShortage(func(string) {})
	var all []*budget.Account
	for _, vm := range []string{"a", "b", "c", "d"} {
		a := b.Account(vm)
		defer a.Close()
		all = append(all, a)
	}
	keep := func(a *budget.Account, n int64) {
		t.Helper()
		take(t, a, n)
		mu.Lock()
		defer mu.Unlock()
		cached[a] += n
	}
	keep(all[0], 2*mib)
	keep(all[1], mib)
	take(t, all[0], 4*mib)
	if used := all[1].Used(); used != mib {
		t.Errorf("another's: %d", used)
	}
	all[0].Release(4 * mib)
	keep(all[0], 4*mib)
	keep(all[1], 3*mib)
	keep(all[2], 4*mib)
	ready := make(chan struct{})
	w := all[3].Wait(3*mib, func() { close(ready) })
	<-ready
	if err := w.Take(); err != nil {
		t.Error(err)
	}
	all[3].Release(3 * mib)
	if st := b.Stats(); st.Used != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRandom(t *testing.T) {
	b := small(5 * time.Millisecond)
	var wg sync.WaitGroup
	var got atomic.Int64
	for vm := range 8 {
		for n := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				random := rand.New(rand.NewPCG(uint64(vm), uint64(n)))
				a := b.Account(fmt.Sprint(vm))
				defer a.Close()
				for range 300 {
					size := 1 + random.Int64N(3*mib)
					ready := make(chan bool, 1)
					switch random.IntN(4) {
					case 0:
						a.Force(100)
						a.Release(100)
						continue
					case 1:
						a.Wait(size, func() { ready <- true }).End()
						continue
					case 2:
						if a.Try(size) != nil {
							continue
						}
					case 3:
						w := a.Wait(size, func() { ready <- true })
						<-ready
						if w.Take() != nil {
							continue
						}
					}
					if a.Used() > 4*mib+400 {
						t.Error("over its share:", a.Used())
					}
					got.Add(1)
					a.Release(size)
				}
			}()
		}
	}
	wg.Wait()
	st := b.Stats()
	if st.Used != 0 || st.Most != 0 || st.Waiting != 0 || got.Load() == 0 {
		t.Errorf("%+v", st)
	}
	var all []*budget.Account
	for i := range 16 { // all of the total is there again
		a := b.Account(fmt.Sprint("new", i))
		take(t, a, mib)
		all = append(all, a)
	}
	refuses(t, all[0], 1, "")
}

// One who stays within what it has been lent takes no lock and no memory.
func TestNoAllocation(t *testing.T) {
	a := small(time.Minute).Account("a")
	take(t, a, 1)
	if n := testing.AllocsPerRun(100, func() {
		_ = a.Try(1000)
		a.Force(1000)
		a.Release(2000)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNoBudget(t *testing.T) {
	var b *budget.Budget
	for _, a := range []*budget.Account{b.Account("a"), b.Admin()} {
		take(t, a, 1<<40)
		a.Force(1)
		a.Release(1)
		ready := make(chan int, 1)
		w := a.Wait(1, func() { ready <- 1 })
		answer(t, ready)
		if w.Take() != nil || a.Used() != 0 || a.Over() != 0 {
			t.Error("a budget where there is none")
		}
		w.End()
		a.Close()
	}
}

func BenchmarkTry(b *testing.B) {
	a := small(time.Minute).Account("a")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = a.Try(100)
			a.Release(100)
		}
	})
}
