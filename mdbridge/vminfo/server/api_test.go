package server_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/mdbridge/vminfo/server"
)

const (
	vmA = `{"zonename":"` + uuidA + `","uuid":"` + uuidA + `","brand":"kvm","alias":"web0","state":"running","ram":1024,"nics":[{"mac":"aa:bb:cc:dd:ee:01"},{"mac":"aa:bb:cc:dd:ee:03"}],"tags":{"role":"web","a.b":1},"customer_metadata":{"k":"v","n":7},"internal_metadata":{"root_pw":"x"}}`
	vmB = `{"uuid":"` + uuidB + `","zonename":"zone-b","alias":"db0","state":"stopped","max_physical_memory":512,"nics":[{"mac":"aa:bb:cc:dd:ee:02"}],"tags":{"role":"db"}}`
)

func public(vm string) string {
	return strings.Replace(vm, `,"internal_metadata":{"root_pw":"x"}`, "", 1)
}

// TestPaths: which path and method gets which answer, as the real service has it.
func TestPaths(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	w.create(vmA)
	w.create(vmB)
	list := "[" + vmA + "," + vmB + "]"
	for _, c := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/ping", 200, `{"ping":"pong"}`},
		{"GET", "//ping", 200, `{"ping":"pong"}`},
		{"GET", "/ping/", 200, `{"ping":"pong"}`},
		{"GET", "/ping?x=y", 200, `{"ping":"pong"}`},
		{"GET", "/vms/../ping", 200, `{"ping":"pong"}`},
		{"GET", "/./ping/more", 200, `{"ping":"pong"}`},
		{"GET", "/vms", 200, list},
		{"GET", "/vms/", 200, list},
		{"GET", "//vms//", 200, list},
		{"GET", "/vms/" + uuidA, 200, vmA},
		{"GET", "/vms/" + uuidA + "/", 200, vmA},
		{"GET", "/vms/" + uuidA + "/nics/0", 200, vmA},
		{"GET", "/vms/zone-b", 200, vmB},
		{"GET", "/vms/nope", 404, "VM Not Found: nope"},
		{"GET", "/vms/n%20o?x", 404, "VM Not Found: n%20o"},
		{"GET", "/vms/" + strings.ToUpper(uuidA), 404, "VM Not Found: " + strings.ToUpper(uuidA)},
		{"GET", "/", 404, "Unsupported URL Path"},
		{"GET", "/vm", 404, "Unsupported URL Path"},
		{"GET", "/Ping", 404, "Unsupported URL Path"},
		{"GET", "/metrics", 404, "Unsupported URL Path"},
		{"HEAD", "/ping", 400, ""},
		{"POST", "/vms", 400, ""},
		{"PUT", "/nowhere", 400, ""},
		{"DELETE", "/vms/" + uuidA, 400, ""},
		{"BREW", "/events", 400, ""},
	} {
		resp := w.raw(c.method + " " + c.path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.code || string(body) != c.body {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, resp.StatusCode, body, c.code, c.body)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: Content-Type %q", c.method, c.path, got)
		}
	}
}

