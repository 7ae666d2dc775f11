package hostile

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestAlone: where one VM alone is at work, no request waits for the budget of its VM:
// not for memory, whatever it does of what guests do, and not for the CPUs, of which it
// has all. With 64 connections it makes no pauses; with one, it waits for no place either.
func TestAlone(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{})
	srv.NewVM(testenv.UUID(0), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"key":"value"}}`, testenv.UUID(0)))
	g := &target{Server: srv, t: t}
	before := make(map[string]int)
	waited := func(names ...string) {
		t.Helper()
		for _, name := range names {
			n, err := g.metric("meta9_" + name)
			if more := n - before[name]; more != 0 || err != nil {
				t.Errorf("%s is %d more, %v", name, more, err)
			}
		}
	}
	c := g.attached(0)
	defer c.Close()
	for _, name := range []string{"cpu_waits_total", "cpu_rests_total", "cpu_late_total"} { // at the start others were at work
		var err error
		if before[name], err = g.metric("meta9_" + name); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond) // the admin was at work until now
	for range 5000 {
		if _, err := c.Sread(0, "keys", "key"); err != nil {
			t.Fatal(err)
		}
	}
	waited("memory_waits_total", "memory_refused_total", "cpu_waits_total", "cpu_rests_total", "cpu_late_total")

	large := make([]byte, 50<<10)
	var wg sync.WaitGroup
	for i := range 63 {
		c := g.attached(0)
		defer c.Close()
		wg.Go(func() {
			for n := range 50 {
				err := c.Swrite(0, large[:n<<10], "keys", fmt.Sprint(i))
				if err == nil {
					_, err = c.Sread(0, "keys", fmt.Sprint(i))
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	waited("memory_waits_total", "memory_refused_total", "cpu_rests_total", "cpu_late_total")
}
