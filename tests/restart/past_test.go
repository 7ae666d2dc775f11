package restart

import (
	"testing"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// as is another client that has what s had, and asks for its session.
func (s *speaker) as() (_ *speaker, known bool) {
	s.w.t.Helper()
	other := *s
	other.Conn = s.w.dial(s.version, s.key, true)
	r, err := other.RPC(wire.Tresume, wire.NoTag, other.sent, other.token, uint16(0))
	if err != nil {
		return &other, false
	}
	other.token = uint64(r.U32(0)) | uint64(r.U32(4))<<32
	return &other, true
}

// TestSetBackOverKill: what tells a guest that was set back outlives a kill. Its session is
// refused where its fid 1 is another file by now, and where it is not, because it has only
// read since, its writes reach their own file.
func TestSetBackOverKill(t *testing.T) {
	w := newWorld(t)
	for i, version := range []string{"9P2000.e.n.2", "9P2000.L.e.2"} {
		for key, reads := range []bool{false, true} {
			w.keys(map[string]string{"k": "old", "k2": "two"})
			s := w.speaker(version, byte(1+2*i+key))
			s.open(1, false, false, false)
			s.Close()
			s, known := s.as()
			if !known {
				t.Fatal("the session is not known")
			}
			then := *s // and now it is saved
			if reads {
				for range 5 {
					s.do(wire.Tread, uint32(1), uint64(0), uint32(3))
				}
			} else {
				s.do(wire.Tclunk, uint32(1))
				s.walk(1, "keys", "k2")
				if s.linux {
					s.do(wire.Tlopen, uint32(1), uint32(2))
				} else {
					s.do(wire.Topen, uint32(1), wire.ORdWr)
				}
			}
			w.Restart()
			s.Close()
			then.Conn.Close()
			back, known := then.as()
			if known && !reads {
				t.Errorf("%s: the session of the future is resumed", version)
			}
			_, err := back.ask(wire.Twrite, uint32(1), uint64(0), raw.Data("X"))
			if known != (err == nil) {
				t.Errorf("%s: resumed: %v, and a write says %v", version, known, err)
			}
			want := "old,two"
			if known {
				want = "Xld,two"
			}
			if got := w.both(); got != want {
				t.Errorf("%s, only reads since: %v: the keys are %q, want %q", version, reads, got, want)
			}
			back.Close()
		}
	}
}
