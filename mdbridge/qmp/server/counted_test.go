package server

import (
	"strings"
	"testing"
	"time"

	"meta9/fs/budget"
)

// TestCounted: a long command counts in the admin's memory while it comes, and one that
// finds no room there gets an error, and the end of its connection. Short ones need none.
func TestCounted(t *testing.T) {
	b := budget.New(budget.Limits{Admin: 4 << 20, Wait: 50 * time.Millisecond})
	w := newWorld(t, Config{Budget: b})
	long := `{"execute":"query-version","id":"` + strings.Repeat("x", 200_000) + `"}`
	c := w.dial()
	if text := c.ask(long); !strings.Contains(text, `"return"`) {
		t.Errorf("%.100s", text)
	}
	short := func() {
		if text := c.ask(`{"execute":"query-version"}`); !strings.Contains(text, `"return"`) {
			t.Errorf("%.100s", text)
		}
	}
	short() // the bytes are given back after the answer, and before the next command is read
	if n := b.Stats().Admin; n != 0 {
		t.Errorf("%d bytes are held after the answer", n)
	}
	b.Admin().Force(2 << 20)
	short()
	if text := c.ask(long); !strings.Contains(text, "bytes in flight, 4194304 is its share") {
		t.Errorf("%.100s", text)
	}
}
