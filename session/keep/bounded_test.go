package keep_test

import (
	"testing"
	"time"

	"meta9/session/keep"
	"meta9/session/wire"
)

// TestBounded: a client may have so much unanswered, and no more is read from it
// then.
func TestBounded(t *testing.T) {
	for name, size := range map[string]int{"requests": 1, "bytes": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.put("k", "")
			c := newRaw(t, h.keeper(keep.Options{}))
			c.version("9P2000.L", wire.MaxMsize)
			c.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid}, wire.Rattach)
			c.open(1, rdwr, "keys", "k")
			h.stop()
			sent := make(chan int)
			go func() {
				n := 0
				for ; n < 4096 && n*size < 64<<20; n++ {
					m := write(1, 0, string(make([]byte, size)))
					m.Tag = uint16(n)
					frame, _ := wire.Append(nil, m, wire.L)
					_ = c.NC.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
					if _, err := c.NC.Write(frame); err != nil {
						break
					}
				}
				sent <- n
			}()
			n := <-sent
			if n < 8 || n*size > 20<<20 || n >= 4096 {
				t.Errorf("%d requests were taken", n)
			}
			h.torn = true
			c.NC.Close()
			h.start()
		})
	}
}
