package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"meta9/session/fleet"
)

// TestHTTPOnUnix: the API on a unix socket, for any name of a host; internal metadata
// as the setting says; the figures are as Prometheus wants them.
func TestHTTPOnUnix(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "http.sock")
	p := start(t, dir, "--run", filepath.Join(dir, "run"), "--data", "", "--http", "unix:"+path)
	c := p.connect("run/admin.sock")
	c.put("ctl", `create {"uuid":"`+vmUUID+`","internal_metadata":{"root_pw":"x"}}`)
	get := getter(t, path)
	if code, body := get("/vms"); code != 200 || !strings.HasPrefix(body, `[{"uuid":"`+vmUUID+`","zonename":"`+vmUUID+`",`) {
		t.Errorf("/vms: %d %s", code, body)
	}
	for _, probe := range []string{"/healthz", "/readyz"} {
		if code, body := get(probe); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", probe, code, body)
		}
	}
	code, figures := get("/metrics")
	problems, err := promlint.New(strings.NewReader(figures)).Lint()
	if code != 200 || err != nil || !strings.Contains(figures, "\nmeta9_vms 1\n") {
		t.Errorf("/metrics: %d, %v\n%s", code, err, figures)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "meta9_") {
			t.Errorf("/metrics: %s: %s", p.Metric, p.Text)
		}
	}
}

// getter gives what is asked of the HTTP server at a unix socket.
func getter(t *testing.T, socket string) func(path string) (code int, body string) {
	web := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	return func(path string) (int, string) {
		t.Helper()
		resp, err := web.Get("http://a.name" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
}

// TestFigures: a listener of figures has nothing of any VM; and each figure that the
// alerts and the dashboard ask for is there.
func TestFigures(t *testing.T) {
	dir := shortDir(t)
	p := start(t, dir, "--metrics", "unix:figures.sock", "--libvirt", filepath.Join(dir, "no-libvirt"))
	p.connect("meta9-run/admin.sock").put("ctl", "create "+payload)
	get := getter(t, filepath.Join(dir, "figures.sock"))
	for _, path := range []string{"/vms", "/vms/" + vmUUID, "/status", "/events", "/backup", "/", "/metrics/../vms"} {
		if code, body := get(path); code != http.StatusNotFound || strings.Contains(body, vmUUID) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	code, figures := get("/metrics")
	if code != 200 || strings.Contains(figures, vmUUID) || strings.Contains(figures, "web1") {
		t.Errorf("/metrics: %d\n%s", code, figures)
	}
	if strings.Contains(figures, "\nmeta9_commit_seconds_count 0\n") {
		t.Error("the commit of a VM took no time")
	}
	elsewhere := []string{"meta9_qemus_unresponsive", "meta9_mirror_stale"} // where there are QEMUs, or a mirror
	elsewhere = append(elsewhere, "meta9_export", "meta9_commit_seconds")   // an export's first line; a histogram
	guide, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	ofFleet := func(name, _ string, _ func() float64) {
		elsewhere = append(elsewhere, "meta9_"+name)
		if short := "`" + strings.TrimPrefix(name, "fleet") + "`"; !strings.Contains(string(guide), "`meta9_"+name+"`") && !strings.Contains(string(guide), short) {
			t.Errorf("docs/operator.md does not name meta9_%s", name)
		}
	}
	(&daemon{member: new(fleet.Member)}).fleetMetrics(ofFleet, ofFleet)
	for _, file := range []string{"../../docs/alerts.yml", "../../docs/dashboard.json", "../../docs/operator.md", "../../docs/libvirt.md", "../../docs/qemu.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bmeta9_[a-z0-9_]+`).FindAllString(string(text), -1) {
			if !strings.Contains(figures, "\n"+name+" ") && !strings.Contains(figures, "\n"+name+"{") && !slices.Contains(elsewhere, name) {
				t.Errorf("%s: %s is no figure of meta9d's", file, name)
			}
		}
	}
}

// TestPromised: ctl and a VM's ctl have what the operator's guide says that they have.
func TestPromised(t *testing.T) {
	guide, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, shortDir(t))
	c := p.connect("meta9-run/admin.sock")
	c.put("ctl", "create "+payload)
	ctl := "\n" + c.get("ctl")
	// In words, and by name.
	for _, name := range strings.Fields("version uptime vms keys bytes rev health connections sessions request_errors commits") {
		if !strings.Contains(ctl, "\n"+name+" ") {
			t.Errorf("ctl has no %s:%s", name, ctl)
		}
	}
	names := regexp.MustCompile("`([a-z0-9]+(?:_[a-z0-9]+)+)`").FindAllStringSubmatch(string(guide), -1)
	named := strings.Fields("memory_in_flight memory_waits memory_refused journal_sessions journal_bytes sessions_restored sessions_not_restored upgrades_failed upgrade_pause_ms commit_mean_us commit_p99_us")
	for _, name := range named {
		if !slices.ContainsFunc(names, func(m []string) bool { return m[1] == name }) {
			t.Errorf("the guide does not name %s", name)
		}
		if !strings.Contains(ctl, "\n"+name+" ") {
			t.Errorf("ctl has no %s:%s", name, ctl)
		}
	}
	one := "\n" + c.get("vms/"+vmUUID+"/ctl")
	for _, name := range strings.Fields("state keys bytes bytes_limit connections sessions sessions_parked") {
		if !strings.Contains(one, "\n"+name+" ") {
			t.Errorf("a VM's ctl has no %s:%s", name, one)
		}
	}
}

// TestDashboard: each panel has a number and a place of its own; and each figure by listener
// is in one.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../docs/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var is struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(text, &is); err != nil {
		t.Fatal(err)
	}
	for i, p := range is.Panels {
		for _, q := range is.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if p.ID == q.ID || a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("the panels %q and %q are in the same place, or both are number %d", p.Title, q.Title, p.ID)
			}
		}
	}
	for _, figure := range []string{"meta9_listener_connections", "meta9_listener_accepted_total", "meta9_listener_refused_total"} {
		if !strings.Contains(string(text), figure) {
			t.Errorf("%s is in no panel", figure)
		}
	}
}
