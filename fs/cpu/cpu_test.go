package cpu

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// worker works for a VM, work at a time, pause between, and counts.
type worker struct {
	share       *Share
	work, pause time.Duration
	turns       int
	waited      time.Duration // the longest for one place
}

// have lets all work for long, in a bubble of time.
func have(long time.Duration, all ...*worker) {
	var wg sync.WaitGroup
	end := time.Now().Add(long)
	for _, w := range all {
		wg.Go(func() {
			var p Place
			for time.Now().Before(end) {
				from := time.Now()
				if !p.Take(w.share) {
					panic("no place")
				}
				w.waited = max(w.waited, time.Since(from))
				time.Sleep(w.work)
				p.Give()
				w.turns++
				time.Sleep(w.pause)
			}
		})
	}
	wg.Wait()
}

// many are n workers of one VM that work without a pause.
func many(s *Share, n int, work time.Duration) (list []*worker) {
	for range n {
		list = append(list, &worker{share: s, work: work})
	}
	return list
}

func sum(list []*worker) (turns int) {
	for _, w := range list {
		turns += w.turns
	}
	return turns
}

// TestOneOfMany: a VM has half of the time beside another one, whatever the number
// of their goroutines.
func TestOneOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1, monotonic())
		flood, one := many(s.Share(), 64, time.Millisecond), &worker{share: s.Share(), work: time.Millisecond}
		have(10*time.Second, append(flood, one)...)
		if all := sum(flood) + one.turns; one.turns < all*45/100 || one.turns > all*55/100 {
			t.Errorf("%d of %d turns", one.turns, all)
		}
		if one.waited > 2*time.Millisecond {
			t.Errorf("it waited %v", one.waited)
		}
	})
}

// TestCost: what is shared is time, not requests.
func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1, monotonic())
		s.part = 1
		dear, cheap := many(s.Share(), 8, 20*time.Millisecond), many(s.Share(), 8, time.Millisecond)
		have(20*time.Second, append(dear, cheap...)...)
		if d, c := 20*sum(dear), sum(cheap); d < c*9/10 || d > c*11/10 {
			t.Errorf("%d ms of dear requests beside %d ms of cheap ones", d, c)
		}
	})
}

// TestPlaceLeft: a VM that comes now and then does not wait for one that has all it
// may have.
func TestPlaceLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2, monotonic())
		flood, honest := many(s.Share(), 64, 5*time.Millisecond), &worker{share: s.Share(), work: 100 * time.Microsecond, pause: 20 * time.Millisecond}
		admin := &worker{share: s.Admin(), work: 100 * time.Microsecond, pause: time.Millisecond}
		have(5*time.Second, append(flood, honest, admin)...)
		// The first time it comes, nobody has left it a place yet.
		if honest.waited > 5*time.Millisecond || admin.waited > 0 {
			t.Errorf("it waited %v, the admin %v", honest.waited, admin.waited)
		}
		honest.waited = 0
		have(5*time.Second, append(flood, honest)...)
		if honest.waited > 5*time.Millisecond {
			t.Errorf("it waited %v", honest.waited)
		}
	})
}

// TestAlone: nobody else is at work, so a VM has all places, and nothing waits that
// need not.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(4, monotonic())
		flood := many(s.Share(), 64, time.Millisecond)
		have(time.Second, flood...)
		if n := sum(flood); n < 3900 {
			t.Errorf("%d turns of 4 CPUs in 1000 of one", n)
		}
		time.Sleep(sharedFor + time.Millisecond)
		before := s.Stats()
		few := many(s.Share(), 4, time.Millisecond)
		for range 3 {
			time.Sleep(sharedFor)
			have(time.Second, few...)
		}
		if before != s.Stats() {
			t.Errorf("of one VM with as many at work as there are places, some waited: %+v, %+v", before, s.Stats())
		}
	})
}

