// Package reload makes meta9d read its settings again and again while clients work.
package reload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	clients = 8
	reloads = 1000 // half of them of settings that cannot be used
)

// TestUnderLoad: 1,000 reloads, good and bad in turn, end no connection, lose no write,
// and each says what came of it.
func TestUnderLoad(t *testing.T) {
	d := testenv.Start(t, daemon.Options{Config: "log_level = \"info\"\n"})
	uuid := testenv.UUID(1)
	d.NewVM(uuid, `{"uuid":"`+uuid+`"}`)
	file := filepath.Join(d.Dir, "meta9d.toml")
	before, err := d.FDs()
	if err != nil {
		t.Fatal(err)
	}

	var stop atomic.Bool
	var done sync.WaitGroup
	written := make([]int, clients)
	for i := range clients {
		c := d.Conn("vms/" + uuid)
		done.Go(func() {
			key := fmt.Sprintf("k%d", i)
			for !stop.Load() {
				value := fmt.Sprint(written[i] + 1)
				if err := c.Swrite(0, []byte(value), "keys", key); err != nil {
					t.Errorf("client %d, write %s: %v", i, value, err)
					return
				}
				written[i]++
				if got, err := c.Sread(0, "keys", key); err != nil || string(got) != value {
					t.Errorf("client %d reads %q, %v; it wrote %q", i, got, err, value)
					return
				}
			}
		})
	}

	reload := func(settings string, said func(log string) bool) {
		t.Helper()
		next := file + ".new"
		if err := os.WriteFile(next, []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
		if err := d.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the log says what came of it", func() bool { return said(d.Log()) })
	}
	for i := range reloads / 2 {
		bad := fmt.Sprintf("unknown: x%d\"", i)
		reload(fmt.Sprintf("x%d = 1\nlog_level = \"error\"\n", i), func(log string) bool { return strings.Contains(log, bad) })
		level := []string{"info", "warn"}[i%2]
		reload("log_level = \""+level+"\"\n", func(log string) bool {
			_, after, _ := strings.Cut(log, bad)
			return strings.Contains(after, `"message":"reloaded"`)
		})
	}
	stop.Store(true)
	done.Wait()

	total := 0
	c := d.Conn("vms/" + uuid)
	for i, n := range written {
		total += n
		if got, err := c.Sread(0, "keys", fmt.Sprintf("k%d", i)); err != nil || string(got) != fmt.Sprint(n) {
			t.Errorf("client %d: the key is %q, %v; %d was acknowledged", i, got, err, n)
		}
	}
	if total == 0 {
		t.Error("nobody wrote")
	}
	if after, err := d.FDs(); err != nil || after > before+clients+2 {
		t.Errorf("%d descriptors, %d before, %v", after, before, err)
	}
	t.Logf("%d reloads beside %d writes", reloads, total)
}
