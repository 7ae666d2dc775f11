package agent_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"meta9/cmd/meta9/agent"
)

// TestPassing: the way to a file may lead through folders that may not be listed.
func TestPassing(t *testing.T) {
	dir := real(t, t.TempDir())
	for _, err := range []error{os.MkdirAll(dir+"/a/b", 0o755), os.Chmod(dir+"/a", 0o111), os.Chmod(filepath.Dir(dir), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(dir+"/a", 0o755) })
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if os.Geteuid() == 0 {
			if err := unix.Setfsuid(65534); err != nil {
				done <- err
				return
			}
		}
		done <- agent.OpenPlace(dir + "/a/b/f")
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
