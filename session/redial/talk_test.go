package redial

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hugelgupf/p9/linux"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// server is a transport whose other end says what a test wrote down, whatever it
// is asked.
type server struct {
	t     testing.TB
	asked bytes.Buffer
	says  bytes.Buffer
}

func (s *server) talk() *Talk { return &Talk{w: &s.asked, frames: NewFrames(&s.says)} }

// say adds answers in a dialect.
func (s *server) say(d wire.Dialect, answers ...wire.Msg) *server {
	s.t.Helper()
	for i := range answers {
		frame, err := wire.Append(nil, &answers[i], d)
		if err != nil {
			s.t.Fatal(err)
		}
		s.says.Write(frame)
	}
	return s
}

// requests are the requests so far, as text. Those up to each Tversion are in no
// dialect, the others in d.
func (s *server) requests(d wire.Dialect) (list []string) {
	s.t.Helper()
	for b := s.asked.Bytes(); len(b) > 0; {
		size, typ, _, _ := wire.Split(b)
		var m wire.Msg
		in := d
		if typ == wire.Tversion {
			in = wire.None
		}
		if err := wire.Decode(&m, b[:size], in); err != nil {
			s.t.Fatal(err)
		}
		list = append(list, m.String())
		b = b[size:]
	}
	return list
}

func version(text string, msize uint32) wire.Msg {
	return wire.Msg{Type: wire.Rversion, Tag: wire.NoTag, Msize: msize, Version: text}
}

func refusal(text string) wire.Msg {
	return wire.Msg{Type: wire.Rerror, Tag: wire.NoTag, Ename: text}
}

var every = []wire.Dialect{wire.EN, wire.E, wire.Plain}

// TestVersion: what is agreed on, and after how many offers. Every script ends with
// the last answer that is looked at.
func TestVersion(t *testing.T) {
	const ask = 65536
	for _, tt := range []struct {
		name    string
		offers  []wire.Dialect
		answers []wire.Msg
		want    wire.Dialect
		err     error
	}{
		{"the best", every, []wire.Msg{version("9P2000.e.n", ask)}, wire.EN, nil},
		{"the next best", every, []wire.Msg{version("9P2000.e", 8192)}, wire.E, nil},
		{"a suffix is unknown", every, []wire.Msg{version("9P2000", ask), version("9P2000.e", ask)}, wire.E, nil},
		{"every suffix is unknown", every, []wire.Msg{version("9P2000", ask), version("9P2000", ask)}, wire.Plain, nil},
		{"unknown", every, []wire.Msg{version("unknown", 0), version("unknown", 0), version("9P2000", ask)}, wire.Plain, nil},
		{"errors", every, []wire.Msg{refusal("bad version"), refusal("bad version"), version("9P2000", ask)}, wire.Plain, nil},
		{"Linux's errors", []wire.Dialect{wire.LE, wire.L}, []wire.Msg{{Type: wire.Rlerror, Tag: wire.NoTag, Errno: 22}, version("9P2000.L", ask)}, wire.L, nil},
		{"more than was offered", every, []wire.Msg{version("9P2000", ask), version("9P2000.e.n", ask), version("9P2000.e.n", ask)}, 0, errs.Unsupported},
		{"something else", every, []wire.Msg{version("9P2000.L", ask), version("9P2000.u", ask), version("", ask)}, 0, errs.Unsupported},
		{"nothing but errors", every, []wire.Msg{refusal("no"), refusal("no"), refusal("no")}, 0, errs.Unsupported},
		{"a small msize", every, []wire.Msg{version("9P2000.e.n", wire.MinMsize-1)}, 0, errs.Protocol},
		{"the least msize", every, []wire.Msg{version("9P2000.e.n", wire.MinMsize)}, wire.EN, nil},
		{"a large msize", every, []wire.Msg{version("9P2000.e.n", ask+1)}, 0, errs.Protocol},
		{"another tag", every, []wire.Msg{{Type: wire.Rversion, Tag: 1, Msize: ask, Version: "9P2000.e"}}, 0, errs.Protocol},
		{"a T-message", every, []wire.Msg{{Type: wire.Tversion, Tag: wire.NoTag, Msize: ask, Version: "9P2000.e"}}, 0, errs.Protocol},
		{"the end", every, nil, 0, io.EOF},
		{"the end after a refusal", every, []wire.Msg{refusal("no")}, 0, io.EOF},
	} {
		s := &server{t: t}
		talk := s.say(wire.None, tt.answers...).talk()
		err := talk.version(ask, tt.offers...)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if n := len(s.requests(wire.None)); n != max(len(tt.answers), 1) && tt.err != io.EOF {
			t.Errorf("%s: %d offers for %d answers", tt.name, n, len(tt.answers))
		}
		if err == nil && (talk.Dialect != tt.want || talk.Msize != tt.answers[len(tt.answers)-1].Msize || talk.Count != 0) {
			t.Errorf("%s: agreed on %s, msize %d, count %d", tt.name, talk.Dialect, talk.Msize, talk.Count)
		}
	}
}

