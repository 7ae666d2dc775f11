package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/wire"
)

// hasty is a transport on which every deadline comes at once.
type hasty struct{ net.Conn }

func soon(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.Now().Add(20 * time.Millisecond)
}

func (h hasty) SetReadDeadline(t time.Time) error  { return h.Conn.SetReadDeadline(soon(t)) }
func (h hasty) SetWriteDeadline(t time.Time) error { return h.Conn.SetWriteDeadline(soon(t)) }

func (f *fake) hastyDial(ctx context.Context) (net.Conn, error) {
	conn, err := f.Dial(ctx)
	return hasty{conn}, err
}

// A server that leaves a reply half sent, or reads no more, is lost after a while;
// one that is only idle is not.
func TestStalled(t *testing.T) {
	for _, what := range []fate{half, deaf} {
		f := newFake(t)
		f.put("keys/a", []byte("value"))
		c, err := client.Dial(t.Context(), "fake", client.Options{Dial: f.hastyDial})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // idle, for longer than a deadline
		if n := f.count("Tversion"); n != 1 {
			t.Errorf("an idle transport was lost: %d", n)
		}
		f.next(wire.Tstat, what)
		if what == deaf {
			go c.Stat(t.Context(), "keys/a") // the next request finds it deaf
			until(t, "the server is deaf", func() bool { return f.count("Tstat") == 1 })
		}
		if _, err := c.Stat(t.Context(), "keys/a"); err != nil {
			t.Error(err)
		}
		if n := f.count("Tversion"); n != 2 {
			t.Errorf("fate %d: %d transports", what, n)
		}
		c.Close()
	}
}

func TestAddresses(t *testing.T) {
	for addr, want := range map[string]error{
		"unix:" + filepath.Join(t.TempDir(), "none"): client.ErrUnavailable,
		filepath.Join(t.TempDir(), "none"):           client.ErrUnavailable,
		"./no:ne":                                    client.ErrUnavailable,
		"none":                                       client.ErrUnavailable,
		"tcp:127.0.0.1:1":                            client.ErrUnavailable,
		"tls:127.0.0.1:1":                            client.ErrUnavailable,
		"tcp:127.0.0.1":                              errs.Invalid,
		"tls:":                                       errs.Invalid,
		"unix:":                                      errs.Invalid,
		"udp:127.0.0.1:1":                            errs.Invalid,
		"":                                           errs.Invalid,
	} {
		_, err := client.Dial(t.Context(), addr, client.Options{TLS: &tls.Config{}})
		var e *client.Error
		if !errors.Is(err, want) || !errors.As(err, &e) || e.Path != addr {
			t.Errorf("%q: %v, want %v", addr, err, want)
		}
	}
}

// A greeting that the server does not answer ends with its context.
func TestSilentGreeting(t *testing.T) {
	f := newFake(t)
	f.next(wire.Tattach, silent)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Dial(ctx, "fake", client.Options{Dial: f.Dial}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
