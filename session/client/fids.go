package client

import "sync"

// rootFid is the fid of the attach, on every connection.
const rootFid uint32 = 0

// fids allocates numbers of fids. A number is free again when the server surely does not
// use it: after a clunk, or with a new attach. Until then it is a stray, which is clunked
// on the next transport.
type fids struct {
	mu     sync.Mutex
	next   uint32
	free   []uint32
	strays []stray
}

// stray is a fid that the server may still have, in the session of an epoch.
type stray struct {
	num   uint32
	epoch uint64
}

// alloc returns an unused number; never rootFid.
func (f *fids) alloc() uint32 {
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

func (f *fids) addStray(s stray) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strays = append(f.strays, s)
}

// takeStrays removes all strays. It returns those that the server may still have in the
// session of epoch, and frees the others: their fids went with an earlier attach.
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
