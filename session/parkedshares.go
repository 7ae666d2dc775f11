package session

import "container/heap"

// shares orders those who have parked sessions: who has the greatest share of what may
// be parked is first, and among those that have the same, whose oldest was parked
// longest. Server.mu guards it, as all of table.
type shares struct {
	limits *Limits
	all    []*vmUse
}

// adminShare is the part of what may be parked that is the admin's own: as long as he
// has no more, only guests make room.
const adminShare = 1.0 / 16

// of is the share, of sessions or of bytes, whichever is greater.
func (s *shares) of(u *vmUse) float64 {
	share := max(float64(u.parked.Len())/float64(s.limits.Parked), float64(u.bytes)/float64(s.limits.ParkedBytes))
	if u.admin {
		share -= adminShare
	}
	return share
}

// update puts u where it belongs, after a session of it was parked or was taken.
func (s *shares) update(u *vmUse) {
	u.share = s.of(u)
	switch {
	case u.place < 0:
		heap.Push(s, u)
	case u.parked.Len() == 0:
		heap.Remove(s, u.place)
	default:
		heap.Fix(s, u.place)
	}
}

// most is the session that goes first.
func (s *shares) most() *session { return s.all[0].oldest() }

func (u *vmUse) oldest() *session { return u.parked.Front().Value.(*session) }

// Len is heap.Interface's.
func (s *shares) Len() int { return len(s.all) }

// Less is heap.Interface's.
func (s *shares) Less(i, j int) bool {
	a, b := s.all[i], s.all[j]
	if a.share != b.share {
		return a.share > b.share
	}
	return a.oldest().since.Before(b.oldest().since)
}

// Swap is heap.Interface's.
func (s *shares) Swap(i, j int) {
	s.all[i], s.all[j] = s.all[j], s.all[i]
	s.all[i].place, s.all[j].place = i, j
}

// Push is heap.Interface's.
func (s *shares) Push(x any) {
	u := x.(*vmUse)
	u.place = len(s.all)
	s.all = append(s.all, u)
}

// Pop is heap.Interface's.
func (s *shares) Pop() any {
	last := len(s.all) - 1
	u := s.all[last]
	s.all[last], s.all = nil, s.all[:last]
	u.place = -1
	return u
}
