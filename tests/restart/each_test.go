package restart

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// speaker is a raw client in one of the dialects that have sessions.
type speaker struct {
	*raw.Conn
	w       *world
	version string
	linux   bool
	key     byte
	sent    uint64 // requests that count
	token   uint64 // of the last Rresume
}

// speaker begins a session of a key that is new, with fid 0 at the VM's root.
func (w *world) speaker(version string, key byte) *speaker {
	w.t.Helper()
	s := &speaker{w: w, version: version, linux: strings.HasPrefix(version, "9P2000.L"), key: key, Conn: w.dial(version, key, false)}
	attach := []any{uint32(0), wire.NoFid, "", ""}
	if s.linux {
		attach = append(attach, uint32(wire.NoUID))
	}
	s.do(wire.Tattach, attach...)
	return s
}

func (s *speaker) numbered() bool { return strings.HasSuffix(s.version, ".2") }

// ask is a request that may be refused.
func (s *speaker) ask(t wire.Type, fields ...any) (raw.Reply, error) {
	s.sent++
	return s.RPC(t, 1, fields...)
}

// do is one that may not.
func (s *speaker) do(t wire.Type, fields ...any) raw.Reply {
	s.w.t.Helper()
	r, err := s.ask(t, fields...)
	if err != nil {
		s.w.t.Fatalf("%s, %s: %v", s.version, t, err)
	}
	return r
}

// walk makes fid that place, from the VM's root.
func (s *speaker) walk(fid uint32, names ...string) {
	s.w.t.Helper()
	s.do(wire.Twalk, uint32(0), fid, names)
}

// open walks fid to keys/k and opens it: trunc empties it, appends and rclose are how the
// dialects spell that.
func (s *speaker) open(fid uint32, trunc, appends, rclose bool) {
	s.w.t.Helper()
	s.walk(fid, "keys", "k")
	if s.linux {
		flags := uint32(2)
		if trunc {
			flags |= 0o1000
		}
		if appends {
			flags |= 0o2000
		}
		s.do(wire.Tlopen, fid, flags)
		return
	}
	mode := wire.ORdWr
	if trunc {
		mode |= wire.OTrunc
	}
	if rclose {
		mode |= wire.ORclose
	}
	s.do(wire.Topen, fid, mode)
}

// resume connects to a meta9d that has the session. Of a numbered dialect it asks what
// became of the request that was sent last, and gives its state and the reply that is kept.
func (s *speaker) resume() (state uint8, kept raw.Reply) {
	s.w.t.Helper()
	s.Close()
	s.Conn = s.w.dial(s.version, s.key, true)
	if !s.numbered() {
		return 0, raw.Reply{}
	}
	r, err := s.RPC(wire.Tresume, wire.NoTag, s.sent, s.token, uint16(1), s.sent)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.token = binary.LittleEndian.Uint64(r.Body)
	if state = r.Body[10]; state == wire.Answered {
		if kept, err = s.Recv(); err != nil {
			s.w.t.Fatal(err)
		}
	}
	return state, kept
}

// What a fid may be.
const (
	unknown = "unknown"
	gone    = "of a file that is gone"
)

// look tells what a fid is: where, and whether it is open for reading.
func (s *speaker) look(fid uint32) string {
	s.w.t.Helper()
	qid := 2 + 2 + 2 + 4 // of an Rstat: n, size, type, dev
	ask := func() (raw.Reply, error) { return s.ask(wire.Tstat, fid) }
	if s.linux {
		qid = 8
		ask = func() (raw.Reply, error) { return s.ask(wire.Tgetattr, fid, uint64(0x7ff)) }
	}
	r, err := ask()
	switch e, is := err.(*raw.Error); {
	case is && (e.Errno == 9 || strings.HasPrefix(e.Text, "fid unknown")):
		return unknown
	case is:
		return gone
	case err != nil:
		s.w.t.Fatal(err)
	}
	what := fmt.Sprintf("%x", r.Body[qid+5:qid+13]) // the version changes
	if _, err := s.ask(wire.Tread, fid, uint64(0), uint32(0)); err == nil {
		what += ", open"
	}
	return what
}