// agreed is a talk in a dialect.
func agreed(t testing.TB, d wire.Dialect) (*server, *Talk) {
	t.Helper()
	s := (&server{t: t}).say(wire.None, version(d.String(), 8192))
	talk := s.talk()
	if err := talk.version(8192, d); err != nil {
		t.Fatal(err)
	}
	s.asked.Reset()
	return s, talk
}

// errAny is any error that is no refusal.
var errAny = errors.New("any")

// TestSession: what every answer to Tsession means.
func TestSession(t *testing.T) {
	rsession := wire.Msg{Type: wire.Rsession, Tag: wire.NoTag}
	lerror := func(e linux.Errno) wire.Msg {
		return wire.Msg{Type: wire.Rlerror, Tag: wire.NoTag, Errno: uint32(e)}
	}
	for _, tt := range []struct {
		name    string
		dialect wire.Dialect
		answer  wire.Msg
		want    standing
		err     error
	}{
		{"there", wire.EN, rsession, found, nil},
		{"there", wire.LE, rsession, found, nil},
		{"not there", wire.E, refusal(errs.CannotResume.Text()), announced, nil},
		{"not there, with a detail", wire.EN, refusal(errs.CannotResume.Text() + ": expired"), announced, nil},
		{"not there", wire.LE, lerror(errs.CannotResume.ErrnoL()), announced, nil},
		{"busy", wire.E, refusal(errs.Busy.Text()), 0, errs.Busy},
		{"busy", wire.LE, lerror(errs.Busy.ErrnoL()), 0, errs.Busy},
		{"in trouble", wire.EN, refusal(errs.IO.Text()), 0, errs.IO},
		{"no sessions", wire.E, refusal(errs.Unsupported.Text()), sessionless, nil},
		{"a text of nobody's", wire.E, refusal("go away"), sessionless, nil},
		{"another tag", wire.E, wire.Msg{Type: wire.Rsession}, 0, errs.Protocol},
		{"another answer", wire.E, wire.Msg{Type: wire.Rclunk, Tag: wire.NoTag}, 0, errs.Protocol},
	} {
		s, talk := agreed(t, tt.dialect)
		s.say(tt.dialect, tt.answer)
		got, err := talk.session([8]byte{1})
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s, %s: %d, %v; want %d, %v", tt.dialect, tt.name, got, err, tt.want, tt.err)
		}
		if talk.Count != 0 {
			t.Errorf("%s: Tsession was counted", tt.name)
		}
	}
}

// TestNoSession: nothing is asked where there can be no session.
func TestNoSession(t *testing.T) {
	for d, key := range map[wire.Dialect][8]byte{wire.Plain: {1}, wire.L: {1}, wire.EN: {}} {
		s, talk := agreed(t, d)
		if got, err := talk.session(key); got != sessionless || err != nil || s.asked.Len() > 0 {
			t.Errorf("%s: %d, %v after %q", d, got, err, s.requests(d))
		}
	}
}

// TestResume: the states of three requests, as a server may send them.
func TestResume(t *testing.T) {
	const u, a, r = wire.Unseen, wire.Answered, wire.Running
	for _, tt := range []struct {
		states []uint8
		ok     bool
	}{
		{[]uint8{a, r, u}, true},
		{[]uint8{u, u, u}, true},
		{[]uint8{r, a, a}, true},
		{[]uint8{u, a, a}, false}, // the unseen are the last
		{[]uint8{a, u, r}, false},
		{[]uint8{a, r, 3}, false}, // no such state
		{[]uint8{255, 0, 0}, false},
		{[]uint8{a, a}, false}, // not as many as numbers
		{[]uint8{a, a, a, a}, false},
		{nil, false},
	} {
		s, talk := agreed(t, wire.EN)
		s.say(wire.EN, wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, States: tt.states}, wire.Msg{Type: wire.Rwrite, Tag: 5})
		got, _, err := talk.resume([]uint64{4, 7, 8}, 0, 0)
		if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, errs.Protocol) {
			t.Errorf("%v: %v", tt.states, err)
		}
		if diff := cmp.Diff([]string{"Tresume tag ~0 numbers 4 7 8"}, s.requests(wire.EN)); diff != "" {
			t.Error(diff)
		}
		if !tt.ok {
			continue
		}
		if _, err := talk.Ask(&wire.Msg{Type: wire.Twrite, Tag: 5}); err != nil { // the kept reply, which was not lost
			t.Error(err)
		}
		if !bytes.Equal(got, tt.states) {
			t.Errorf("%v: got %v", tt.states, got)
		}
	}
}

