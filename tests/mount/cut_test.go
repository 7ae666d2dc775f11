package mount

import (
	"slices"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/guest/kernel"
)

// effort is how often the way is cut; the soak cuts more.
var effort = struct{ cuts, fuseCuts int }{200, 60}

// cuts: four programs in the guest change keys while the way to meta9d is cut
// 200 times, and one reply of 40 is torn; by FUSE, on this machine's own kernel, where
// replies are ten times as many, 60 times, and one reply of 400. No error reaches them, nothing was done
// twice, and what there is in the end is what they expect.
func cuts(t *testing.T, w *world) {
	const apart = 200 * time.Millisecond
	times := effort.cuts
	if w.fuse() {
		times = effort.fuseCuts
	}
	if w.via == "fuse" {
		w.cut.spares = 10
	}
	guests := map[string]int{"virtio": 5}
	w.mount(t, "")
	c := w.work(t, false)
	begin := time.Now()
	if !w.cut.chop(times, apart, guests[w.via]) {
		t.Errorf("the guest did not come back; sessions: %v", w.sessions(t))
	}
	took := time.Since(begin)
	c.progress(t, 10)
	c.stop(t)
	t.Logf("%d cuts and %d torn replies in %v, by %d connections so far", times, w.cut.torn, took, w.cut.conns)
	w.modest(t)
	w.unmount(t)
}

// TestCloud: in guests whose kernel has no 9P, meta9 mount takes FUSE by itself, and what
// holds for it on this machine's kernel holds there, by each way to meta9d.
func TestCloud(t *testing.T) {
	boots := kernel.Cloud
	if suite := *guest.Kernel; slices.Contains(kernel.Suites, suite) {
		boots = suite + kernel.CloudSuffix
	}
	for _, via := range []string{"tcp", "virtio"} {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			w := newWorldOn(t, via, boots, daemon.Options{})
			w.Sh(t, "! grep -qw 9p /proc/filesystems")
			w.mount(t, "")
			w.Sh(t, "grep ' fuse.meta9 ' /proc/mounts && uname -r")
			w.unmount(t)
			bigValues(t, w)
			if via == "virtio" { // by tcp this machine's kernel has it
				fresh(t, w)
			}
			killed(t, w)
			for name := range w.values(t) {
				w.remove(t, name)
			}
			cuts(t, w)
		})
	}
}