// change is a request that changes the store, and of which a client may have to know what
// became. It is about keys/k, which is "old", and keys/k2, which is not there.
type change struct {
	name  string
	of    wire.Type
	ready func(s *speaker) // makes the fids that it needs
	ask   []any
	is    string // what k and k2 are then; "-": it is not there
	fid   string // what fid 1 is then; "": what it was; "new": the file that was made, open
	again string // what it gets in 9P2000.e, where it comes again although it was done; "": it is done once more
}

var theFolder = func(s *speaker) { s.walk(1, "keys") }

var changes = []change{
	{
		name: "create", of: wire.Tcreate, ready: func(s *speaker) { s.walk(1, "keys") },
		ask: []any{uint32(1), "k2", uint32(0o600), wire.ORdWr}, is: "old,", fid: "new", again: "file already exists",
	},
	{
		name: "create", of: wire.Tlcreate, ready: theFolder,
		ask: []any{uint32(1), "k2", uint32(2 | 0o100 | 0o200), uint32(0o600), uint32(0)}, is: "old,", fid: "new",
	},
	{
		name: "write", of: wire.Twrite, ready: func(s *speaker) { s.open(1, false, false, false) },
		ask: []any{uint32(1), uint64(3), raw.Data("er")}, is: "older,-",
	},
	{
		name: "append", of: wire.Twrite, ready: func(s *speaker) {
			if s.linux {
				s.open(1, false, true, false)
				return
			}
			s.walk(1, "keys") // in 9P2000 a file is opened for appending when it is made
			s.do(wire.Tcreate, uint32(1), "k2", wire.DMAppend|0o600, wire.ORdWr)
		},
		ask: []any{uint32(1), uint64(0), raw.Data("er")}, is: "append",
	},
	{
		name: "write, a truncation is held", of: wire.Twrite, ready: func(s *speaker) { s.open(1, true, false, false) },
		ask: []any{uint32(1), uint64(0), raw.Data("new")}, is: "new,-",
	},
	{
		name: "clunk, a truncation is held", of: wire.Tclunk, ready: func(s *speaker) { s.open(1, true, false, false) },
		ask: []any{uint32(1)}, is: ",-", fid: unknown,
	},
	{
		name: "clunk, to be removed", of: wire.Tclunk, ready: func(s *speaker) { s.open(1, false, false, true) },
		ask: []any{uint32(1)}, is: "-,-", fid: unknown,
	},
	{
		name: "remove", of: wire.Tremove, ready: func(s *speaker) { s.walk(1, "keys", "k") },
		ask: []any{uint32(1)}, is: "-,-", fid: unknown, again: "file does not exist",
	},
	{
		name: "remove, open", of: wire.Tremove, ready: func(s *speaker) { s.open(1, true, false, false) },
		ask: []any{uint32(1)}, is: "-,-", fid: unknown, again: "file does not exist",
	},
	{
		name: "sync, a truncation is held", of: wire.Twstat, ready: func(s *speaker) { s.open(1, true, false, false) },
		ask: []any{uint32(1), statOf(math.MaxUint64, "")}, is: ",-",
	},
	{
		name: "length", of: wire.Twstat, ready: func(s *speaker) { s.open(1, false, false, false) },
		ask: []any{uint32(1), statOf(2, "")}, is: "ol,-",
	},
	{
		name: "another name", of: wire.Twstat, ready: func(s *speaker) { s.walk(1, "keys", "k") },
		ask: []any{uint32(1), statOf(math.MaxUint64, "k2")}, is: "-,old",
	},
	{
		name: "a whole value", of: wire.Tswrite, ready: theFolder,
		ask: []any{uint32(1), []string{"k2"}, raw.Data("whole")}, is: "old,whole",
	},
	{
		name: "sync, a truncation is held", of: wire.Tfsync, ready: func(s *speaker) { s.open(1, true, false, false) },
		ask: []any{uint32(1), uint32(0)}, is: ",-",
	},
	{
		name: "length", of: wire.Tsetattr, ready: func(s *speaker) { s.walk(1, "keys", "k") },
		ask: []any{uint32(1), uint32(8), uint32(0), uint32(0), uint32(0), uint64(2), make([]byte, 32)}, is: "ol,-",
	},
	{
		name: "unlink", of: wire.Tunlinkat, ready: theFolder,
		ask: []any{uint32(1), "k", uint32(0)}, is: "-,-",
	},
	{
		name: "another name", of: wire.Trenameat, ready: theFolder,
		ask: []any{uint32(1), "k", uint32(1), "k2"}, is: "-,old",
	},
	{
		name: "another name", of: wire.Trename, ready: func(s *speaker) {
			s.walk(1, "keys", "k")
			s.walk(2, "keys")
		},
		ask: []any{uint32(1), uint32(2), "k2"}, is: "-,old",
	},
}

