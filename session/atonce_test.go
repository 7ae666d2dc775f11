package session_test

import (
	"testing"
	"time"

	"meta9/fs/cpu"
	"meta9/session/wire"
)

// TestAtOnceIsBounded: a VM that has used more than its part of the CPUs does not go on with
// the requests that need no place, and waits for each for half a second at most.
func TestAtOnceIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	c := w.dial("unix", peers["vm"])
	c.hello("9P2000.L")
	flush := &wire.Msg{Type: wire.Tflush, Tag: 1, Oldtag: 2}
	c.do(flush, wire.Rflush)
	vm, other := w.store.Cell(vmOne).CPU(), w.store.CPU().Share()
	chargeHour := func() { // vm must rest for the next half a second, since other is at work, too
		for _, s := range []*cpu.Share{vm, other, vm} {
			var p cpu.Place
			p.Force(s)
			p.Give()
		}
		vm.Charge(time.Hour, 1)
	}
	chargeHour()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				chargeHour()
			case <-stop:
				return
			}
		}
	}()
	n := 0
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); n++ {
		c.do(flush, wire.Rflush)
	}
	close(stop)
	<-stopped
	if n > 20 { // two, where nothing stands still for longer than others are at work
		t.Errorf("%d requests in 700 ms of rest", n)
	}
}
