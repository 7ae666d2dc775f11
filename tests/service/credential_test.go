package service

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// maxCredential is how much systemd takes (CREDENTIAL_SIZE_MAX): with more the unit does
// not start.
const maxCredential = 1 << 20

// TestCredential starts the service as systemd does, with a socket that listens and with a
// connection (Accept=yes), and asks as systemd does.
func TestCredential(t *testing.T) {
	s := testenv.Start(t, daemon.Options{Memory: true})
	s.NewVM(uuid, `{"uuid":"`+uuid+`","customer_metadata":{"db":"secret\n","credential.web.service.x":"by name"}}`)
	dir := folder(t)
	write(t, dir+"/map.toml", "by_name = [\"web.service\"]\n[unit.\"app.service\"]\npassword = \"db\"\nnone = \"none\"\n")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := func(sock *os.File) (*exec.Cmd, *bytes.Buffer) {
		t.Helper()
		cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`, testenv.Plain(t, "meta9"),
			"--addr", "unix:"+s.VM(uuid), "credential", "--map", dir+"/map.toml", "--idle", "1s")
		var said bytes.Buffer
		cmd.Stderr, cmd.ExtraFiles = &said, []*os.File{sock}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sock.Close()
		return cmd, &said
	}
	asked := 0
	ask := func(unit, name string) *net.UnixConn {
		t.Helper()
		asked++
		c, err := net.DialUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("@%016x/unit/%s/%s", asked, unit, name), Net: "unix"}, &net.UnixAddr{Name: dir + "/s", Net: "unix"})
		if err == nil {
			err = c.CloseWrite()
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	answer := func(c *net.UnixConn) string {
		t.Helper()
		defer c.Close()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	sock, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	first := ask("app.service", "password") // before the service is there
	cmd, said := start(sock)
	if got := answer(first); got != "secret\n" {
		t.Errorf("the credential is %.40q", got)
	}
	if got := answer(ask("web.service", "x")); got != "by name" {
		t.Errorf("the credential by name is %.40q", got)
	}
	for _, of := range [][2]string{{"app.service", "none"}, {"app.service", "x"}, {"evil.service", "password"}, {"evil.service", "x"}} {
		if got := answer(ask(of[0], of[1])); len(got) <= maxCredential || strings.Trim(got, "\x00") != "" {
			t.Errorf("%s of %s is %.40q, %d bytes", of[1], of[0], got, len(got))
		}
	}
	if err := cmd.Wait(); err != nil { // idle
		t.Error(err)
	}
	if text := said.String(); !strings.Contains(text, "unit evil.service may have no credential password") || strings.Contains(text, "secret") {
		t.Errorf("it says %s", text)
	}

	c := ask("app.service", "password")
	served, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	sock, err = served.File()
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
	cmd, _ = start(sock)
	if got := answer(c); got != "secret\n" {
		t.Errorf("with Accept=yes the credential is %.40q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