// unchanging are the requests that change nothing in the store, and why they need no
// receipt.
var unchanging = map[wire.Type]string{
	wire.Tversion: "it begins anew", wire.Tsession: "it is not counted", wire.Tresume: "it is not counted",
	wire.Tauth: "a fid", wire.Tattach: "a fid", wire.Twalk: "a fid",
	wire.Topen: "a fid: a truncation is held until the first write or the clunk", wire.Tlopen: "as Topen",
	wire.Tsymlink: "refused", wire.Tmknod: "refused", wire.Tlink: "refused", wire.Tmkdir: "refused: folders come with a VM",
	wire.Txattrwalk: "refused", wire.Txattrcreate: "refused",
}

// statOf is the record of a Twstat, with what is not to change left out.
func statOf(length uint64, name string) []byte {
	const none = ^uint32(0)
	ones := []byte(strings.Repeat("\xff", 13))
	record := raw.Frame(0, 0, uint16(math.MaxUint16), none, ones, none, none, none, length, name, "", "", "")[raw.HeaderLen:]
	b := binary.LittleEndian.AppendUint16(nil, uint16(len(record)+2))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(record)))
	return append(b, record...)
}

// TestEachIsListed: every request of the dialects whose sessions outlive a kill is listed
// here, as one that changes the store or as one that does not: a new one must be.
func TestEachIsListed(t *testing.T) {
	for i := range 256 {
		m := wire.Type(i)
		if !strings.HasPrefix(m.String(), "T") || m.Again() {
			continue // it is no request, or one that is sent again, however it went
		}
		spoken := false
		for _, d := range []wire.Dialect{wire.E, wire.EN2, wire.LE2} {
			spoken = spoken || speaks(d, m)
		}
		listed := unchanging[m] != ""
		for _, c := range changes {
			listed = listed || c.of == m
		}
		if spoken != listed {
			t.Errorf("%s is spoken: %v, and listed: %v", m, spoken, listed)
		}
	}
}

// speaks tells whether a dialect has a request.
func speaks(d wire.Dialect, m wire.Type) bool {
	return wire.MaxSize(m, d, wire.MaxMsize) > wire.HeaderLen
}

// TestEach kills meta9d at each request that changes the store: when the change is not
// durable yet, and when it is and nobody has been told. A numbered client is told that it
// was not done, and asks again, or gets the reply: so it is done once and nobody gets an
// error. 9P2000.e has its fids as they were, and asks again in any case.
func TestEach(t *testing.T) {
	testenv.NeedDebian(t, "strace", "strace")
	for version, d := range map[string]wire.Dialect{"9P2000.e": wire.E, "9P2000.e.n.2": wire.EN2, "9P2000.L.e.2": wire.LE2} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, daemon.Options{Bin: testenv.Plain(t, "meta9d")})
			var key byte
			for _, c := range changes {
				if !speaks(d, c.of) || d.IsL() && c.name == "clunk, to be removed" {
					continue
				}
				for moment, file := range map[string]string{"not done": "meta9.log", "done": "meta9.acked"} {
					key++
					t.Run(fmt.Sprintf("%s %s, %s", c.of, c.name, moment), func(t *testing.T) {
						w.t = t
						w.killedAt(t, &c, version, key, moment == "done", filepath.Join(w.Data(), file))
					})
				}
			}
		})
	}
}

