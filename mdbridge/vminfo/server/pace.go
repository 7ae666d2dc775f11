package server

import (
	"slices"
	"time"
)

// dueTime is from when on the chain's next line, l, may be published; mu is held.
func (f *feed) dueTime(c *chain, l *line) time.Time {
	due := c.paidUntil.Add(-vmBurst)
	if all := f.paidUntil.Add(-allBurst); l.large() && all.After(due) {
		due = all
	}
	if last := c.pendingSince.Add(vmLongest); due.After(last) {
		return last
	}
	return due
}

// pay counts the cost, in bytes, of a line of the VM that is published; mu is held.
func (f *feed) pay(c *chain, cost int64, now time.Time) {
	if now.Sub(f.counted) >= busyAgain {
		f.counted = now
		for c := range f.busy {
			if !c.paidUntil.After(now) {
				delete(f.busy, c)
			}
		}
	}
	c.paidUntil = paidUntil(c.paidUntil, now, cost, min(vmPace, allPace/int64(1+len(f.busy))))
	f.paidUntil = paidUntil(f.paidUntil, now, cost, allPace)
	f.busy[c] = struct{}{}
}

// paidUntil is the time until which a cost is paid for at that pace, where the costs
// before it are paid until before.
func paidUntil(before, now time.Time, cost, pace int64) time.Time {
	if before.Before(now) {
		before = now
	}
	took := min(time.Duration(float64(cost)/float64(pace)*float64(time.Second)), vmLongest)
	if after := before.Add(took); after.Before(now.Add(vmLongest)) {
		return after
	}
	return now.Add(vmLongest)
}

// publishDue publishes the pending lines that are due, those that wait longest first:
// each may move the others' due times. It returns how long it is until the next one is
// due. mu is held.
func (f *feed) publishDue(now time.Time) time.Duration {
	next := time.Hour
	var due []*chain
	for c := range f.waiting {
		if left := f.dueTime(c, c.pending).Sub(now); left > 0 {
			next = min(next, left)
		} else {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, func(a, b *chain) int { return a.pendingSince.Compare(b.pendingSince) })
	for _, c := range due {
		l := c.pending
		if left := f.dueTime(c, l).Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		c.pending = nil
		delete(f.waiting, c)
		f.publish(c, l, now)
	}
	return next
}
