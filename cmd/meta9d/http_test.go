package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestHTTPOnUnix: the API on a unix socket, for any name of a host; internal metadata
// as the setting says; the figures are as Prometheus wants them.
func TestHTTPOnUnix(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "http.sock")
	p := start(t, dir, "--run", filepath.Join(dir, "run"), "--data", "", "--http", "unix:"+path)
	c := p.connect("run/admin.sock")
	c.put("ctl", `create {"uuid":"`+vmUUID+`","internal_metadata":{"root_pw":"x"}}`)
	web := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	get := func(path string) (int, string) {
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