// killedAt is one kill of TestEach, when meta9d is about to write that file.
func (w *world) killedAt(t *testing.T, c *change, version string, key byte, done bool, file string) {
	w.keys(map[string]string{"k": "old"})
	s := w.speaker(version, key)
	defer s.Close()
	c.ready(s)
	was, before, appends := w.both(), s.look(1), c.is == "append"
	is := c.is
	if appends {
		is = was + "er"
		if s.linux {
			is = "older,-"
		}
	}
	end := w.inject("pwrite64", "signal=KILL", file)
	defer end()
	s.sent++
	if err := s.Send(raw.Frame(c.of, 1, c.ask...)); err != nil {
		t.Fatal(err)
	}
	w.dies(t)
	end()
	w.Restart()
	if log := w.Log(); strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
		t.Error(log)
	}
	state, kept := s.resume()
	want := was
	if done {
		want = is
	}
	if got := w.both(); got != want {
		t.Fatalf("the keys are %q, want %q", got, want)
	}
	switch {
	case s.numbered() && done:
		if state != wire.Answered || kept.Type != c.of+1 || w.figure("requests_found_done") != 1 {
			t.Fatalf("state %d, %s (%v); %d were found done", state, kept.Type, kept.Err(), w.figure("requests_found_done"))
		}
		s.checkFid(t, c, before)
	case s.numbered():
		if state != wire.Undone && state != wire.Unseen { // it is asked anew in either case
			t.Fatalf("state %d, %s (%v)", state, kept.Type, kept.Err())
		}
		fallthrough
	default:
		if got := s.look(1); got != before && (got != gone || !done || !strings.HasPrefix(is, "-")) {
			t.Errorf("fid 1 is %q, and was %q", got, before)
		}
		_, err := s.ask(c.of, c.ask...)
		if again := c.again; !done || again == "" {
			if err != nil {
				t.Errorf("asked again: %v", err)
			}
		} else if err == nil || !strings.Contains(err.Error(), again) {
			t.Errorf("asked again: %v, want %q", err, again)
		}
		if !done {
			s.checkFid(t, c, before)
		} else if appends {
			is += "er" // at least once
		}
	}
	if got := w.both(); got != is {
		t.Errorf("in the end the keys are %q, want %q", got, is)
	}
	s.do(wire.Twalk, uint32(0), uint32(9), []string{}) // the session goes on
}

// checkFid holds fid 1 against what it is to be after the change.
func (s *speaker) checkFid(t *testing.T, c *change, before string) {
	t.Helper()
	got := s.look(1)
	switch c.fid {
	case "":
		if got != before {
			t.Errorf("fid 1 is %q, and was %q", got, before)
		}
	case "new":
		if got == before || !strings.HasSuffix(got, ", open") {
			t.Errorf("fid 1 is %q, and was %q", got, before)
		}
		s.do(wire.Twrite, uint32(1), uint64(0), raw.Data("new"))
		if all := s.w.both(); all != "old,new" {
			t.Errorf("the file that was made is written, and the keys are %q", all)
		}
		s.do(wire.Twrite, uint32(1), uint64(0), raw.Data(""))
		s.w.keys(map[string]string{"k": "old", "k2": ""})
	default:
		if got != c.fid {
			t.Errorf("fid 1 is %q", got)
		}
	}
}

