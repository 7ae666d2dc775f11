package session_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"meta9/session"
	"meta9/session/redial/redialtest"
	"meta9/session/wire"
)

// TestChurn has many clients fight for few sessions, each dropping its transport
// at random moments, while writes, event reads, flushes and clunks are under way.
// Nothing may be left but what is parked. It means most under the race detector.
func TestChurn(t *testing.T) {
	const clients, keys, rounds = 8, 3, 25
	w := newWorld(t, func(c *session.Config) { c.Limits.VMSessions = 2 })
	w.put("k", "v")
	var done sync.WaitGroup
	for i := range clients {
		done.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				w.churn(r, keys)
			}
		})
	}
	done.Wait()
	w.until("the end of all connections", func() bool { return w.server.Stats().Conns == 0 })
	st := w.server.Stats()
	if st.Sessions != st.Parked || st.Parked > 2 {
		t.Errorf("%+v", st)
	}
	if st.Resumed == 0 {
		t.Error("no session was ever resumed")
	}
}

// churn is one connection's life.
func (w *world) churn(r *rand.Rand, keys int) {
	server, nc := redialtest.Pair(w.t)
	w.serve(server, peers["vm"])
	defer nc.Close()
	var frames []byte
	add := func(d wire.Dialect, msgs ...*wire.Msg) {
		for _, m := range msgs {
			var err error
			if frames, err = wire.Append(frames, m, d); err != nil {
				w.t.Error(err)
			}
		}
	}
	add(wire.None, version())
	add(wire.E, &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: keyNumber(r.IntN(keys))})
	add(wire.E, &wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid})
	for i := range r.IntN(30) {
		add(wire.E, anything(r, uint16(100+i)))
	}
	_, _ = nc.Write(frames)
	answers := make([]byte, 1+r.IntN(400))
	_, _ = nc.Read(answers)
}

// anything is a message that changes, reads, waits or ends something.
func anything(r *rand.Rand, tag uint16) *wire.Msg {
	fid, other := uint32(r.IntN(6)), uint32(r.IntN(6))
	switch r.IntN(10) {
	case 0:
		return &wire.Msg{Type: wire.Twalk, Tag: tag, Fid: 0, Newfid: other, Names: []string{"keys", "k"}}
	case 1:
		return &wire.Msg{Type: wire.Twalk, Tag: tag, Fid: 0, Newfid: other, Names: []string{"events"}}
	case 2:
		return &wire.Msg{Type: wire.Topen, Tag: tag, Fid: fid, Mode: uint8(r.IntN(3)) | uint8(r.IntN(2))<<4}
	case 3, 4:
		return &wire.Msg{Type: wire.Twrite, Tag: tag, Fid: fid, Data: []byte(fmt.Sprint(tag))}
	case 5:
		return &wire.Msg{Type: wire.Tread, Tag: tag, Fid: fid, Count: 100}
	case 6:
		return &wire.Msg{Type: wire.Tclunk, Tag: tag, Fid: 1 + fid}
	case 7:
		return &wire.Msg{Type: wire.Tflush, Tag: tag, Oldtag: uint16(100 + r.IntN(30))}
	case 8:
		return &wire.Msg{Type: wire.Tswrite, Tag: tag, Names: []string{"keys", "k"}, Data: []byte("v")}
	default:
		return &wire.Msg{Type: wire.Tstat, Tag: tag, Fid: fid}
	}
}
