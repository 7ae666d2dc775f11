// Package metrics holds what meta9d tells Prometheus, and the alerts, against Prometheus'
// own checker.
package metrics

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meta9/tests/daemon"
	"meta9/tests/httpunix"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// promtool runs it, and fails unless it finds nothing wrong.
func promtool(t *testing.T, in string, args ...string) {
	t.Helper()
	testenv.NeedDebian(t, "promtool", "prometheus")
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = strings.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestFigures(t *testing.T) {
	d := testenv.Start(t, daemon.Options{})
	d.NewVM(testenv.UUID(1), `{"uuid":"`+testenv.UUID(1)+`"}`)
	web := httpunix.Client(filepath.Join(d.Run(), "vminfo.sock"))
	defer web.CloseIdleConnections()
	_, text, err := httpunix.Get(web, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	// What Go's and the process's own collectors say is not ours to name.
	var ours strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "meta9_") {
			ours.WriteString(line)
		}
	}
	promtool(t, ours.String(), "check", "metrics")
}

// TestListeners: connections are counted by listener, those of VMs by the kind of socket;
// also those that a live update has handed over.
func TestListeners(t *testing.T) {
	d := testenv.Start(t, daemon.Options{TCP: []string{""}, Config: "[mumble]\nsecret = \"0123456789abcdef\"\n"})
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for i := range 3 {
		d.NewVM(testenv.UUID(i), `{"uuid":"`+testenv.UUID(i)+`"}`)
		c, err := raw.Dial("unix", d.VM(testenv.UUID(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Hello(c, "9P2000.e", ""); err != nil {
			t.Fatal(err)
		}
		held = append(held, c.Net)
	}
	tcp, err := net.Dial("tcp", d.TCPAddrs[0])
	if err != nil {
		t.Fatal(err)
	}
	held = append(held, tcp)
	says := func(lines ...string) {
		t.Helper()
		var ctl string
		defer func() {
			if t.Failed() {
				t.Logf("ctl says\n%s", ctl)
			}
		}()
		testenv.Eventually(t, strings.Join(lines, ", "), func() bool {
			c, err := d.Dial("")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			b, err := c.Sread(0, "ctl")
			if err != nil {
				t.Fatal(err)
			}
			ctl = string(b)
			for _, line := range lines {
				if !strings.Contains(ctl, "\nlistener "+line+"\n") {
					return false
				}
			}
			return true
		})
	}
	says("3 6 0 vm:9p.sock", "0 0 0 vm:mdata.sock", "1 1 0 tcp:"+d.TCPAddrs[0]) // NewVM has connected, too
	held[0].Close()
	says("2 6 0 vm:9p.sock")
	d.LiveUpdate()
	says("2 2 0 vm:9p.sock", "1 1 0 tcp:"+d.TCPAddrs[0])
	held[1].Close()
	tcp.Close()
	says("1 2 0 vm:9p.sock", "0 1 0 tcp:"+d.TCPAddrs[0])
}

func TestAlerts(t *testing.T) {
	root := testenv.Root(t)
	promtool(t, "", "check", "rules", filepath.Join(root, "docs", "alerts.yml"))
}
