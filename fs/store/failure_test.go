package store_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/fs/vm"
)

// TestFinalFailure has an engine that fails with anything but a lack of room.
func TestFinalFailure(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
	}{
		{"plain", errors.New("disk on fire")},
		{"io", errs.New(errs.IO, "disk on fire")},
		{"wrapped", fmt.Errorf("engine: %w", io.ErrUnexpectedEOF)},
		{"another kind", errs.NotFound},
		{"empty", errors.New("")},
	} {
		t.Run(c.name, func(t *testing.T) {
			fail := &storetest.Failing{Engine: storetest.NewDisk(), Nth: 3, Err: c.err}
			rec := &storetest.Recorder{Engine: fail}
			s := open(t, rec, store.Config{})
			cell := create(t, s, `{"uuid":"`+uuidA+`"}`)
			entry := put(t, s, cell, "k", "v")
			hold := s.Hold(cell, vm.Keys, entry.ID, false)
			entered, release := rec.Block()
			first := submit(s, store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "lost"})
			wait(t, entered)
			queued := submit(s, store.Intent{Kind: store.Put, Cell: cell, Name: "k", Data: "lost too"})
			select {
			case <-s.Failed():
				t.Fatal("failed before it has")
			default:
			}
			if s.Err() != nil {
				t.Fatal(s.Err())
			}
			release()
			late := func() <-chan store.Result {
				wait(t, s.Failed())
				return submit(s, store.Intent{Kind: store.Note})
			}
			for i, ch := range []<-chan store.Result{first, queued, late()} {
				r := wait(t, ch)
				if doubt := strings.Contains(r.Err.Error(), "may or may not"); doubt != (i == 0) {
					t.Errorf("%d: what is said of the write: %v", i, r.Err)
				}
				if errs.KindOf(r.Err) != errs.IO || !strings.Contains(r.Err.Error(), c.err.Error()) {
					t.Errorf("%d: %v", i, r.Err)
				}
			}
			if errs.KindOf(s.Err()) != errs.IO || fail.Applies() != 3 || !hold.Active() {
				t.Errorf("Err %v, %d transactions, hold %v", s.Err(), fail.Applies(), hold.Active())
			}
			wantValue(t, s.Cell(uuidA), "k", "v")
			if rows := storetest.Rows(s); len(rows) != 1 {
				t.Error("reads do not go on:", rows)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClose commits what was queued and refuses what comes later.
func TestClose(t *testing.T) {
	disk := storetest.NewDisk()
	rec := &storetest.Recorder{Engine: disk}
	s := open(t, rec, store.Config{BatchBytes: 1})
	c := create(t, s, `{"uuid":"`+uuidA+`"}`)
	entered, release := rec.Block()
	var all []<-chan store.Result
	for i := range 20 {
		all = append(all, submit(s, store.Intent{Kind: store.Put, Cell: c, Name: fmt.Sprint(i)}))
	}
	wait(t, entered)
	closed := make(chan error, 2)
	go func() { closed <- s.Close() }()
	go func() { closed <- s.Close() }()
	for deadline := time.Now().Add(soon); !refusedAtOnce(s); {
		if time.Now().After(deadline) {
			t.Fatal("not closed")
		}
	}
	release()
	for _, ch := range all {
		if r := wait(t, ch); r.Err != nil {
			t.Error(r.Err)
		}
	}
	if err := errors.Join(wait(t, closed), wait(t, closed)); err != nil {
		t.Error(err)
	}
	if r := wait(t, submit(s, store.Intent{Kind: store.Put, Cell: c, Name: "late"})); errs.KindOf(r.Err) != errs.IO {
		t.Error(r.Err)
	}
	if n := open(t, disk, store.Config{}).Cell(uuidA).VM().Count(); n != 20 {
		t.Errorf("%d keys", n)
	}
}

// refusedAtOnce says whether Submit itself refuses what has no effect.
func refusedAtOnce(s *store.Store) bool {
	select {
	case r := <-submit(s, store.Intent{Kind: store.FlushHold}):
		return errs.KindOf(r.Err) == errs.IO
	default:
		return false
	}
}

type badClose struct{ store.Engine }

func (badClose) Close() error { return io.ErrClosedPipe }

func TestCloseError(t *testing.T) {
	s, err := store.Open(badClose{store.NewMemory()}, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); errs.KindOf(err) != errs.IO {
			t.Error(err)
		}
	}
}
