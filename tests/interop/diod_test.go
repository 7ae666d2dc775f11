package interop

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// diod runs one of the commands of Debian's diod, clients of 9P2000.L in C over
// its libnpclient, against the server at socket.
func diod(t *testing.T, command, socket string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("/usr/sbin/"+command, append([]string{"-s", socket}, args...)...).CombinedOutput()
	return string(out), err
}

func TestDiod(t *testing.T) {
	testenv.NeedDebian(t, "/usr/sbin/diodcat", "diod")
	srv := testenv.Start(t, daemon.Options{})
	srv.NewVM(testenv.UUID(1), oneLine(samplePayload(1)))
	socket := srv.VM(testenv.UUID(1))
	wants := func(want, command string, args ...string) {
		t.Helper()
		if out, err := diod(t, command, socket, args...); err != nil || strings.TrimSpace(out) != want {
			t.Errorf("%s %q: %v, %q; want %q", command, args, err, out, want)
		}
	}
	wants("blue", "diodcat", "-a", "keys", "color")
	wants("blue", "diodcat", "-a", "/", "keys/color")
	wants("#!/bin/sh\necho hello", "diodcat", "-a", "", "-m", "4096", "keys/user-script")
	wants("color\nuser-script\nempty", "diodls", "-a", "keys") // in the order of their cookies
	wants("keys\ninternal\nsdc\nnocloud\nvm.json\ntxn", "diodls", "-a", "")
	out, err := diod(t, "diodls", socket, "-l", "-a", "keys")
	line := regexp.MustCompile(`(?m)^-rw-------\.?\s.*\s4 .* color$`)
	if err != nil || !line.MatchString(out) {
		t.Errorf("diodls -l: %v\n%s", err, out)
	}
	for text, args := range map[string][]string{
		"No such file": {"-a", "keys", "none"}, "Not a directory": {"-a", "keys/color", "x"},
	} {
		if out, err := diod(t, "diodcat", socket, args...); err == nil || !strings.Contains(out, text) {
			t.Errorf("diodcat %q: %v, %q", args, err, out)
		}
	}
}

// TestDiodload loads the server with 16 threads on one connection each. diodload
// knows only diod's own folder "ctl", so what it attaches to is changed on the way.
func TestDiodload(t *testing.T) {
	testenv.NeedDebian(t, "/usr/sbin/diodload", "diod")
	srv := testenv.Start(t, daemon.Options{})
	srv.NewVM(testenv.UUID(1), `{"uuid":"`+testenv.UUID(1)+`","customer_metadata":{"null":"","zero":"`+strings.Repeat("0", 1000)+`"}}`)
	socket := filepath.Join(t.TempDir(), "ctl.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go otherFolder(c, srv.VM(testenv.UUID(1)))
		}
	}()
	for _, args := range [][]string{{"-r", "1", "-g"}, {"-r", "1"}} {
		out, err := diod(t, "diodload", socket, args...)
		if err != nil || !regexp.MustCompile(`[1-9]`).MatchString(out) {
			t.Errorf("diodload %q: %v\n%s", args, err, out)
		}
		t.Logf("diodload %q: %s", args, out)
	}
}

// otherFolder passes frames on, and makes of every Tattach one to the keys.
func otherFolder(client net.Conn, server string) {
	defer client.Close()
	s, err := net.Dial("unix", server)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		defer client.Close()
		io.Copy(client, s)
	}()
	var head [raw.HeaderLen]byte
	for {
		if _, err := io.ReadFull(client, head[:]); err != nil {
			return
		}
		size := binary.LittleEndian.Uint32(head[:])
		if size < raw.HeaderLen || size > 1<<20 {
			return
		}
		frame := append(bytes.Clone(head[:]), make([]byte, size-raw.HeaderLen)...)
		if _, err := io.ReadFull(client, frame[raw.HeaderLen:]); err != nil {
			return
		}
		var m wire.Msg
		if wire.Type(head[4]) == wire.Tattach && wire.Decode(&m, frame, wire.L) == nil {
			m.Aname = "keys"
			frame, _ = wire.Append(nil, &m, wire.L)
		}
		if _, err := s.Write(frame); err != nil {
			return
		}
	}
}
