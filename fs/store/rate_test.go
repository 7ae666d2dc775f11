package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
)

// The clock of these tests is the bubble's: it stands still while anybody works, so what takes
// no time has not waited.

const mib = 1 << 20

var large = strings.Repeat("x", mib)

// took is how long the intent took; it must not be refused.
func took(t *testing.T, s *store.Store, in store.Intent) time.Duration {
	t.Helper()
	from := time.Now()
	do(t, s, in)
	return time.Since(from)
}

// atOnce is do of an intent that must not wait.
func atOnce(t *testing.T, s *store.Store, in store.Intent) {
	t.Helper()
	if d := took(t, s, in); d != 0 {
		t.Errorf("kind %d, name %q, guest %v: it waited %v", in.Kind, in.Name, in.Guest, d)
	}
}

// writes are the guest's, of 1 MiB each.
func writes(c *store.Cell) store.Intent {
	return store.Intent{Kind: store.Put, Guest: true, Cell: c, Name: "k", Data: large}
}

// TestWriteRate: in a fleet a guest writes 64 MiB at once, and then 1 MiB a second, less what
// records take beside values. Nobody waits with it: not another VM, not the host, no event.
func TestWriteRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		s := open(t, storetest.NewFleet().Host("a"), store.Config{Now: func() time.Time {
			looks.Add(1)
			return time.Now()
		}})
		hostile, honest := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
		for range 64 {
			atOnce(t, s, writes(hostile))
		}
		do(t, s, writes(hostile)) // its turn is when that is paid which the records took
		if d := took(t, s, writes(hostile)); d < 999*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("a write of 1 MiB waited %v for the one before", d)
		}
		const waiting = 32
		from := time.Now()
		var last <-chan store.Result
		for range waiting {
			last = submit(s, writes(hostile))
		}
		looks.Store(0)
		for range 10 {
			atOnce(t, s, writes(honest))
			atOnce(t, s, store.Intent{Kind: store.Put, Cell: hostile, Name: "host", Data: large})
			atOnce(t, s, store.Intent{Kind: store.UpdateVM, Cell: hostile, Data: `{"ram":1024}`})
			atOnce(t, s, store.Intent{Kind: store.Note, Cell: hostile, Event: store.QMP, Name: "STOP"})
			atOnce(t, s, store.Intent{Kind: store.Put, Guest: true, Cell: honest, Name: "small", Data: "v"})
		}
		if r := <-last; r.Err != nil {
			t.Error(r.Err)
		}
		// What the host wrote of the VM is not the guest's.
		if d := time.Since(from); d < waiting*time.Second || d > (waiting+2)*time.Second {
			t.Errorf("%d MiB took %v", waiting, d)
		}
		// 50 batches of the others, and for each of the guest's some looks at the clock: not one
		// after the other while it waits.
		if n := looks.Load(); n > 50+20*waiting {
			t.Errorf("the committer has looked at what waits %d times in %v", n, time.Since(from))
		}
		synctest.Wait()
		time.Sleep(65 * time.Second)
		for range 63 {
			atOnce(t, s, writes(hostile)) // it has saved again
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// rewriter is an engine that writes 16 MiB beside each change.
type rewriter struct{ *storetest.Host }

func (e rewriter) Apply(groups []store.Group) []error {
	for i := range groups {
		groups[i].Rewrote = 16 * mib
	}
	return e.Host.Apply(groups)
}

// TestWriteRateOfTheRewritten: a guest pays also for what the engine writes beside its change.
func TestWriteRateOfTheRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, rewriter{storetest.NewFleet().Host("a")}, store.Config{})
		small := store.Intent{Kind: store.Put, Guest: true, Cell: create(t, s, `{"uuid":"`+uuidA+`"}`), Name: "k", Data: "v"}
		for range 5 { // 64 MiB, and what has just been paid for
			took(t, s, small)
		}
		if d := took(t, s, small); d < 15*time.Second || d > 17*time.Second {
			t.Errorf("it waited %v for 16 MiB", d)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestWriteRateOfTheSmall: who writes little never waits, however long; nor does one who is
// refused, nor whoever writes where no host shares what is kept, or without a bound.
func TestWriteRateOfTheSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, storetest.NewFleet().Host("a"), store.Config{})
		c := create(t, s, `{"uuid":"`+uuidA+`"}`)
		value := large[:9<<10]
		for range 20_000 { // 180 MiB in 200 s
			atOnce(t, s, store.Intent{Kind: store.Put, Guest: true, Cell: c, Name: "k", Data: value})
			time.Sleep(10 * time.Millisecond)
		}
		for range 200 {
			from := time.Now()
			if err := s.Do(&store.Intent{Kind: store.Append, Guest: true, Cell: c, Name: "none", Data: large}).Err; !errors.Is(err, errs.NotFound) {
				t.Fatal(err)
			}
			if d := time.Since(from); d != 0 {
				t.Fatalf("one who is refused waited %v", d)
			}
		}
		_ = s.Close()
	})
	for _, s := range []struct {
		engine store.Engine
		rate   int64
	}{{store.NewMemory(), 0}, {storetest.NewDisk(), 0}, {storetest.NewFleet().Host("a"), -1}} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, s.engine, store.Config{WriteRate: s.rate})
			c := create(t, s, `{"uuid":"`+uuidA+`"}`)
			for range 200 {
				atOnce(t, s, writes(c))
			}
			_ = s.Close()
		})
	}
}

