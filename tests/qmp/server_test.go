package qmp

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// newServer starts a meta9d that speaks QMP at a socket.
func newServer(t testing.TB) (s *testenv.Server, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9q-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "qmp.sock")
	return testenv.Start(t, daemon.Options{Args: []string{"--qmp-listen", "unix:" + path}}), path
}

// monitor connects go-qemu.
func monitor(t testing.TB, path string) *goqemu.SocketMonitor {
	t.Helper()
	m, err := goqemu.NewSocketMonitor("unix", path, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Disconnect() })
	return m
}

// run runs a command by go-qemu, and reads what it returned.
func run(m *goqemu.SocketMonitor, into any, execute string, args map[string]any) error {
	c := goqemu.Command{Execute: execute}
	if args != nil { // in an interface, a nil map would be null
		c.Args = args
	}
	cmd, err := json.Marshal(c)
	if err != nil {
		return err
	}
	raw, err := m.Run(cmd)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(raw, &struct{ Return any }{into})
}

func TestGoQEMU(t *testing.T) {
	s, path := newServer(t)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", fi, err)
	}
	m, uuid := monitor(t, path), testenv.UUID(1)
	if m.Version == nil || !strings.HasPrefix(m.Version.Package, "meta9 ") || len(m.Capabilities) != 0 {
		t.Errorf("version %+v, capabilities %q", m.Version, m.Capabilities)
	}
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := monitor(t, path) // go-qemu gives events to who is not waiting for an answer
	if err := run(other, nil, "vm-create", map[string]any{"vm": map[string]any{"uuid": uuid, "alias": "größe"}}); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Event != "VM_CREATED" || e.Data["uuid"] != uuid || time.Since(time.Unix(e.Timestamp.Seconds, 0)) > time.Minute {
		t.Errorf("%+v", e)
	}
	if err := run(other, nil, "metadata-put", map[string]any{"uuid": uuid, "key": "k", "value": "wörth"}); err != nil {
		t.Error(err)
	}
	if e := <-events; e.Event != "METADATA_CHANGED" || e.Data["key"] != "k" {
		t.Errorf("%+v", e)
	}
	var got struct{ Value string }
	if err := run(other, &got, "metadata-get", map[string]any{"uuid": uuid, "key": "k"}); err != nil || got.Value != "wörth" {
		t.Errorf("%+v: %v", got, err)
	}
	var sessions []map[string]any
	if err := run(other, &sessions, "query-sessions", nil); err != nil || len(sessions) != 0 {
		t.Errorf("%+v: %v", sessions, err)
	}
	if err := run(other, nil, "trace", map[string]any{"enable": true}); err != nil {
		t.Error(err)
	}
	s.Conn("")
	if err := run(other, &sessions, "query-sessions", nil); err != nil || len(sessions) != 1 || sessions[0]["who"] != "admin" {
		t.Errorf("%+v: %v", sessions, err)
	}
	testenv.Eventually(t, "9P is traced", func() bool { return strings.Contains(s.Log(), "admin 1 <- Tversion") })
	if err := run(other, nil, "nonsense", nil); err == nil || !strings.Contains(err.Error(), "has not been found") {
		t.Errorf("error %v", err)
	}
}

// TestQuitByQMP ends the daemon, as SIGTERM does.
func TestQuitByQMP(t *testing.T) {
	s, path := newServer(t)
	m := monitor(t, path)
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := run(monitor(t, path), nil, "quit", nil); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Event != "SHUTDOWN" || e.Data["reason"] != "host-qmp-quit" {
		t.Errorf("%+v", e)
	}
	select {
	case <-s.Exited():
	case <-time.After(20 * time.Second):
		t.Error("it runs on")
	}
}

// TestHostileQMP: what a client should not send costs little, and the next command
// works.
func TestHostileQMP(t *testing.T) {
	s, path := newServer(t)
	const hello = `{"execute":"qmp_capabilities"}`
	for _, tt := range []struct {
		name string
		send io.Reader
	}{
		{"10,000 deep", strings.NewReader(strings.Repeat("[", 10000) + strings.Repeat("]", 10000))},
		{"10,000 deep, never closed", strings.NewReader(strings.Repeat(`{"a":`, 10000) + "\n")},
		{"100 MB of blanks", io.LimitReader(blanks{}, 100<<20)},
		{"half an object", strings.NewReader(`{"execute": "quit"` + "\xff")},
		{"bytes above 0x7f", strings.NewReader("\x80\xfe{\"execute\": \"\xc3\x28\"}\n")},
		{"NUL", strings.NewReader("\x00\x00\n")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go io.Copy(c, io.MultiReader(strings.NewReader(hello), tt.send, strings.NewReader(`{"execute":"query-vms","id":"last"}`)))
			_ = c.SetReadDeadline(time.Now().Add(60 * time.Second))
			var all bytes.Buffer
			for !strings.HasSuffix(all.String(), "\"last\"}\r\n") {
				b := make([]byte, 4096)
				n, err := c.Read(b)
				if err != nil {
					t.Fatalf("%v after %s", err, all.String())
				}
				all.Write(b[:n])
			}
			if got := all.String(); !strings.HasSuffix(got, `{"return": [], "id": "last"}`+"\r\n") {
				t.Error(got[max(0, len(got)-500):])
			}
		})
	}
	if rss, err := s.RSS(); err != nil || rss > 200<<20 {
		t.Errorf("%d MiB: %v", rss>>20, err)
	}
}

type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestManyMonitors: any number of clients, each with its own events.
func TestManyMonitors(t *testing.T) {
	_, path := newServer(t)
	all := make([]*goqemu.SocketMonitor, 40)
	for i := range all {
		all[i] = monitor(t, path)
	}
	for i, m := range all {
		if err := run(m, nil, "vm-create", map[string]any{"vm": map[string]any{"uuid": testenv.UUID(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	var vms []map[string]any
	if err := run(all[0], &vms, "query-vms", nil); err != nil || len(vms) != len(all) {
		t.Errorf("%d VMs: %v", len(vms), err)
	}
}

// TestExamples: what the help of meta9 qmp gives as an example of meta9d's own commands, meta9d
// takes.
func TestExamples(t *testing.T) {
	s, path := newServer(t)
	uuid, meta9 := testenv.UUID(1), testenv.Plain(t, "meta9")
	s.NewVM(uuid, `{"uuid":"`+uuid+`","customer_metadata":{"motd":"hello"}}`)
	help, err := exec.Command(meta9, "qmp", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for line := range strings.Lines(string(help)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "meta9 qmp --socket /run/meta9/qmp.sock ") {
			continue
		}
		tried++
		line = strings.Replace(strings.Replace(line, "meta9", `"$META9"`, 1), "/run/meta9/qmp.sock", path, 1)
		cmd := exec.Command("sh", "-c", line)
		cmd.Env = append(os.Environ(), "META9="+meta9, "UUID="+uuid)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "hello") {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
	if tried == 0 {
		t.Error("the help has no example for meta9d")
	}
}