// TestNoZonename: a VM without a zonename has its uuid for one, in all answers, as
// clients that file VMs by it need.
func TestNoZonename(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	s := w.events("")
	s.next()
	c := w.create(`{"uuid":"` + uuidA + `"}`)
	const vm = `{"zonename":"` + uuidA + `","uuid":"` + uuidA + `"}`
	s.want(`{"type":"create","date":"D","zonename":"` + uuidA + `","uuid":"` + uuidA + `","vm":` + vm + `}`)
	for path, want := range map[string]string{
		"/vms": "[" + vm + "]", "/vms/" + uuidA: vm, "/vms?zonename=" + uuidA: "[" + vm + "]", "/vms?fields=zonename": `[{"zonename":"` + uuidA + `"}]`,
	} {
		if _, body := w.get(path); body != want {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	w.update(c, `{"zonename":"z"}`)
	s.want(`{"type":"modify","date":"D","zonename":"z","uuid":"` + uuidA + `","vm":{"uuid":"` + uuidA + `","zonename":"z"},` +
		`"changes":[{"prettyPath":"zonename","path":["zonename"],"action":"changed","oldValue":"` + uuidA + `","newValue":"z"}]}`)
}

func TestHealth(t *testing.T) {
	stale := true
	w := newWorld(t, server.Config{Mirror: func() server.Mirror { return server.Mirror{From: "http://up:1", Stale: stale, Why: "no events"} }}, false)
	for _, c := range []struct {
		path  string
		stale bool
		code  int
		body  string
	}{
		{"/healthz", true, 200, "ok\n"},
		{"/readyz", true, 503, "Resource temporarily unavailable: http://up:1: no events\n"},
		{"/readyz", false, 200, "ok\n"},
	} {
		stale = c.stale
		if resp, body := w.get(c.path); resp.StatusCode != c.code || body != c.body {
			t.Errorf("%s: %d %q", c.path, resp.StatusCode, body)
		}
	}
}

// TestHost: a name that leads here by somebody else's DNS, and the address by which
// QEMU's guests reach the host, are refused.
func TestHost(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	for host, code := range map[string]int{
		"localhost": 200, "LocalHost:9090": 200, "127.0.0.1": 200, "127.0.0.1:9090": 200, "127.9.9.9": 200,
		"[::1]:9090": 200, "[::ffff:127.0.0.1]": 200,
		"10.0.2.2:9090": 403, "10.0.2.2": 403, "evil.example": 403, "evil.example:9090": 403,
		"localhost.evil.example": 403, "192.168.1.1": 403, "[fe80::1]": 403,
	} {
		resp := w.raw("GET /ping HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if resp.StatusCode != code {
			t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, code)
		}
	}
	if got := w.srv.Stats().Refused; got != 7 {
		t.Errorf("%d were counted as refused", got)
	}
}

func TestFilters(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	w.create(vmA)
	w.create(vmB)
	short := func(uuids ...string) string {
		for i, u := range uuids {
			uuids[i] = `{"uuid":"` + u + `"}`
		}
		return "[" + strings.Join(uuids, ",") + "]"
	}
	for _, c := range []struct{ query, want string }{
		{"fields=uuid", short(uuidA, uuidB)},
		{"fields=alias,uuid", `[{"uuid":"` + uuidA + `","alias":"web0"},{"uuid":"` + uuidB + `","alias":"db0"}]`},
		{"fields=uuid,nosuch", short(uuidA, uuidB)},
		{"fields=uuid,customer_metadata&alias=web0", `[{"uuid":"` + uuidA + `","customer_metadata":{"k":"v","n":7}}]`},
		{"fields=uuid&state=running", short(uuidA)},
		{"fields=uuid&state=running&alias=db0", short()},
		{"fields=uuid&alias=~^DB", short(uuidB)},
		{"fields=uuid&ram=1024", short(uuidA)},
		{"fields=uuid&nics.*.mac=aa:bb:cc:dd:ee:02", short(uuidB)},
		{"fields=uuid&nics.1.mac=aa:bb:cc:dd:ee:03", short(uuidA)},
		{"fields=uuid&nics.9.mac=aa:bb:cc:dd:ee:03", short()},
		{"fields=uuid&tags.role=~^(web|db)$", short(uuidA, uuidB)},
		{"fields=uuid&tags.a.b=1", short(uuidA)},
		{"fields=uuid&customer_metadata.n=7", short(uuidA)},
		{"fields=uuid&internal_metadata.root_pw=x", short(uuidA)},
		{"fields=uuid&nosuch=", short()},
		{"fields=&alias=db0", `[{}]`},
		{"state=stopped", "[" + vmB + "]"},
	} {
		if d := cmp.Diff(c.want, w.body("/vms?"+strings.ReplaceAll(c.query, "^", "%5E"))); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.query, d)
		}
	}
	for query, reason := range map[string]string{"alias=~(": "alias", "%zz=1": "query"} {
		if resp, body := w.get("/vms?" + query); resp.StatusCode != 400 || !strings.Contains(body, reason) {
			t.Errorf("%s: %s: %s", query, resp.Status, body)
		}
	}
}