// TestWriteRateOfRecords: a guest pays for all that its change writes, as for the VM's own
// record, which says the newest revision where no key does.
func TestWriteRateOfRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, storetest.NewFleet().Host("a"), store.Config{})
		c := create(t, s, `{"uuid":"`+uuidA+`","note":"`+strings.Repeat("x", 128<<10)+`"}`)
		from := time.Now()
		for range 800 { // of 128 KiB each
			do(t, s, store.Intent{Kind: store.Create, Guest: true, Cell: c, Name: "k"})
			do(t, s, store.Intent{Kind: store.Remove, Guest: true, Cell: c, Name: "k"})
		}
		if d := time.Since(from); d < 30*time.Second {
			t.Errorf("100 MiB of records took %v", d)
		}
		_ = s.Close()
	})
}

// TestWriteRateEnds: nothing that has to come to an end waits for a guest that has to.
func TestWriteRateEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*testing.T, *storetest.Fleet, *store.Store, *store.Cell)
		kind errs.Kind // of the guest's waiting writes
	}{
		"deleted": {func(t *testing.T, _ *storetest.Fleet, s *store.Store, c *store.Cell) {
			do(t, s, store.Intent{Kind: store.DeleteVM, Cell: c})
		}, errs.NotFound},
		"given": {func(t *testing.T, _ *storetest.Fleet, s *store.Store, c *store.Cell) {
			do(t, s, store.Intent{Kind: store.Yield, Cell: c, Gift: &store.Gift{To: "b"}})
		}, errs.Moved},
		"lost": {func(t *testing.T, f *storetest.Fleet, s *store.Store, c *store.Cell) {
			f.Take(c.UUID(), "b")
			if err := s.Elsewhere(context.Background(), c); err != nil {
				t.Error(err)
			}
		}, errs.Moved},
		"frozen":  {func(_ *testing.T, _ *storetest.Fleet, _ *store.Store, c *store.Cell) { c.Hurry(true) }, 0},
		"ending":  {func(_ *testing.T, _ *storetest.Fleet, s *store.Store, _ *store.Cell) { s.Hurry() }, 0},
		"stopped": {func(_ *testing.T, _ *storetest.Fleet, s *store.Store, _ *store.Cell) { s.Stop() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := storetest.NewFleet()
				s := open(t, f.Host("a"), store.Config{})
				c := create(t, s, `{"uuid":"`+uuidA+`"}`)
				for range 65 {
					do(t, s, writes(c))
				}
				var all []<-chan store.Result
				for range 32 {
					all = append(all, submit(s, writes(c)))
				}
				synctest.Wait()
				if len(all[0]) > 0 {
					t.Fatal("the guest does not wait")
				}
				from := time.Now()
				tt.end(t, f, s, c)
				for i, done := range all {
					if r := <-done; tt.kind == 0 && r.Err != nil || tt.kind != 0 && errs.KindOf(r.Err) != tt.kind {
						t.Fatalf("write %d: %v", i, r.Err)
					}
				}
				if d := time.Since(from); d != 0 {
					t.Errorf("it waited %v", d)
				}
				_ = s.Close()
			})
		})
	}
}

