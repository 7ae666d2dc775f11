package server

import (
	"slices"
	"time"
)

// due is from when on a line that is the chain's next may be told; mu is held.
func (f *feed) due(c *chain, l *line) time.Time {
	due := c.paid.Add(-vmBurst)
	if all := f.paid.Add(-allBurst); l.large() && all.After(due) {
		due = all
	}
	if last := c.since.Add(vmLongest); due.After(last) {
		return last
	}
	return due
}

// pay counts what was told of a VM; mu is held.
func (f *feed) pay(c *chain, cost int64, now time.Time) {
	if now.Sub(f.counted) >= busyAgain {
		f.counted = now
		for c := range f.busy {
			if !c.paid.After(now) {
				delete(f.busy, c)
			}
		}
	}
	c.paid = paid(c.paid, now, cost, min(vmPace, allPace/int64(1+len(f.busy))))
	f.paid = paid(f.paid, now, cost, allPace)
	f.busy[c] = struct{}{}
}

// paid is up to when a cost is paid for at that pace, after what was before.
func paid(before, now time.Time, cost, pace int64) time.Time {
	if before.Before(now) {
		before = now
	}
	took := min(time.Duration(float64(cost)/float64(pace)*float64(time.Second)), vmLongest)
	if after := before.Add(took); after.Before(now.Add(vmLongest)) {
		return after
	}
	return now.Add(vmLongest)
}

// tellDue tells what has waited long enough, of those that wait longest first: each that
// is told may make the others wait on. It gives how long it is until something else is
// due. mu is held.
func (f *feed) tellDue(now time.Time) time.Duration {
	next := time.Hour
	var due []*chain
	for c := range f.waiting {
		if left := f.due(c, c.waits).Sub(now); left > 0 {
			next = min(next, left)
		} else {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, func(a, b *chain) int { return a.since.Compare(b.since) })
	for _, c := range due {
		l := c.waits
		if left := f.due(c, l).Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		c.waits = nil
		delete(f.waiting, c)
		f.tell(c, l, now)
	}
	return next
}
