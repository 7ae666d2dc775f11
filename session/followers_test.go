package session_test

import (
	"runtime"
	"testing"

	"meta9/fs/cpu"
	"meta9/session/wire"
)

// TestFollowersShare: a connection of the admin that follows events has no place of its
// own when there is none, as one that does not follow has; and it has again when it no
// longer follows.
func TestFollowersShare(t *testing.T) {
	w := newWorld(t, nil)
	admin, follower := w.dial("unix", peers["admin"]), w.dial("unix", peers["admin"])
	for _, c := range []*client{admin, follower} {
		c.do(version(), wire.Rversion)
		c.do(attach(0), wire.Rattach)
	}
	follower.do(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"events"}}, wire.Rwalk)
	follower.do(&wire.Msg{Type: wire.Topen, Tag: 1, Fid: 1}, wire.Ropen)
	places := make([]cpu.Place, runtime.GOMAXPROCS(0))
	for i := range places {
		if !places[i].Take(w.store.CPU().Share()) {
			t.Fatal("a place is not to be had")
		}
	}
	waits := w.store.CPU().Stats().Waits
	follower.send(&wire.Msg{Type: wire.Tstat, Tag: 2, Fid: 1})
	w.until("the follower waits", func() bool { return w.store.CPU().Stats().Waits > waits })
	admin.do(&wire.Msg{Type: wire.Tstat, Tag: 1}, wire.Rstat)
	for i := range places {
		places[i].Give()
	}
	if m := follower.receive(); m == nil || m.Type != wire.Rstat {
		t.Fatalf("got %v", m)
	}
	follower.do(&wire.Msg{Type: wire.Tclunk, Tag: 1, Fid: 1}, wire.Rclunk)
	for i := range places {
		places[i].Take(w.store.CPU().Share())
		defer places[i].Give()
	}
	follower.do(&wire.Msg{Type: wire.Tstat, Tag: 1}, wire.Rstat)
}
