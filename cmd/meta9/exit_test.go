package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/session/wire"
)

// deafServer answers what it takes to connect, and forgets all sessions. A Tattach is refused if deny is
// set; any other request ends the connection, or, if mute is set, is ignored.
type deafServer struct {
	deny error
	mute bool
}

// listen gives the server's address.
func (d deafServer) listen(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "9p.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(conn)
		}
	}()
	return path
}

func (d deafServer) serve(conn net.Conn) {
	defer conn.Close()
	dialect := wire.None
	for {
		b := make([]byte, wire.HeaderLen)
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		size, typ, tag, _ := wire.Split(b)
		if _, err := io.CopyN(io.Discard, conn, int64(size)-int64(len(b))); err != nil {
			return
		}
		r := wire.Msg{Type: typ + 1, Tag: tag, Msize: 8192, Version: "9P2000.e.n"}
		switch {
		case typ == wire.Tversion:
			dialect = wire.EN
		case typ == wire.Tsession:
			r.Type, r.Ename = wire.Rerror, errs.CannotResume.Text()
		case typ == wire.Tattach && d.deny != nil:
			r.Type, r.Ename = wire.Rerror, d.deny.Error()
		case typ == wire.Tattach:
		case d.mute:
			continue
		default:
			return
		}
		frame, _ := wire.Append(nil, &r, dialect)
		conn.Write(frame)
	}
}

// meta9 runs the command in this process.
func meta9(ctx context.Context, args ...string) (code int, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, args, strings.NewReader(""), &out, &err)
	return code, err.String()
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server deafServer
		args   []string
		code   int
		stderr string
	}{
		{"a change and the connection", deafServer{}, []string{"put", "keys/a", "v"}, exitUnknown, "meta9: keys/a: may or may not have happened: connection lost: the server closed it\n"},
		{"a change and the time", deafServer{mute: true}, []string{"--timeout", "50ms", "put", "keys/a", "v"}, exitUnknown, "meta9: keys/a: may or may not have happened: no answer within 50ms\n"},
		{"a VM and the connection", deafServer{}, []string{"vm", "delete", testVM}, exitUnknown, "meta9: " + testVM + ": may or may not"},
		{"a read and the time", deafServer{mute: true}, []string{"--timeout", "50ms", "cat", "keys/a"}, exitNoServer, "meta9: keys/a: no answer within 50ms"},
		{"the attach", deafServer{deny: errs.Permission}, []string{"cat", "keys/a"}, exitNoServer, "permission denied\n"},
	} {
		code, stderr := meta9(t.Context(), append([]string{"--addr", tt.server.listen(t)}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: exit code %d, want %d: %q", tt.name, code, tt.code, stderr)
		}
	}
}

func TestHighestExitCodeCounts(t *testing.T) {
	a := &app{err: io.Discard}
	for _, err := range []error{errs.NotFound, client.ErrUnknown, errs.Permission, nil} {
		a.fail(err)
	}
	if a.code != exitUnknown {
		t.Errorf("exit code %d, want %d", a.code, exitUnknown)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	code, stderr := meta9(ctx, "--addr", deafServer{mute: true}.listen(t), "cat", "keys/a")
	if code != exitSignal || stderr != "" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestExitCodeOfErrors(t *testing.T) {
	for want, err := range map[int]error{
		exitOK:       nil,
		exitFailed:   &client.Error{Op: "read", Path: "a", Kind: errs.NotFound, Err: errs.NotFound},
		exitUsage:    misused("no"),
		exitNoServer: &client.Error{Op: "connect", Path: "a", Err: errors.New("refused")},
		exitUnknown:  errors.Join(context.Canceled, client.ErrUnknown),
		exitSignal:   context.Canceled,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

// What comes from a guest does not get at the terminal.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"plain ü": "plain ü", "\x1b[2J": "?[2J", "a\nb\t": "a?b?", "\u009b": "?", "\xff": "\uFFFD"} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progress{}
	p.say("unseen")
	p.on(&b) // no terminal
	p.show()
	p.hide()
	if b.Len() > 0 {
		t.Errorf("not on a terminal: %q", b.String())
	}
	p = &progress{w: &b, timer: time.NewTimer(time.Hour)}
	p.say("connecting")
	if b.Len() > 0 {
		t.Errorf("at once: %q", b.String())
	}
	p.show()
	p.connection(client.State{Err: errors.New("gone\n")})
	p.connection(client.State{Up: true})
	if _, err := (output{&b, p}).Write([]byte("result\n")); err != nil {
		t.Error(err)
	}
	p.say("unseen")
	const want = "\r\x1b[Kconnecting\r\x1b[Kconnection lost, trying again: gone?\r\x1b[Kconnected again\r\x1b[Kresult\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
