package vminfo_test

import (
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"meta9/mdbridge/vminfo"
)

// TestHostilePatterns: what would take memory or time out of all proportion is refused
// before it is made.
func TestHostilePatterns(t *testing.T) {
	dots := strings.Repeat(".", 300)
	for _, c := range []struct{ what, expr, want string }{
		{"3,000 dots a thousand times", "(?:" + strings.Repeat(".", 3000) + "){1000}", "1024 are allowed"},
		{"300 dots a thousand times", "(?:" + dots + "){1000}", "too large"},
		{"three times that", strings.Repeat("(?:"+dots+"){1000}", 3), "too large"},
		{"nested repetitions", "((a{10}){10}){10}", "too large"},
		{"not closed", "(", "no regular expression"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		_, err := vminfo.ParseQuery("alias=" + url.QueryEscape("~"+c.expr))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.200v, want an error with %q", c.what, err, c.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: it took %d bytes to refuse it", c.what, n)
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("%s: it took %v to refuse it", c.what, d)
		}
	}
	for _, expr := range []string{"^web", "web-[0-9]{1,3}$", "(prod|test)\\..*", "[[:alpha:]]+", ".{0,200}"} {
		if _, err := vminfo.NewFilter("alias", "~"+expr); err != nil {
			t.Errorf("%s: %v", expr, err)
		}
	}
	for _, many := range []string{"fields=" + strings.Repeat("a,", 256), strings.Repeat("fields=a&", 257)} {
		if _, err := vminfo.ParseQuery(many); err == nil || !strings.Contains(err.Error(), "256") {
			t.Errorf("257 fields: %v", err)
		}
	}
	if _, err := vminfo.ParseQuery("fields=" + strings.Repeat("a,", 255)); err != nil {
		t.Error(err)
	}
	if _, err := vminfo.ParseQuery(strings.Repeat("alias=x&", 17)); err == nil {
		t.Error("17 filters are taken")
	}
}
