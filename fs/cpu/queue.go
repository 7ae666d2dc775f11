package cpu

import "container/heap"

// Who waits: the Places of each Share, first in, first out; and a heap of the Shares that
// have some, least CPU time first. A Share that rests is not in the heap until rested. The
// lists and the heap are guarded by Scheduler.mu.

// rested ends the rest of s.
func (s *Share) rested() {
	t := s.sched
	t.mu.Lock()
	defer t.mu.Unlock()
	s.rests = false
	s.reorder()
	t.dispatch()
}

// push lets p wait for a place of s. t.mu is held.
func (s *Share) push(p *Place) {
	t := s.sched
	s.waiting.Add(1)
	p.next = nil
	if s.first == nil {
		s.first = p
		used := s.time.Load()
		s.time.Add(max(used, t.used) - used) // it has not saved up what it did not use
	} else {
		s.last.next = p
	}
	s.last = p
	s.reorder()
}

// pop takes the Place out that waits longest. t.mu is held.
func (s *Share) pop() *Place {
	p := s.first
	s.first, p.next = p.next, nil
	s.waiting.Add(-1)
	if s.first == nil {
		heap.Remove(&s.sched.ready, s.at)
	}
	return p
}

// drop takes p out, unless it does not wait any more. t.mu is held.
func (s *Share) drop(p *Place) bool {
	for at, before := &s.first, (*Place)(nil); *at != nil; at, before = &(*at).next, *at {
		if *at != p {
			continue
		}
		*at, p.next = p.next, nil
		if s.last == p {
			s.last = before
		}
		s.waiting.Add(-1)
		if s.first == nil && s.at >= 0 {
			heap.Remove(&s.sched.ready, s.at)
		}
		return true
	}
	return false
}

// reorder puts s where it belongs in the heap, if it waits. t.mu is held.
func (s *Share) reorder() {
	if s.first == nil || s.rests {
		return
	}
	// It does not pay for ever for what it did, nor for having been kept from the CPU
	// by other programs while it had a place.
	if used := s.time.Load(); used > s.sched.used+int64(debt) {
		s.time.Add(s.sched.used + int64(debt) - used)
	}
	s.key = s.time.Load()
	if s.at < 0 {
		heap.Push(&s.sched.ready, s)
	} else {
		heap.Fix(&s.sched.ready, s.at)
	}
}

// byTime has the Share first that has used least.
type byTime []*Share

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].key < h[j].key }

func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push is heap.Interface's.
func (h *byTime) Push(x any) {
	s := x.(*Share)
	s.at = len(*h)
	*h = append(*h, s)
	s.sched.queued.Store(int32(len(*h)))
}

// Pop is heap.Interface's.
func (h *byTime) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.at = -1
	s.sched.queued.Store(int32(last))
	return s
}
