package session_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"meta9/session"
	"meta9/session/wire"
)

// lines gathers a trace.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.text, "\n")
}

// TestTrace: one line for each message, and nothing secret in any.
func TestTrace(t *testing.T) {
	var trace lines
	w := newWorld(t, func(c *session.Config) { c.Trace = trace.add })
	a := w.dial("unix", peers["admin"])
	a.do(version(), wire.Rversion)
	a.do(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: [8]byte{0xde, 0xad, 0xbe, 0xef}}, wire.Rerror)
	a.do(&wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, Uname: "glenda", Aname: "vms/" + vmOne}, wire.Rattach)
	const password = "hunter2"
	for _, m := range []struct {
		ask  wire.Msg
		want wire.Type
	}{
		{wire.Msg{Type: wire.Tswrite, Names: []string{"internal", "root_pw"}, Data: []byte(password)}, wire.Rswrite},
		{wire.Msg{Type: wire.Tsread, Names: []string{"internal", "root_pw"}}, wire.Rsread},
		{wire.Msg{Type: wire.Tsread, Names: []string{"vm.json"}}, wire.Rsread},
		{wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"internal", "root_pw"}}, wire.Rwalk},
		{wire.Msg{Type: wire.Topen, Fid: 1, Mode: wire.ORdWr}, wire.Ropen},
		{wire.Msg{Type: wire.Tread, Fid: 1, Count: 100}, wire.Rread},
		{wire.Msg{Type: wire.Twrite, Fid: 1, Data: []byte(password)}, wire.Rwrite},
		{wire.Msg{Type: wire.Tsread, Fid: 1}, wire.Rsread},
		{wire.Msg{Type: wire.Tswrite, Names: []string{"ctl"}, Data: []byte(`update {"set_internal_metadata":{"x_pw":"` + password + `"}}`)}, wire.Rswrite},
		{wire.Msg{Type: wire.Tswrite, Names: []string{"keys", "color"}, Data: []byte("blue")}, wire.Rswrite},
		{wire.Msg{Type: wire.Tsread, Names: []string{"keys", "color"}}, wire.Rsread},
		{wire.Msg{Type: wire.Tclunk, Fid: 9}, wire.Rerror},
	} {
		a.do(&m.ask, m.want)
	}
	got := trace.String()
	for _, hidden := range []string{password, "deadbeef"} {
		if strings.Contains(got, hidden) {
			t.Errorf("%s is in the trace:\n%s", hidden, got)
		}
	}
	for _, shown := range []string{
		`admin 1 <- Tversion tag ~0 msize 8192 version "9P2000.e"`, `admin 1 -> Rversion tag ~0 msize 8192 version "9P2000.e"`,
		`data "blue"`, `-> Rerror tag 0 ename "fid unknown or out of range"`,
	} {
		if !strings.Contains(got, shown) {
			t.Errorf("%s is not in the trace:\n%s", shown, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != 30 {
		t.Errorf("%d lines for 30 messages:\n%s", n, got)
	}
}

// TestLogIsRare: what guests do wrong is logged once, whoever's connection it is.
func TestLogIsRare(t *testing.T) {
	w := newWorld(t, nil)
	for range 50 {
		a := w.dial("unix", peers["vm"])
		a.hello("9P2000")
		for range 10 {
			a.do(&wire.Msg{Type: wire.Tclunk, Fid: 9}, wire.Rerror)
		}
		a.write(make([]byte, wire.HeaderLen))
		if m := a.receive(); m != nil {
			t.Fatal(m)
		}
	}
	w.until("the ends", func() bool { return w.server.Stats().ProtocolErrors == 50 })
	log := []byte(w.log.String())
	if n := bytes.Count(log, []byte("\n")); n != 1 {
		t.Fatalf("%d lines:\n%s", n, log)
	}
	var line map[string]any
	if err := json.Unmarshal(log, &line); err != nil || line["who"] != "vm:"+vmOne || line["via"] != "unix:one" {
		t.Errorf("%v: %s", err, log)
	}
}

// TestSetTrace turns tracing on and off while a connection goes on.
func TestSetTrace(t *testing.T) {
	var trace lines
	w := newWorld(t, nil)
	a := w.dial("unix", peers["admin"])
	a.do(version(), wire.Rversion)
	w.server.SetTrace(trace.add)
	a.do(&wire.Msg{Type: wire.Tclunk, Fid: 7}, wire.Rerror)
	w.server.SetTrace(nil)
	a.do(&wire.Msg{Type: wire.Tclunk, Fid: 8}, wire.Rerror)
	if got := trace.String(); strings.Contains(got, "Tversion") || !strings.Contains(got, "fid 7") || strings.Contains(got, "fid 8") {
		t.Errorf("traced:\n%s", got)
	}
}
