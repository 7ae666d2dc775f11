package session

import "time"

// stuckTime is how long a connection with large buffers may take no replies, or send
// nothing more of a frame that it has begun, while others wait for memory.
const stuckTime = 10 * time.Second

// GiveBack is for budget.Budget.OnShortage. It ends the VM's connections that are stuck,
// and its session that was parked longest, unless sessions are kept for the next process.
// "" means the connections whose peers have not proved who they are; they have no sessions
// to lose.
func (s *Server) GiveBack(vm string) {
	var stuck []*conn
	var gone []*session
	now := time.Now()
	s.mu.Lock()
	for c := range s.conns {
		if c.vm == vm && !c.handed && (vm != "" || c.nobody) && c.stuck(now) {
			stuck = append(stuck, c)
		}
	}
	if u := s.vms[vm]; vm != "" && !s.closing && u != nil && u.parked.Len() > 0 {
		gone = s.release(u.oldest())
	}
	s.mu.Unlock()
	for _, c := range stuck {
		c.kill()
	}
	closeAll(gone)
	s.stats.Expired.Add(int64(len(gone)))
	s.stats.Stuck.Add(int64(len(stuck)))
}

// stuck tells whether nothing has moved here for stuckTime, in large buffers. A connection
// whose monitor is held is working.
func (c *conn) stuck(now time.Time) bool {
	if at := c.in.moving.Load(); at != 0 && now.Sub(time.Unix(0, at)) > stuckTime {
		return true
	}
	if !c.mu.TryLock() {
		return false
	}
	defer c.mu.Unlock()
	return cost(c.buffer) > 0 && now.Sub(time.Unix(0, c.since)) > stuckTime
}
