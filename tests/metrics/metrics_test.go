// Package metrics holds what meta9d tells Prometheus, and the alerts, against Prometheus'
// own checker.
package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meta9/tests/daemon"
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
	web := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(d.Run(), "vminfo.sock"))
	}}}
	defer web.CloseIdleConnections()
	resp, err := web.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// What Go's and the process's own collectors say is not ours to name.
	var ours strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "meta9_") {
			ours.WriteString(line)
		}
	}
	promtool(t, ours.String(), "check", "metrics")
}

func TestAlerts(t *testing.T) {
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", filepath.Join(root, "docs", "alerts.yml"))
}