// TestPart: a VM that floods has its part of the CPUs and no more while another one comes
// now and then, who never waits for longer than a slice; and all of them once it is alone.
func TestPart(t *testing.T) {
	long := 10 * time.Second
	if testing.Short() {
		long = 2 * time.Second
	}
	for _, cpus := range []int{1, 2, 8} {
		synctest.Test(t, func(t *testing.T) {
			s := newScheduler(cpus, monotonic())
			flood := many(s.Share(), 64, 100*time.Microsecond)
			honest := &worker{share: s.Share(), work: 50 * time.Microsecond, pause: 20 * time.Millisecond}
			have(sharedFor, append(flood, honest)...) // until it is seen that there are two
			before := sum(flood)
			honest.waited = 0
			have(long, append(flood, honest)...)
			used := time.Duration(sum(flood)-before) * 100 * time.Microsecond
			part := time.Duration(s.part * float64(long))
			if used < part*9/10 || used > part*11/10 {
				t.Errorf("%d CPUs: it had %v of %v, its part is %v", cpus, used, long, part)
			}
			if honest.waited > Slice {
				t.Errorf("%d CPUs: the other one waited %v", cpus, honest.waited)
			}
			time.Sleep(2 * sharedFor)
			before = sum(flood)
			have(time.Second, flood...)
			used = time.Duration(sum(flood)-before) * 100 * time.Microsecond
			if most := time.Duration(cpus) * time.Second; used < most*9/10 {
				t.Errorf("%d CPUs: alone it had %v in a second", cpus, used)
			}
		})
	}
}

// TestForce: what must not wait does not, and counts.
func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2, monotonic())
		share, other := s.Share(), s.Share()
		var places [4]Place
		time.Sleep(time.Millisecond) // the clock begins with 0
		other.seen()
		for i := range places {
			places[i].Force(share)
		}
		if share.running.Load() != 4 || s.free.Load() != 1 {
			t.Errorf("%d at work, %d places are free", share.running.Load(), s.free.Load())
		}
		var p Place
		if p.Try(share) {
			t.Error("it has more than all places but one, and got another")
		}
		if !p.Try(other) {
			t.Error("what was forced has taken the place of another VM")
		}
		p.Give()
		time.Sleep(20 * time.Millisecond)
		for i := range places {
			places[i].Give()
		}
		other.seen()
		if share.running.Load() != 0 || s.free.Load() != 2 || share.Rest() == 0 {
			t.Errorf("%d at work, %d places are free, it rests %v", share.running.Load(), s.free.Load(), share.Rest())
		}
	})
}

// TestForceSoon: what must not wait for long waits until a rest is over, or for half a
// second.
func TestForceSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2, monotonic())
		share, other := s.Share(), s.Share()
		time.Sleep(time.Millisecond) // the clock begins with 0
		took := func() time.Duration {
			from := time.Now()
			var p Place
			p.TakeOrForce(share)
			if !p.Held() || p.forced != (share.Rest() > 0) {
				t.Errorf("held %v, forced %v, while it rests %v", p.Held(), p.forced, share.Rest())
			}
			p.Give()
			return time.Since(from)
		}
		other.seen()
		share.seen()
		if d := took(); d != 0 {
			t.Errorf("it waited %v without a reason", d)
		}
		other.seen()
		share.Charge(30*time.Millisecond, 1)
		if d := took(); d < 20*time.Millisecond || d > 22*time.Millisecond {
			t.Errorf("it waited %v for a rest of 21 ms", d)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 20 {
				other.seen()
				share.seen()
				share.Charge(time.Hour, 1)
				time.Sleep(50 * time.Millisecond)
			}
		})
		time.Sleep(time.Millisecond)
		if d := took(); d != longestRest {
			t.Errorf("it waited %v where the rests do not end", d)
		}
		if n := s.Stats().Late; n != 0 {
			t.Errorf("%d count as late", n)
		}
		wg.Wait()
	})
}

// seen makes s one of those that are at work.
func (s *Share) seen() {
	var p Place
	p.Try(s)
	p.Give()
}

// TestCharge: what else a VM is charged for makes it rest, if others are at work.
func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2, monotonic())
		share, other := s.Share(), s.Share()
		time.Sleep(time.Millisecond) // the clock begins with 0
		share.seen()
		share.Charge(time.Second, 0.25)
		other.seen()
		share.seen()
		if share.Rest() != 0 {
			t.Error("it pays for what it did while it was alone")
		}
		share.Charge(10*time.Millisecond, 0.25)
		if d := share.Rest(); d < 20*time.Millisecond || d > 32*time.Millisecond {
			t.Errorf("40 ms are to pass, and it rests %v", d)
		}
		var p Place
		if p.Try(share) {
			t.Error("it got a place")
		}
		from := time.Now()
		if !p.Take(share) || time.Since(from) < 20*time.Millisecond {
			t.Errorf("it got a place after %v", time.Since(from))
		}
		p.Give()
		share.Charge(time.Hour, 0.25)
		other.seen()
		if d := share.Rest(); d > longestRest+rest {
			t.Errorf("it rests %v", d)
		}
		if s.Admin().Charge(time.Hour, 0.25); s.Admin().Rest() != 0 {
			t.Error("the admin rests")
		}
	})
}

