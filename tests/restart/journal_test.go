package restart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// burden fills the journal: fids of a file with a long name come and go, by the hundred,
// until it has begun another segment. False: meta9d has ended meanwhile.
func (s *speaker) burden(until func() bool) bool {
	s.w.t.Helper()
	const burst = 200
	long := strings.Repeat("long", 60)
	for end := time.Now().Add(patient); !until(); {
		if time.Now().After(end) {
			s.w.t.Fatal("the journal does not grow")
		}
		for _, of := range []wire.Type{wire.Twalk, wire.Tclunk} {
			var b []byte
			for i := range burst {
				fields := []any{uint32(100 + i)}
				if of == wire.Twalk {
					fields = []any{uint32(0), uint32(100 + i), []string{"keys", long}}
				}
				b = raw.Append(b, of, uint16(i), fields...)
			}
			s.sent += burst
			if err := s.Send(b); err != nil {
				return false
			}
			for range burst {
				r, err := s.Recv()
				if err != nil {
					return false
				}
				if err := r.Err(); err != nil {
					s.w.t.Fatalf("%s: %v", of, err)
				}
			}
		}
	}
	return true
}

// burdened is a world whose journal is nearly full, and a session with a file open.
func burdened(t *testing.T) (w *world, s *speaker, journal string) {
	w = newWorldWith(t, daemon.Options{Bin: testenv.Plain(t, "meta9d")})
	w.put("k", "old")
	w.put(strings.Repeat("long", 60), "")
	s = w.speaker("9P2000.e", 1)
	s.open(1, false, false, false)
	return w, s, filepath.Join(w.Run(), "journal")
}

// knows is what must hold after a kill: the session is known, or not, and its file is what
// it was; a new session, of another key, works.
func (w *world) knows(t *testing.T, s *speaker, known bool, before string, other byte) {
	t.Helper()
	s.Close()
	s.Conn = w.dial(s.version, s.key, known)
	if known {
		if got := s.look(1); got != before {
			t.Errorf("fid 1 is %q, and was %q", got, before)
		}
		if b, err := s.Read(1, 0, 10); err != nil || string(b) != "old" {
			t.Errorf("it reads %q, %v", b, err)
		}
	}
	s.Close()
	next := w.speaker("9P2000.e", other)
	next.open(1, false, false, false)
	next.Close()
}

// TestJournalFails has each system call fail with which the journal begins a file, at the
// start and later: nobody gets an error, one line says that no session will outlive a kill,
// and after one the session is not known, rather than known as it was before.
func TestJournalFails(t *testing.T) {
	testenv.NeedDebian(t, "strace", "strace")
	places := []struct{ call, errno string }{{"openat", "ENOSPC"}, {"fallocate", "ENOSPC"}, {"mmap", "ENOMEM"}, {"renameat", "EIO"}}
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		for _, p := range places {
			w, s, journal := burdened(t)
			end := w.inject(p.call, "error="+p.errno, filepath.Join(journal, "draft"))
			failed := func() bool {
				return strings.Contains(w.Log(), "no session will outlive a kill: the journal has failed")
			}
			if !s.burden(failed) {
				t.Fatalf("%s: meta9d has ended: %s", p.call, w.Log())
			}
			end()
			if _, err := os.Stat(journal); !os.IsNotExist(err) {
				t.Errorf("%s: the journal is there still: %v", p.call, err)
			}
			s.do(wire.Twrite, uint32(1), uint64(0), raw.Data("old"))
			w.Restart()
			w.knows(t, s, false, "", 2)
		}
	})
	t.Run("at the start", func(t *testing.T) {
		t.Parallel()
		for _, p := range append(places, struct{ call, errno string }{"renameat2", "EIO"}) {
			w, s, journal := burdened(t)
			before := s.look(1)
			w.Kill()
			wrapped := w.Options
			wrapped.Wrap = straced(p.call, "error="+p.errno, journal)
			w.startWith(t, wrapped)
			if n := strings.Count(w.Log(), "the journal cannot be begun"); n != 1 {
				t.Errorf("%s: the log says so %d times\n%s", p.call, n, w.Log())
			}
			// The sessions were restored. They do not outlive the next kill.
			s.Close()
			s.Conn = w.dial(s.version, s.key, true)
			if got := s.look(1); got != before {
				t.Errorf("%s: fid 1 is %q, and was %q", p.call, got, before)
			}
			s.do(wire.Tclunk, uint32(1))
			w.Restart()
			w.knows(t, s, false, "", 2)
		}
	})
}

// TestKilledInJournal kills meta9d at each of these calls: the session is what it was.
func TestKilledInJournal(t *testing.T) {
	testenv.NeedDebian(t, "strace", "strace")
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		for _, call := range []string{"openat", "fallocate", "mmap", "renameat", "unlinkat"} {
			w, s, journal := burdened(t)
			before := s.look(1)
			file := filepath.Join(journal, "draft")
			if call == "unlinkat" { // what was before the epoch goes
				file = filepath.Join(journal, "000000000001")
			}
			end := w.inject(call, "signal=KILL", file)
			if s.burden(func() bool { return false }) {
				t.Fatalf("%s: it lives", call)
			}
			w.dies(t)
			end()
			w.Restart()
			if log := w.Log(); strings.Contains(log, `"level":"warn"`) {
				t.Errorf("%s: %s", call, log)
			}
			w.knows(t, s, true, before, 2)
		}
	})
	t.Run("at the start", func(t *testing.T) {
		t.Parallel()
		w, s, journal := burdened(t)
		before := s.look(1)
		for i, call := range []string{"openat", "fallocate", "mmap", "renameat", "renameat2"} {
			w.Kill()
			wrapped := w.Options
			wrapped.Wrap = straced(call, "signal=KILL", journal)
			if d, err := daemon.Start(wrapped); err == nil {
				d.Kill()
				t.Fatalf("%s: it lives", call)
			}
			w.again()
			w.knows(t, s, true, before, byte(10+i))
		}
	})
}

// straced is what runs meta9d so that a call fails or kills with which it begins a journal.
func straced(call, how, journal string) []string {
	path := filepath.Join(journal+".new", "draft")
	if call == "renameat2" {
		path = journal
	}
	return []string{
		"strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s", call, how), "-P", path,
	}
}

// startWith starts meta9d on what it has left, with other options for this time.
func (w *world) startWith(t *testing.T, o daemon.Options) {
	t.Helper()
	was := w.Options
	d, err := daemon.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	d.Options = was
	w.Daemon = d
}
