// Package durability takes meta9d at its word: what it acknowledged is there
// after SIGKILL, nothing else is there by half (kill_test.go); and since a kill
// does not lose what the kernel holds, a trace of its system calls shows that
// no reply leaves before the data is on the disk (strace_test.go).
package durability

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var (
	seed  = flag.Uint64("seed", 20121217, "what the random moments and values grow from")
	kills = flag.Int("kills", 50, "how often meta9d is killed")
)

const (
	nWriters = 64
	nVMs     = 4
)

// TestKill kills meta9d under writing clients at random moments, starts it
// again, and has every client look for what was acknowledged to it.
func TestKill(t *testing.T) {
	random := rand.New(rand.NewPCG(*seed, 0))
	srv := testenv.Start(t, daemon.Options{})
	for i := range nVMs {
		srv.NewVM(testenv.UUID(i), fmt.Sprintf(`{"uuid":%q}`, testenv.UUID(i)))
	}
	writers := make([]writer, nWriters)
	for i := range writers {
		writers[i] = newWriter(i)
	}
	acked := 0
	for kill := range *kills {
		acked += killOnce(t, srv, writers, time.Duration(random.Int64N(int64(60*time.Millisecond))))
		srv.Restart()
		for i, w := range writers {
			c := srv.Conn("vms/" + testenv.UUID(i%nVMs) + "/keys")
			if err := w.check(c); err != nil {
				t.Errorf("seed %d, kill %d, writer %d: %v", *seed, kill, i, err)
			}
			c.Close()
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, %d acknowledged changes, every one found", *kills, acked)
	if acked < *kills*nWriters {
		t.Errorf("only %d changes were acknowledged: the kills came before the work", acked)
	}
	undamaged(t, srv)
}

// killOnce lets the writers write until some time after all have begun, kills
// meta9d, and gives how many changes were acknowledged.
func killOnce(t *testing.T, srv *testenv.Server, writers []writer, after time.Duration) int {
	t.Helper()
	var begun, ended sync.WaitGroup
	acked := make([]int, len(writers))
	for i, w := range writers {
		c, err := srv.Dial("vms/" + testenv.UUID(i%nVMs) + "/keys")
		if err != nil {
			t.Fatal(err)
		}
		begun.Add(1)
		ended.Go(func() {
			defer c.Close()
			err := w.step(c)
			begun.Done()
			for ; err == nil; err = w.step(c) {
				acked[i]++
			}
		})
	}
	begun.Wait()
	time.Sleep(after) // the random moment
	srv.Kill()
	ended.Wait()
	sum := 0
	for _, n := range acked {
		sum += n
	}
	return sum
}

// undamaged has meta9d look through what the kills left.
func undamaged(t *testing.T, srv *testenv.Server) {
	t.Helper()
	srv.Kill()
	out, err := exec.Command(srv.Bin, "--check", "--data", srv.Data(), "--run", srv.Run()).CombinedOutput()
	if err != nil {
		t.Errorf("meta9d --check: %v\n%s", err, out)
	}
	if err := os.RemoveAll(srv.Data()); err != nil {
		t.Error(err)
	}
}