// TestPast: what a VM did while nobody else was there is not held against it for long.
func TestPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1, monotonic())
		old := &worker{share: s.Share(), work: time.Millisecond}
		have(time.Minute, old)
		old.turns, old.waited = 0, 0
		have(time.Second, append(many(s.Share(), 4, time.Millisecond), old)...)
		if old.turns < 400 || old.waited > debt+5*time.Millisecond {
			t.Errorf("%d turns of 1000, and it waited %v", old.turns, old.waited)
		}
	})
}

// TestLongest: a place that never comes is not waited for for ever, and who gave up
// gets none later.
func TestLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1, monotonic())
		var held, late, other Place
		share := s.Share()
		held.Take(share)
		from := time.Now()
		if late.Take(share) || late.Held() || time.Since(from) != Longest {
			t.Errorf("a place after %v", time.Since(from))
		}
		held.Give()
		if s.free.Load() != 1 || s.queued.Load() != 0 || s.Stats() != (Stats{Waits: 1, Late: 1}) {
			t.Errorf("%d are free, %d wait, %+v", s.free.Load(), s.queued.Load(), s.Stats())
		}
		if !other.Try(share) {
			t.Error("nobody has it, and it is not free")
		}
	})
}

// TestOver: one is asked for the place when it was held for a Slice and others wait,
// not before. For one that was alone, the Slice begins when it is seen that others wait.
func TestOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(1, monotonic())
		var p Place
		p.Take(s.Share())
		time.Sleep(2 * Slice)
		if p.Over() {
			t.Error("nobody waits")
		}
		done := make(chan bool)
		go func() {
			var q Place
			q.Take(s.Share())
			q.Give()
			close(done)
		}()
		synctest.Wait()
		if p.Over() {
			t.Error("its Slice has just begun")
		}
		time.Sleep(Slice)
		if !p.Over() {
			t.Error("somebody waits")
		}
		p.Give()
		<-done
		if p.Over() {
			t.Error("it holds none")
		}
	})
}

// TestPlaces: there are never more at work than places, and none is lost, whoever
// comes, goes and gives up.
func TestPlaces(t *testing.T) {
	const places, vms, each, rounds = 3, 5, 8, 2000
	s := New()
	s.places = places
	s.free.Store(places)
	var working atomic.Int32
	var wg sync.WaitGroup
	for i := range vms {
		share := s.Share()
		for j := range each {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				var p Place
				for range rounds {
					if r.IntN(2) == 0 || !p.Try(share) {
						if !p.Take(share) {
							t.Error("no place")
						}
					}
					if n := working.Add(1); n > places {
						t.Errorf("%d at work", n)
					}
					for range r.IntN(200) {
						_ = r.Uint64()
					}
					working.Add(-1)
					p.Give()
				}
			})
		}
	}
	wg.Wait()
	if s.free.Load() != places || s.queued.Load() != 0 || len(s.ready) != 0 {
		t.Errorf("%d of %d are free, %d wait, %d shares", s.free.Load(), places, s.queued.Load(), len(s.ready))
	}
}

// BenchmarkPlace is what a burst of frames costs more: of a VM alone, of two in turn, and of
// the admin.
func BenchmarkPlace(b *testing.B) {
	b.Run("admin", func(b *testing.B) {
		s := New()
		var p Place
		for b.Loop() {
			p.Try(s.Admin())
			p.Give()
		}
	})
	for _, vms := range []int{1, 2} {
		b.Run(fmt.Sprint(vms), func(b *testing.B) {
			s := New()
			var shares []*Share
			for range vms {
				shares = append(shares, s.Share())
			}
			var p Place
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Try(shares[i%vms])
				p.Give()
			}
		})
	}
}

// TestTakeTwice: who takes a place and holds one already has one still, and gives all
// back. Else a connection that ends with a place would keep it for ever.
func TestTakeTwice(t *testing.T) {
	s := New()
	vm, other := s.Share(), s.Share()
	var p Place
	for range 3 {
		if !p.Take(vm) {
			t.Fatal("no place")
		}
	}
	p.Take(other)
	if vm.running.Load() != 0 || other.running.Load() != 1 || s.free.Load() != s.places-1 {
		t.Errorf("%d and %d places are held, %d of %d are free", vm.running.Load(), other.running.Load(), s.free.Load(), s.places)
	}
	p.Give()
	if s.free.Load() != s.places {
		t.Errorf("%d places are free of %d", s.free.Load(), s.places)
	}
}
