package mount

import (
	"testing"

	"meta9/tests/testenv"
)

// unmount unmounts, and sees to it that nothing stays: no process in the guest, no
// session on the host.
func (w *world) unmount(t *testing.T) {
	t.Helper()
	w.Sh(t, "meta9 umount "+dir)
	testenv.Eventually(t, "meta9 ends in the guest", func() bool { return w.Sh(t, "pidof meta9 || :") == "" })
	if left := w.sessions(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}
