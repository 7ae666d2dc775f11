package mdata

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNeverQuiet: a line on which something is always said cannot be used, and nothing is
// sent on it. One with a longer pause can: the client sends its empty line. Time is the
// bubble's own, so the pauses are exact.
func TestNeverQuiet(t *testing.T) {
	const text = "i/o error: ttyS1: connecting: the line is never quiet"
	if sent, err := connectWhileTold(t, quiet-time.Millisecond); err == nil || err.Error() != text || sent != "" {
		t.Errorf("%v, sent %q", err, sent)
	}
	if sent, err := connectWhileTold(t, quiet+time.Millisecond); sent == "" || sent[0] != '\n' {
		t.Errorf("with longer pauses: %v, sent %q", err, sent)
	}
}

// connectWhileTold connects by a shared line on which the host says something after each
// pause, for a minute. It returns what the client sent, and the error.
func connectWhileTold(t *testing.T, pause time.Duration) (sent string, err error) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := net.Pipe()
		var talking sync.WaitGroup
		talking.Go(func() {
			for err := error(nil); err == nil; {
				time.Sleep(pause)
				_, err = host.Write([]byte("tick\n"))
			}
		})
		all := make(chan string)
		go func() {
			b, _ := io.ReadAll(host)
			all <- string(b)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := &Client{path: "ttyS1", link: guest, shared: true}
		if err = c.connect(ctx); err != nil {
			err = c.explain(ctx, "connecting", err)
		}
		c.Close()
		sent = <-all
		talking.Wait()
	})
	return sent, err
}