// keys makes the VM's keys k and k2 what is said, as an admin.
func (w *world) keys(want map[string]string) {
	w.t.Helper()
	c, err := w.Dial("vms/" + uuid)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	for i, name := range []string{"k", "k2"} {
		fid := uint32(1 + i)
		if value, is := want[name]; is {
			err = c.Swrite(0, []byte(value), "keys", name)
		} else if c.Walk(0, fid, "keys", name) == nil {
			_, err = c.RPC(wire.Tremove, 1, fid)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// both are the values of k and k2.
func (w *world) both() string {
	w.t.Helper()
	c, err := w.Dial("vms/" + uuid)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	var values []string
	for _, name := range []string{"k", "k2"} {
		b, err := c.Sread(0, "keys", name)
		if err != nil {
			b = []byte("-")
		}
		values = append(values, string(b))
	}
	return strings.Join(values, ",")
}

// TestInDoubt: what is more than one change of one key, as a line of ctl or a transaction,
// has no receipt. Who asked for it is told that it may or may not have been done, and never
// to ask anew; it is there, or it is not.
func TestInDoubt(t *testing.T) {
	testenv.NeedDebian(t, "strace", "strace")
	w := newWorldWith(t, daemon.Options{Bin: testenv.Plain(t, "meta9d")})
	const version = "9P2000.e.n.2"
	for i, file := range []string{"meta9.log", "meta9.acked"} {
		for j, ask := range []struct {
			path  []string
			value string
		}{
			{[]string{"ctl"}, "update " + uuid + fmt.Sprintf(" {\"alias\":\"web%d\"}\n", i)},
			{[]string{"vms", uuid, "txn"}, fmt.Sprintf("{\"do\":[{\"put\":\"k\",\"value\":\"txn%d\"}]}", i)},
		} {
			w.keys(map[string]string{"k": "old"}) // the first events after a start need a commit, which is done then
			s := &speaker{w: w, version: version, key: byte(1 + 2*i + j), Conn: w.dialBy(w.Admin(), version, byte(1+2*i+j), false)}
			s.do(wire.Tattach, uint32(0), wire.NoFid, "", "")
			end := w.inject("pwrite64", "signal=KILL", filepath.Join(w.Data(), file))
			s.sent++
			if err := s.Send(raw.Frame(wire.Tswrite, 1, uint32(0), ask.path, raw.Data(ask.value))); err != nil {
				t.Fatal(err)
			}
			w.dies(t)
			end()
			w.Restart()
			s.Close()
			s.Conn = w.dialBy(w.Admin(), version, s.key, true)
			r, err := s.RPC(wire.Tresume, wire.NoTag, s.sent, s.token, uint16(1), s.sent)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := s.Recv()
			if err != nil {
				t.Fatalf("%s at %s: state %d, and %v", ask.path, file, r.Body[10], err)
			}
			if r.Body[10] != wire.Answered || kept.Err() == nil || !strings.Contains(kept.Err().Error(), "may or may not") || w.figure("requests_in_doubt") != 1 {
				t.Errorf("%s at %s: state %d, %v; %d in doubt", ask.path, file, r.Body[10], kept.Err(), w.figure("requests_in_doubt"))
			}
			s.Close()
		}
		if got, want := w.both(), []string{"old,-", "txn1,-"}[i]; got != want {
			t.Errorf("the keys are %q, want %q", got, want)
		}
	}
}

// TestHandOverOfLock: a lock that one client frees is another's, who waits for it. Killed
// at any moment of that, meta9d has it with nobody but whom it was told to last.
func TestHandOverOfLock(t *testing.T) {
	w := newWorldWith(t, daemon.Options{Bin: testenv.Plain(t, "meta9d")})
	w.keys(map[string]string{"k": "old"})
	const (
		write, free = uint8(1), uint8(2)
		waits       = uint32(1)
		version     = "9P2000.L.e.2"
	)
	lock := func(kind uint8, flags uint32, who string) []any {
		return []any{uint32(1), kind, flags, uint64(0), uint64(0), uint32(7), who}
	}
	told, untold := 0, 0
	for i := range 8 {
		a, b := w.speaker(version, byte(2*i+1)), w.speaker(version, byte(2*i+2))
		for _, s := range []*speaker{a, b} {
			s.open(1, false, false, false)
		}
		if r := a.do(wire.Tlock, lock(write, 0, "a")...); r.Body[0] != 0 {
			t.Fatalf("status %d", r.Body[0])
		}
		b.sent++
		if err := b.Send(raw.Frame(wire.Tlock, 7, lock(write, waits, "b")...)); err != nil {
			t.Fatal(err)
		}
		b.look(1) // what came before was seen
		a.sent++
		if err := a.Send(raw.Frame(wire.Tlock, 1, lock(free, waits, "a")...)); err != nil {
			t.Fatal(err)
		}
		if i < 6 {
			b.Timeout = time.Duration(1+60*i) * time.Microsecond
		}
		r, err := b.Recv()
		w.Kill()
		hasTold := err == nil && r.Type == wire.Rlock && r.Body[0] == 0
		w.again()
		a.resume()
		b.resume()
		has := func(s *speaker, who string) bool { return s.do(wire.Tlock, lock(write, 0, who)...).Body[0] == 0 }
		c := w.speaker(version, 200+byte(i))
		c.open(1, false, false, false)
		if byC, byB, byA := has(c, "c"), has(b, "b"), has(a, "a"); hasTold && !byB || byA && byB || byC && (byA || byB) {
			t.Errorf("round %d: the lock is a's: %v, b's: %v, who was told so: %v, c's: %v", i, byA, byB, hasTold, byC)
		}
		if hasTold {
			told++
		} else {
			untold++
		}
		for _, s := range []*speaker{a, b, c} {
			s.do(wire.Tclunk, uint32(1)) // its locks go
			s.Close()
		}
	}
	t.Logf("who waited was told %d times, and %d times not", told, untold)
}

func itoa(n int) string { return strconv.Itoa(n) }
