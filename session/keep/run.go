package keep

import (
	"context"
	"math/rand/v2"
	"time"
)

// The waits between tries: none before the first, then from backoffMin, doubled
// each time, to backoffMax; jitter takes up to half away, so that guests that were
// lost together do not come back together.
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 2 * time.Second
)

// goodLife is how long a transport must live to be worth a quick return if nothing
// was answered on it.
const goodLife = 10 * time.Second

// run carries the client over one transport after the other, until ctx ends.
func (k *Keeper) run(ctx context.Context) {
	tries := 0
	for l := k.first; l != nil; l, tries = k.again(ctx, tries) {
		start := time.Now()
		err := k.carryUntil(ctx, l)
		if ctx.Err() != nil || k.over() {
			return
		}
		if l.served || l.bye || time.Since(start) > goodLife {
			tries = 0
		}
		if !l.bye {
			k.opt.Log.Info().Err(err).Msg("the connection is lost; requests wait")
		}
	}
}

// over tells whether the client is gone.
func (k *Keeper) over() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gone
}

// carryUntil is carry, at most until ctx ends.
func (k *Keeper) carryUntil(ctx context.Context, l *link) error {
	defer context.AfterFunc(ctx, func() { l.nc.Close() })()
	return k.carry(l)
}

// again connects, after a while that grows with tries; nil: ctx has ended.
func (k *Keeper) again(ctx context.Context, tries int) (*link, int) {
	told := ""
	for ; ; tries++ {
		if !pause(ctx, tries) {
			return nil, tries
		}
		wish := k.heed()
		l, err := k.connect(ctx)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				l.nc.Close()
			}
			return nil, tries
		case err == nil && k.fulfil(wish):
			return l, tries + 1
		case err == nil: // there is another wish by now
			l.nc.Close()
		case err.Error() != told: // once for each reason
			told = err.Error()
			k.opt.Log.Warn().Err(err).Msg("no connection; trying on")
		}
	}
}

// heed makes everything anew for a Tversion of the client's, if there is one.
func (k *Keeper) heed() *hello {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.wish; h != nil {
		k.base, k.msize = h.dialect, h.msize
		k.reset()
		k.agreed, k.stale, k.fresh, k.known = false, false, true, false
	}
	return k.wish
}

// fulfil answers that Tversion, now that there is a server; false: there is a later
// one.
func (k *Keeper) fulfil(h *hello) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wish != h {
		return false
	}
	if h != nil {
		k.welcome(h)
		k.wish, k.begun = nil, true
		k.moved.Broadcast()
	}
	return true
}

// reset forgets all requests and fids; mu is held, or nobody else is there yet.
func (k *Keeper) reset() {
	k.window = window{byTag: make(map[uint16]*request)}
	k.fids.reset()
}

// leave ends the session: the client is gone. The server is given a moment to hear
// of it, so that it keeps nothing.
func (k *Keeper) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = true
	k.moved.Broadcast()
	for k.hangUp(); k.up != nil; {
		k.moved.Wait()
	}
}

// pause waits before a try; false: ctx ended.
func pause(ctx context.Context, tries int) bool {
	if tries == 0 {
		return ctx.Err() == nil
	}
	wait := min(backoffMin<<min(tries-1, 16), backoffMax)
	t := time.NewTimer(wait - rand.N(wait/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