func TestResumeRefused(t *testing.T) {
	s, talk := agreed(t, wire.EN)
	s.say(wire.EN, refusal(errs.Invalid.Text()+": request 9 is named"))
	if _, _, err := talk.resume([]uint64{9}, 0, 0); !IsRefusal(err) || !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	many := make([]uint64, wire.MaxNumbers+1)
	if _, _, err := talk.resume(many, 0, 0); !errors.Is(err, errs.Invalid) || IsRefusal(err) {
		t.Errorf("more numbers than there may be: %v", err)
	}
}

// TestAuthenticate: the afid is let go whatever becomes of the message.
func TestAuthenticate(t *testing.T) {
	rauth, rwrite, rclunk := wire.Msg{Type: wire.Rauth}, wire.Msg{Type: wire.Rwrite, Count: 7}, wire.Msg{Type: wire.Rclunk}
	no := func(text string) wire.Msg { return wire.Msg{Type: wire.Rerror, Ename: text} }
	for _, tt := range []struct {
		name    string
		answers []wire.Msg
		asked   string
		err     error
	}{
		{"good", []wire.Msg{rauth, rwrite, rclunk}, "Tauth Twrite Tclunk", nil},
		{"not needed", []wire.Msg{no(errs.NotFound.Text())}, "Tauth", errs.NotFound},
		{"not good", []wire.Msg{rauth, no(errs.AuthFailed.Text()), rclunk}, "Tauth Twrite Tclunk", errs.AuthFailed},
		{"a clunk that fails", []wire.Msg{rauth, rwrite, no(errs.IO.Text())}, "Tauth Twrite Tclunk", errs.IO},
		{"cut", []wire.Msg{rauth}, "Tauth Twrite Tclunk", io.EOF},
	} {
		s, talk := agreed(t, wire.EN)
		s.say(wire.EN, tt.answers...)
		if err := talk.authenticate("MUMBLE:", "u"); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		var types []string
		for _, m := range s.requests(wire.EN) {
			types = append(types, strings.Fields(m)[0])
		}
		if got := strings.Join(types, " "); got != tt.asked || talk.Count != uint64(len(types)) {
			t.Errorf("%s: asked %s, counted %d", tt.name, got, talk.Count)
		}
	}
}

// TestFrames: what is no frame, or not an answer, ends the talk.
func TestFrames(t *testing.T) {
	sized := func(size uint32, rest ...byte) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, size), rest...)
	}
	for _, tt := range []struct {
		name   string
		answer []byte
		err    error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", []byte{7, 0, 0}, io.ErrUnexpectedEOF},
		{"a size of nothing", sized(0, byte(wire.Rclunk), 0, 0), errs.Protocol},
		{"a size under a header's", sized(6, byte(wire.Rclunk), 0, 0), errs.Protocol},
		{"a size over msize", sized(8193, byte(wire.Rclunk), 0, 0), errs.Protocol},
		{"a size that no memory has", sized(1<<32-1, byte(wire.Rclunk), 0, 0), errs.Protocol},
		{"half a frame", sized(20, byte(wire.Rclunk), 0, 0), io.ErrUnexpectedEOF},
		{"a type of another dialect", sized(11, byte(wire.Rlerror), 0, 0, 2, 0, 0, 0), errAny},
		{"no type", sized(7, 0, 0, 0), errAny},
		{"too short for its type", sized(8, byte(wire.Rattach), 0, 0, 1), errAny},
		{"another request's answer", sized(7, byte(wire.Rremove), 0, 0), errs.Protocol},
		{"another tag", sized(7, byte(wire.Rclunk), 1, 0), errs.Protocol},
		{"good", sized(7, byte(wire.Rclunk), 0, 0), nil},
	} {
		s, talk := agreed(t, wire.E)
		s.says.Write(tt.answer)
		_, err := talk.Ask(&wire.Msg{Type: wire.Tclunk, Fid: 1})
		if IsRefusal(err) || tt.err == errAny && err == nil || tt.err != errAny && !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

// TestFirstFrame: before an msize is agreed on a frame is at most the least msize.
func TestFirstFrame(t *testing.T) {
	for size, want := range map[int]error{wire.MinMsize: nil, wire.MinMsize + 1: errs.Protocol} {
		s := (&server{t: t}).say(wire.None, version(strings.Repeat("x", size-13), 8192))
		s.say(wire.None, version("9P2000", 8192))
		err := s.talk().version(8192, wire.E, wire.Plain)
		if !errors.Is(err, want) {
			t.Errorf("a frame of %d bytes: %v, want %v", size, err, want)
		}
	}
}

// failing is a transport that takes nothing.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestNotSent(t *testing.T) {
	talk := &Talk{w: failing{}, frames: NewFrames(strings.NewReader(""))}
	if err := talk.version(8192, wire.E); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if _, err := talk.Ask(&wire.Msg{Type: wire.Tresume}); !errors.Is(err, errs.Invalid) {
		t.Errorf("a message that no dialect yet has: %v", err)
	}
}