// TestHurryIsPaid: what a guest writes while somebody waits for its end counts all the same.
func TestHurryIsPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, storetest.NewFleet().Host("a"), store.Config{})
		c := create(t, s, `{"uuid":"`+uuidA+`"}`)
		c.Hurry(true)
		for range 96 {
			atOnce(t, s, writes(c))
		}
		c.Hurry(false)
		if d := took(t, s, writes(c)); d < 32*time.Second {
			t.Errorf("32 MiB beyond the bound are paid after %v", d)
		}
		_ = s.Close()
	})
}

// TestRatePatience: a cluster that is silent for long refuses also what waits for its guest's
// turn, as what waits for the cluster.
func TestRatePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := storetest.NewFleet()
		s := open(t, f.Host("a"), store.Config{WriteRate: mib / 64, Patience: 4 * time.Second})
		hostile, honest := create(t, s, `{"uuid":"`+uuidA+`"}`), create(t, s, `{"uuid":"`+uuidB+`"}`)
		for range 2 {
			do(t, s, writes(hostile))
		}
		late := submit(s, writes(hostile))
		synctest.Wait()
		_, free := f.Stick()
		begun := submit(s, store.Intent{Kind: store.Put, Guest: true, Cell: honest, Name: "k"})
		from := time.Now()
		if r := <-late; errs.KindOf(r.Err) != errs.IO {
			t.Error(r.Err)
		}
		if d := time.Since(from); d > 6*time.Second {
			t.Errorf("it waited %v", d)
		}
		free()
		if r := <-begun; r.Err != nil {
			t.Error(r.Err)
		}
		_ = s.Close()
	})
}

// TestRateKeepsNoDrops: whoever comes, truncates and goes, again and again, leaves nothing behind
// the writes of its VM that wait; and those that wait find what was truncated before them.
func TestRateKeepsNoDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, storetest.NewFleet().Host("a"), store.Config{})
		c := create(t, s, `{"uuid":"`+uuidA+`"}`)
		e := put(t, s, c, "other", "old")
		for range 65 {
			do(t, s, writes(c))
		}
		before := s.Hold(c, 0, e.ID, true)
		wrote := submit(s, store.Intent{Kind: store.Append, Guest: true, Cell: c, Name: "other", Data: "new"})
		before.Drop()
		for range 1000 {
			s.Hold(c, 0, e.ID, true).Drop()
		}
		synctest.Wait()
		if n := c.Holds(); n != 1 {
			t.Errorf("%d Holds are kept", n)
		}
		if r := <-wrote; r.Err != nil {
			t.Error(r.Err)
		}
		wantValue(t, c, "other", "new")
		for i := range 10 { // each with a write that may find it
			do(t, s, writes(c))
			submit(s, writes(c))
			var holds []*store.Hold
			for range 1000 {
				holds = append(holds, s.Hold(c, 0, e.ID, true))
			}
			submit(s, store.Intent{Kind: store.Put, Guest: true, Cell: c, Name: fmt.Sprint(i)})
			store.DropAll(holds)
		}
		for range 20 {
			var holds []*store.Hold
			for range 1000 {
				holds = append(holds, s.Hold(c, 0, e.ID, true))
			}
			submit(s, writes(c))
			store.DropAll(holds)
		}
		synctest.Wait()
		if n := c.Holds(); n > 5000 {
			t.Errorf("%d Holds are kept", n)
		}
		_ = s.Close()
	})
}

// TestHostPaysForItself: what the host writes in one batch with a guest is not the guest's.
func TestHostPaysForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, storetest.NewFleet().Host("a"), store.Config{})
		c := create(t, s, `{"uuid":"`+uuidA+`"}`)
		for i := range 2500 { // of 40 KiB each, which fit one batch
			note := fmt.Sprintf(`{"note":"%s%d"}`, large[:40<<10], i)
			var guest, host <-chan store.Result
			entered := make(chan struct{})
			s.Submit(&store.Intent{Kind: store.Put, Done: func(store.Result) {
				guest = submit(s, store.Intent{Kind: store.Put, Guest: true, Cell: c, Name: "k", Data: "v"})
				host = submit(s, store.Intent{Kind: store.UpdateVM, Cell: c, Data: note})
				close(entered)
			}})
			<-entered
			from := time.Now()
			for _, done := range []<-chan store.Result{guest, host} {
				if r := <-done; r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			if d := time.Since(from); d != 0 {
				t.Fatalf("it waited %v", d)
			}
		}
		_ = s.Close()
	})
}
