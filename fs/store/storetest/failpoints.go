package storetest

import (
	"errors"
	"fmt"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// RunFailpoints plays the script once for every transaction in it, and has the engine
// refuse that one: for want of room, after which the same step goes, and finally. In
// either case nothing of the step shows, and what the engine holds is what the store
// had acknowledged.
func RunFailpoints(t *testing.T, open func(dir string) store.Engine) {
	whole := playFailing(t, open, 0, nil)
	for nth := 1; ; nth++ {
		full := playFailing(t, open, nth, errs.New(errs.NoSpace, "failpoint"))
		diff(t, fmt.Sprint("rows after no room in transaction ", nth), whole.rows, full.rows)
		if !full.failed {
			return // the script has no more
		}
		playFailing(t, open, nth, errors.New("failpoint"))
	}
}

// played is what a play of the script came to.
type played struct {
	rows   []Row // without what depends on the time and on numbers that were skipped
	failed bool
}

func playFailing(t *testing.T, open func(dir string) store.Engine, nth int, err error) played {
	t.Helper()
	dir := t.TempDir()
	fail := &Failing{Engine: open(dir), Nth: nth, Err: err}
	s := mustOpen(t, fail)
	var p played
	final := false
	for _, st := range script() {
		before := Rows(s)
		in := st.in
		if st.vm != "" {
			in.Cell = s.Cell(st.vm)
		}
		r := s.Do(&in)
		if r.Err == nil && !final {
			continue
		}
		if r.Err == nil || !p.failed && fail.Applies() != nth {
			t.Fatalf("%s: %v, in transaction %d of which %d fails", st.name, r.Err, fail.Applies(), nth)
		}
		diff(t, "rows after the refused step "+st.name, before, Rows(s))
		p.failed, final = true, s.Err() != nil
		if final {
			continue
		}
		if r := s.Do(&in); r.Err != nil {
			t.Fatalf("%s, once more: %v", st.name, r.Err)
		}
	}
	if final != (p.failed && !errors.Is(err, errs.NoSpace)) {
		t.Fatalf("failed for good: %v, after %v", final, err)
	}
	want := Rows(s)
	mustClose(t, s)
	again := mustOpen(t, open(dir))
	diff(t, "rows after reopen", want, Rows(again))
	mustClose(t, again)
	p.rows = timeless(want)
	for i := range p.rows {
		p.rows[i].ID, p.rows[i].Rev = 0, 0
		for sp := range p.rows[i].Entries {
			for j := range p.rows[i].Entries[sp] {
				e := &p.rows[i].Entries[sp][j]
				e.ID, e.Rev = 0, 0
			}
		}
	}
	return p
}
