package session

import "container/heap"

// parkedHeap is a heap of the VMs that have parked sessions: first the VM with the
// greatest part of what may be parked; of VMs with equal parts, the one whose oldest
// session was parked first. Server.mu guards it, as all of table.
type parkedHeap struct {
	limits *Limits
	all    []*vmUse
}

// adminPart is the part of all parked sessions that is reserved for the admin: as long as
// the admin has no more, only guests' sessions are evicted.
const adminPart = 1.0 / 16

// of returns the VM's part of the parked sessions, or of their bytes, whichever is
// greater.
func (s *parkedHeap) of(u *vmUse) float64 {
	part := max(float64(u.parked.Len())/float64(s.limits.Parked), float64(u.bytes)/float64(s.limits.ParkedBytes))
	if u.admin {
		part -= adminPart
	}
	return part
}

// update adds, moves or removes u after one of its sessions was parked or unparked.
func (s *parkedHeap) update(u *vmUse) {
	u.parkedPart = s.of(u)
	switch {
	case u.heapAt < 0:
		heap.Push(s, u)
	case u.parked.Len() == 0:
		heap.Remove(s, u.heapAt)
	default:
		heap.Fix(s, u.heapAt)
	}
}

// most returns the session that is evicted first.
func (s *parkedHeap) most() *session { return s.all[0].oldest() }

func (u *vmUse) oldest() *session { return u.parked.Front().Value.(*session) }

// Len is heap.Interface's.
func (s *parkedHeap) Len() int { return len(s.all) }

// Less is heap.Interface's.
func (s *parkedHeap) Less(i, j int) bool {
	a, b := s.all[i], s.all[j]
	if a.parkedPart != b.parkedPart {
		return a.parkedPart > b.parkedPart
	}
	return a.oldest().since.Before(b.oldest().since)
}

// Swap is heap.Interface's.
func (s *parkedHeap) Swap(i, j int) {
	s.all[i], s.all[j] = s.all[j], s.all[i]
	s.all[i].heapAt, s.all[j].heapAt = i, j
}

// Push is heap.Interface's.
func (s *parkedHeap) Push(x any) {
	u := x.(*vmUse)
	u.heapAt = len(s.all)
	s.all = append(s.all, u)
}

// Pop is heap.Interface's.
func (s *parkedHeap) Pop() any {
	last := len(s.all) - 1
	u := s.all[last]
	s.all[last], s.all = nil, s.all[:last]
	u.heapAt = -1
	return u
}
