package server_test

import (
	"strings"
	"testing"
	"time"

	"meta9/fs/budget"
	"meta9/fs/store"
	"meta9/mdbridge/mdata/server"
)

// TestAccount: what a VM holds by other protocols counts here too. A long line and a long
// reply that have no room get FAILURE with a text, nothing is stored, and the connection
// goes on; what is short is answered all the same.
func TestAccount(t *testing.T) {
	b := budget.New(budget.Limits{VM: 10 << 20, Wait: 50 * time.Millisecond})
	w := newWorldOf(t, store.Config{}, server.Config{Budget: b})
	w.create(payload)
	large := strings.Repeat("x", 500_000)
	c := w.client()
	if got := c.put("large", large); got != "SUCCESS OK" {
		t.Fatal(got)
	}

	by9P := b.Account(uuid)
	defer by9P.Close()
	by9P.Force(9 << 20)
	refused := func(got string) {
		t.Helper()
		if !strings.HasPrefix(got, "FAILURE VM has ") || !strings.HasSuffix(got, "bytes in flight, 10485760 is its share") {
			t.Errorf("%.100q", got)
		}
	}
	refused(c.put("other", large))
	refused(c.ask("GET", "large"))
	if got := c.ask("GET", "other"); got != "NOTFOUND" {
		t.Errorf("%.100q", got)
	}
	if got := c.ask("GET", "color"); got != "SUCCESS blue" {
		t.Error(got)
	}

	by9P.Release(9 << 20)
	if got := c.ask("GET", "large"); got != "SUCCESS "+large {
		t.Errorf("%.100q", got)
	}
	eventually(t, "nothing is held", func() bool { return by9P.Used() == 0 })
}

// TestAccountCounts: a line that is not whole yet is counted while it comes.
func TestAccountCounts(t *testing.T) {
	b := budget.New(budget.Limits{})
	w := newWorldOf(t, store.Config{}, server.Config{Budget: b})
	w.create(payload)
	c := w.client()
	c.send("GET " + strings.Repeat("x", 500_000))
	a := b.Account(uuid)
	defer a.Close()
	eventually(t, "the line is counted", func() bool { return a.Used() >= 500_000 })
	c.Close()
	eventually(t, "nothing is held", func() bool { return a.Used() == 0 })
}
