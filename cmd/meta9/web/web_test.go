package web

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves a page that has no meta9d behind it: what anybody may ask for.
func serve(t *testing.T, s *Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() { // the context has ended
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestUnread: who asks, and does not take the answers, loses the connection.
func TestUnread(t *testing.T) {
	s := New(nil, Options{})
	s.slow = 100 * time.Millisecond
	addr := serve(t, s)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	ask := []byte(strings.Repeat("GET /style.css HTTP/1.1\r\nHost: "+addr+"\r\n\r\n", 100))
	for {
		if _, err = c.Write(ask); err != nil {
			break
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still there")
	}
}

// TestSizes: of what anybody may send little is read.
func TestSizes(t *testing.T) {
	s := New(nil, Options{})
	h := s.guard(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8009})
	body := strings.NewReader(`{"token":"` + strings.Repeat("A", maxBody) + `"}`)
	length := body.Len()
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8009/api/open", body)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest || length-body.Len() > 2*maxToken {
		t.Errorf("%d %s, and %d bytes were read", w.Code, w.Body, length-body.Len())
	}
	if len(s.keys) != 0 {
		t.Error("the page was opened")
	}
}

// TestHosts: only what leads here is a Host, whatever the port.
func TestHosts(t *testing.T) {
	for listen, hosts := range map[string]map[string]int{
		"127.0.0.1:8009": {"127.0.0.1:8009": 200, "localhost:8009": 200, "127.0.0.1": 421, "localhost": 421, "evil.example:8009": 421, "": 421},
		"127.0.0.1:80":   {"127.0.0.1": 200, "localhost": 200, "127.0.0.1:80": 200, "evil.example": 421},
		"[::1]:80":       {"[::1]": 200, "[::1]:80": 200, "::1": 421, "127.0.0.1": 421},
	} {
		addr, err := net.ResolveTCPAddr("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		h := New(nil, Options{}).guard(addr)
		for host, code := range hosts {
			r, err := http.NewRequest(http.MethodGet, "/style.css", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != code {
				t.Errorf("at %s, Host %q: %d, want %d", listen, host, w.Code, code)
			}
		}
	}
}
