package client

import "sync"

// rootFid is the fid of the attach, on every connection.
const rootFid uint32 = 0

// fids hands out the numbers of fids. A number comes back when the server is
// known not to use it: after a clunk, or with a new attach. Until then it is a
// stray, which the next transport takes care of.
type fids struct {
	mu     sync.Mutex
	next   uint32
	free   []uint32
	strays []stray
}

// stray is a fid that a lost server may still hold, in the session of an epoch.
type stray struct {
	num   uint32
	epoch uint64
}

// get gives an unused number; never rootFid.
func (f *fids) get() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.free); n > 0 {
		num := f.free[n-1]
		f.free = f.free[:n-1]
		return num
	}
	f.next++
	return f.next
}

func (f *fids) put(num uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, num)
}

func (f *fids) lose(s stray) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strays = append(f.strays, s)
}

// takeStrays gives the strays that the server of epoch may still hold, and frees
// the numbers of all others, whose fids went with an earlier attach.
func (f *fids) takeStrays(epoch uint64) (held []uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.strays {
		if s.epoch == epoch {
			held = append(held, s.num)
		} else {
			f.free = append(f.free, s.num)
		}
	}
	f.strays = nil
	return held
}