// TestRefused: the kind and the errno of every form of an error.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		m     wire.Msg
		text  string
		kind  error
		errno linux.Errno
	}{
		{wire.Msg{Type: wire.Rerror, Ename: errs.NoSpace.Text() + ": 1 byte"}, errs.NoSpace.Text() + ": 1 byte", errs.NoSpace, 0},
		{wire.Msg{Type: wire.Rerror, Ename: errs.NotFound.Text(), Errno: 2}, errs.NotFound.Text(), errs.NotFound, linux.ENOENT},
		{wire.Msg{Type: wire.Rlerror, Errno: uint32(linux.EBUSY)}, linux.EBUSY.Error(), errs.Busy, linux.EBUSY},
		{wire.Msg{Type: wire.Rerror, Ename: "go away"}, "go away", nil, 0},
	} {
		r := Refused(&tt.m)
		if r == nil || r.Error() != tt.text || r.Errno != tt.errno || !errors.Is(r.Unwrap(), tt.kind) {
			t.Errorf("%v: %+v", tt.m, r)
		}
	}
	if r := Refused(&wire.Msg{Type: wire.Rclunk}); r != nil {
		t.Errorf("Rclunk refuses: %v", r)
	}
}

// FuzzTalk: whatever a server answers, a greeting ends, with what it promises.
func FuzzTalk(f *testing.F) {
	s := &server{t: f}
	for _, d := range []wire.Dialect{wire.EN, wire.E, wire.Plain} {
		s.say(wire.None, version(d.String(), 8192))
	}
	f.Add(bytes.Clone(s.says.Bytes()))
	s.say(wire.EN, refusal(errs.CannotResume.Text()), wire.Msg{Type: wire.Rauth}, wire.Msg{Type: wire.Rwrite}, wire.Msg{Type: wire.Rclunk})
	f.Add(bytes.Clone(s.says.Bytes()))
	s.says.Reset()
	s.say(wire.None, version("9P2000.e.n", 8192)).say(wire.EN, wire.Msg{Type: wire.Rsession, Tag: wire.NoTag})
	s.say(wire.EN, wire.Msg{Type: wire.Rresume, Tag: wire.NoTag, States: []uint8{wire.Answered, wire.Running, wire.Unseen}})
	f.Add(bytes.Clone(s.says.Bytes()))
	f.Add(s.says.Bytes()[:s.says.Len()-1])
	f.Fuzz(func(t *testing.T, says []byte) {
		s := &server{t: t}
		s.says.Write(says)
		talk := s.talk()
		if talk.version(8192, every...) != nil {
			return
		}
		if talk.Msize < wire.MinMsize || talk.Msize > 8192 || talk.Dialect.IsL() {
			t.Fatalf("agreed on %s, msize %d", talk.Dialect, talk.Msize)
		}
		standing, err := talk.session([8]byte{1})
		if err != nil || standing != found {
			_ = talk.authenticate("MUMBLE:", "")
			return
		}
		numbers := []uint64{1, 2, 5}
		if states, _, err := talk.resume(numbers, 0, 0); err == nil {
			w, _ := filled(wire.Tread, wire.Tread, wire.Tread)
			w.applyStates(states, talk.Dialect)
			if w.Len() != len(numbers) || len(w.Sent)+len(w.Queued) != len(numbers) {
				t.Fatalf("%v lost a request", states)
			}
		}
	})
}
