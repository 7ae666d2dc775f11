package mdata

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta9/fs/errs"
)

// TestNeverQuiet: a line on which something is always said cannot be used, and nothing is
// sent on it. One with a longer pause can: the client sends its empty line. Time is the
// bubble's own, so the pauses are exact.
func TestNeverQuiet(t *testing.T) {
	const text = "i/o error: ttyS1: connecting: the line is never quiet"
	if sent, err := connectWhileTold(t, quiet-time.Millisecond, time.Minute); err == nil || err.Error() != text || sent != "" {
		t.Errorf("%v, sent %q", err, sent)
	}
	if sent, err := connectWhileTold(t, quiet+time.Millisecond, time.Minute); sent == "" || sent[0] != '\n' {
		t.Errorf("with longer pauses: %v, sent %q", err, sent)
	}
}

// TestNoTimeLeft: that a line is never quiet is not said where there was no time to hear that.
func TestNoTimeLeft(t *testing.T) {
	for _, pause := range []time.Duration{quiet, quiet / 4} {
		if _, err := connectWhileTold(t, pause, quiet/2); !errors.Is(err, errs.IO) || !strings.Contains(err.Error(), "no answer in 50ms") {
			t.Errorf("a word each %v: %v", pause, err)
		}
	}
}

// connectWhileTold connects, within limit, by a shared line on which the host says something
// after each pause. It returns what the client sent, and the error.
func connectWhileTold(t *testing.T, pause, limit time.Duration) (sent string, err error) {
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
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		c := &Client{path: "ttyS1", link: guest, shared: true, exchange: exchange{began: time.Now()}}
		if err = c.connect(ctx); err != nil {
			err = c.explain(ctx, "connecting", err)
		}
		c.Close()
		sent = <-all
		talking.Wait()
	})
	return sent, err
}