// TestInternal: internal metadata is not there for those who may not see it, also
// not for their filters.
func TestInternal(t *testing.T) {
	w := newWorld(t, server.Config{}, false)
	c := w.create(vmA)
	s := w.events("")
	s.want(ready("["+public(vmA)+"]", ""))
	w.update(c, `{"set_internal_metadata":{"root_pw":"y"}}`)
	w.update(c, `{"alias":"web1","set_internal_metadata":{"root_pw":"z"}}`)
	now := strings.Replace(public(vmA), "web0", "web1", 1)
	s.want(`{"type":"modify","date":"D","zonename":"` + uuidA + `","uuid":"` + uuidA + `","vm":` + now +
		`,"changes":[{"prettyPath":"alias","path":["alias"],"action":"changed","oldValue":"web0","newValue":"web1"}]}`)
	for path, want := range map[string]string{
		"/vms": "[" + now + "]", "/vms/" + uuidA: now,
		"/vms?internal_metadata.root_pw=z":         "[]",
		"/vms?fields=internal_metadata&alias=web1": "[{}]",
	} {
		if d := cmp.Diff(want, w.body(path)); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
}

// TestTags: a list, a query and a VM have a tag that changes with them.
func TestTags(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	a := w.create(vmA)
	b := w.create(vmB)
	seen := map[string]bool{}
	fresh := func(path string) string {
		t.Helper()
		resp, _ := w.get(path)
		tag := resp.Header.Get("ETag")
		if resp.StatusCode != 200 || tag == "" || seen[path+tag] {
			t.Errorf("%s: %s, the tag %s is no new one", path, resp.Status, tag)
		}
		seen[path+tag] = true
		again, body := w.get(path, "If-None-Match", `"other", W/`+tag)
		if again.StatusCode != 304 || body != "" || again.Header.Get("ETag") != tag {
			t.Errorf("%s again: %s %q", path, again.Status, body)
		}
		return tag
	}
	all := []string{"/vms", "/vms?fields=uuid"}
	for _, path := range append(all, "/vms/"+uuidA, "/vms/"+uuidB) {
		fresh(path)
	}
	w.update(a, `{"alias":"x"}`)
	for _, path := range append(all, "/vms/"+uuidA) {
		fresh(path)
	}
	old, _ := w.get("/vms")
	if resp, _ := w.get("/vms/"+uuidB, "If-None-Match", old.Header.Get("ETag")); resp.StatusCode != 200 {
		t.Errorf("another's tag: %s", resp.Status)
	}
	w.st.Do(deletion(a))
	for _, path := range all {
		fresh(path)
	}
	w.st.Do(deletion(b))
	for _, path := range all {
		fresh(path)
	}
}

// TestStatus: the members and their order, and the values that do not change.
func TestStatus(t *testing.T) {
	w := newWorld(t, server.Config{}, true)
	w.create(vmA)
	s := w.events("")
	s.next()
	const times = `"[0-9]+\.[0-9]{9}s \([0-9.]+[dhmsun]+\)"`
	const plainStatus = `\{"pid":[0-9]+,"uptime":` + times + `,"memory":\{"rss":[0-9]+,"heapTotal":[0-9]+,"heapUsed":[0-9]+,"external":0,"arrayBuffers":0\},` +
		`"state":"running","status":"working","numVms":1,"curDate":"[0-9TZ:.-]{24}","curTime":"[0-9]+\.[0-9]{9}",` +
		`"queue":\{"now":"[0-9]+\.[0-9]{9}","paused":false,"idle":true,"vasync_queue":\{"concurrency":1,"npending":0,"nqueued":0,"pending":\{\},"queued":\[\]\}\},` +
		`"lastRefresh":` + times + `,"refreshErrors":\[\],` +
		`"eventsListeners":\{"[0-9a-f-]{36}":\{"userAgent":"Go-http-client/1.1","createdTime":"[0-9]+\.[0-9]{9}","createdDate":"[0-9TZ:.-]{24}","createdAgo":` + times + `\}\}`
	const full = `,"refreshLog":\[\],"fswatcher":\{"message_delays":\[\],"watching":\[\],"not_yet_watching":\[\],"pending_actions":\{\},"watcher_pid":[0-9]+,"running":true\}`
	for path, want := range map[string]string{
		"/status": plainStatus, "/status?full=": plainStatus, "/status?full=1": plainStatus + full,
	} {
		if body := w.body(path); !regexp.MustCompile("^" + want + `\}$`).MatchString(body) {
			t.Errorf("%s: %s", path, body)
		}
	}
}

// TestMirrorStatus: a mirror says from where, how old it is and what went wrong.
func TestMirrorStatus(t *testing.T) {
	at := time.Now().Add(-5 * time.Minute)
	m := server.Mirror{From: "http://up:1", Stale: true}
	w := newWorld(t, server.Config{Mirror: func() server.Mirror { return m }}, true)
	var st struct {
		Status        string
		LastRefresh   *string
		RefreshErrors []struct{ Err, Time, Ago string }
		Upstream      struct {
			URL   string
			Stale bool
		}
	}
	read := func() {
		t.Helper()
		if err := json.Unmarshal([]byte(w.body("/status")), &st); err != nil {
			t.Fatal(err)
		}
	}
	if read(); st.Status != "stale" || st.LastRefresh != nil || st.Upstream.URL != m.From || !st.Upstream.Stale {
		t.Errorf("%+v", st)
	}
	m.Stale, m.Refreshed = false, at
	m.Errors = []server.MirrorError{{Text: errors.ErrUnsupported.Error(), Time: at}}
	read()
	if st.Status != "working" || !strings.HasSuffix(*st.LastRefresh, "s (5m)") || len(st.RefreshErrors) != 1 ||
		st.RefreshErrors[0].Err != "unsupported operation" || !strings.HasSuffix(st.RefreshErrors[0].Ago, "s (5m)") {
		t.Errorf("%+v", st)
	}
}

// TestMetricsPath: /metrics is somebody else's to answer.
func TestMetricsPath(t *testing.T) {
	w := newWorld(t, server.Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "figures")
	})}, false)
	if body := w.body("/metrics"); body != "figures" {
		t.Errorf("%q", body)
	}
}
