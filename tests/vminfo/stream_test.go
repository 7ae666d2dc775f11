package vminfo

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

var (
	anyDate = regexp.MustCompile(`"date":"[0-9T:.-]{23}Z"`)
	anyID   = regexp.MustCompile(`^(\{"type":"ready","date":"D","uuid":)"[0-9a-f-]{36}"`)
)

// TestRecordedStream: what was done to a vminfod's VMs when its stream was recorded,
// done by the command line, gives the recorded lines, dates and ids aside.
func TestRecordedStream(t *testing.T) {
	s := start(t, "--data", "", "--http-internal")
	for _, vm := range recordedVMs(t) {
		s.verb("create %s", vm)
	}
	recorded := recordedStream(t)
	// The recorded changes were made to vminfod's files. Ours are made by vmadm's verbs,
	// which keep the spellings of an address together and fill in what a VM has.
	const nic = `"nics",null`
	recorded[1] = strings.NewReplacer(`"192.168.1.10/24"`, `"10.0.0.9/24"`,
		`"newValue":"10.0.0.9","ident":"aa:bb:cc:dd:ee:01"}`, `"newValue":"10.0.0.9","ident":"aa:bb:cc:dd:ee:01"},`+
			`{"prettyPath":"nics.*.ips.*","path":[`+nic+`,"ips",null],"action":"removed","oldValue":"192.168.1.10/24","ident":"aa:bb:cc:dd:ee:01"},`+
			`{"prettyPath":"nics.*.ips.*","path":[`+nic+`,"ips",null],"action":"added","newValue":"10.0.0.9/24","ident":"aa:bb:cc:dd:ee:01"}`,
	).Replace(recorded[1])
	var created struct{ VM json.RawMessage }
	if err := json.Unmarshal([]byte(recorded[2]), &created); err != nil {
		t.Fatal(err)
	}
	recorded[2] = strings.TrimSuffix(recorded[2], "}}") + `,"customer_metadata":{},"internal_metadata":{},"tags":{},"routes":{}}}`
	file := func(name, payload string) string {
		name = filepath.Join(s.Dir, name)
		if err := os.WriteFile(name, []byte(payload), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const patch = `{"cpu_cap":null,"quota":20,"resolvers":["9.9.9.9","8.8.8.8"],"set_tags":{"x.y":1},"set_customer_metadata":{"k":"v"},
		"update_nics":[{"mac":"aa:bb:cc:dd:ee:01","ip":"10.0.0.9"}],"add_disks":[{"path":"/dev/d1","size":5}]}`
	in := s.events("")
	for i, command := range [][]string{
		{"list"}, // the first line comes by itself
		{"update", "e4e6a97e-cb36-4b18-95c9-8eb0d0d7787f", "-f", file("patch.json", patch)},
		{"create", "-f", file("new.json", string(created.VM))},
		{"delete", "11111111-2222-3333-4444-555555555555"},
	} {
		if out, code := s.meta9(append([]string{"vm"}, command...)...); code != 0 {
			t.Fatalf("%v: %s", command, out)
		}
		line, err := in.line()
		if err != nil {
			t.Fatal(err)
		}
		plain := func(s string) string {
			return anyID.ReplaceAllString(anyDate.ReplaceAllString(s, `"date":"D"`), `$1"ID"`)
		}
		if d := cmp.Diff(plain(recorded[i]), plain(line)); d != "" {
			t.Errorf("%s (-recorded +got):\n%s", command[0], d)
		}
	}
}

// TestStreamIsTheList: VMs are created, updated and deleted 1,000 times by each of
// 8 writers; the stream applied to its first line is what /vms has, for a client
// that is there all the time, and for one that comes back after a restart.
func TestStreamIsTheList(t *testing.T) {
	s := start(t, "--data", "")
	all := follow(s.events(""))
	all.until(func() bool { return true })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			if err := s.churn(w, 1000); err != nil {
				t.Error(err)
			}
		})
	}
	var others []*follower // that come in the middle, go, and come back: the feed keeps all events
	for range 3 {
		late := follow(s.events("?since=0"))
		late.until(func() bool { return true })
		again := follow(s.events(fmt.Sprintf("?since=%d", late.rev)))
		again.vms, again.rev = late.vms, late.rev
		others = append(others, again)
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		s.Create([]byte(`{"uuid":"` + testenv.UUID(1) + `"}`))
		close(done)
	}()
	all.until(func() bool { return all.vms[testenv.UUID(1)] != "" })
	<-done
	want := s.vms()
	for i, f := range append(others, all) {
		f.until(func() bool { return f.vms[testenv.UUID(1)] != "" })
		if d := cmp.Diff(want, f.vms); d != "" {
			t.Errorf("follower %d (-/vms +stream):\n%s", i, d)
		}
	}
	if all.seen < 8*1000/2 {
		t.Errorf("only %d lines", all.seen)
	}
}

// TestSinceAfterRestart: a client that comes back to a daemon that was killed gets
// all VMs again first, since nobody knows what it missed.
func TestSinceAfterRestart(t *testing.T) {
	s := start(t)
	if err := s.churn(1, 9); err != nil {
		t.Fatal(err)
	}
	f := follow(s.events("?since=0"))
	f.until(func() bool { return true })
	s.verb(`create {"uuid":%q}`, testenv.UUID(1))
	f.until(func() bool { return f.vms[testenv.UUID(1)] != "" })
	s.Restart()
	s.verb(`update %s {"alias":"back"}`, testenv.UUID(1))

	back := follow(s.events(fmt.Sprintf("?since=%d", f.rev)))
	back.rev = f.rev
	first := back.next()
	if first.Type != "ready" || first.Rev <= f.rev {
		t.Fatalf("%s at %d, after %d", first.Type, first.Rev, f.rev)
	}
	back.apply(first)
	s.verb(`update %s {"alias":"again"}`, testenv.UUID(1))
	back.until(func() bool { return back.seen == 2 })
	if d := cmp.Diff(s.vms(), back.vms); d != "" {
		t.Errorf("(-/vms +stream):\n%s", d)
	}
}

// TestStreamOverARestart: a client that has applied the stream of a daemon which is
// killed while 8 writers change VMs, and comes back with the revision that it has to
// the next one, which they change as well, has in the end what /vms has.
func TestStreamOverARestart(t *testing.T) {
	s := start(t)
	f := follow(s.events("?since=0"))
	f.until(func() bool { return true })
	write := func(from, times int) *sync.WaitGroup {
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				if err := s.churn(from+w, times); err != nil && times < forever {
					t.Error(err)
				}
			})
		}
		return &wg
	}
	killed := write(0, forever)
	f.until(func() bool { return f.seen > 500 })
	s.Kill()
	killed.Wait()
	d, err := daemon.Start(s.Options)
	if err != nil {
		t.Fatal(err)
	}
	s.Daemon = d
	back := follow(s.events(fmt.Sprintf("?since=%d", f.rev)))
	back.vms, back.rev = f.vms, f.rev
	writers := write(8, 250)
	done := make(chan error, 1)
	go func() {
		writers.Wait()
		done <- s.Create([]byte(`{"uuid":"` + testenv.UUID(1) + `"}`))
	}()
	back.until(func() bool { return back.vms[testenv.UUID(1)] != "" })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s.vms(), back.vms); d != "" {
		t.Errorf("(-/vms +stream):\n%s", d)
	}
	if back.seen < 1000 {
		t.Errorf("only %d lines", back.seen)
	}
}

// TestSinceOfAnother: a revision of a daemon whose VMs are gone with it is never taken
// for one of its successor's, however many those are: of one that keeps nothing,
// and of one whose folder was taken away.
func TestSinceOfAnother(t *testing.T) {
	for name, args := range map[string][]string{"memory": {"--data", ""}, "folder": nil} {
		t.Run(name, func(t *testing.T) {
			s := start(t, args...)
			if err := s.churn(1, 5); err != nil {
				t.Fatal(err)
			}
			f := follow(s.events("?since=0"))
			f.until(func() bool { return true })
			s.Kill()
			if err := os.RemoveAll(s.Data()); err != nil {
				t.Fatal(err)
			}
			d, err := daemon.Start(s.Options)
			if err != nil {
				t.Fatal(err)
			}
			s.Daemon = d
			if err := s.churn(2, 100); err != nil {
				t.Fatal(err)
			}
			if first := s.events(fmt.Sprintf("?since=%d", f.rev)).next(); first.Type != "ready" || first.Rev <= f.rev {
				t.Errorf("since=%d begins with a %s of %d", f.rev, first.Type, first.Rev)
			}
		})
	}
}

// TestInternal: internal metadata is only there with --http-internal.
func TestInternal(t *testing.T) {
	for _, internal := range []bool{false, true} {
		var args []string
		if internal {
			args = []string{"--http-internal"}
		}
		s := start(t, append(args, "--data", "")...)
		s.verb(`create {"uuid":%q,"internal_metadata":{"root_pw":"secret"}}`, testenv.UUID(1))
		if got := s.get("/vms"); strings.Contains(got, "internal_metadata") != internal || strings.Contains(got, "secret") != internal {
			t.Errorf("--http-internal %v: %s", internal, got)
		}
	}
}

// TestProbes: /healthz, /readyz and /metrics answer, and a Host from elsewhere does
// not get in.
func TestProbes(t *testing.T) {
	s := start(t, "--data", "")
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/status?full=1"} {
		if s.get(path) == "" {
			t.Errorf("%s is empty", path)
		}
	}
	req, err := http.NewRequest(http.MethodGet, s.url+"/vms", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "10.0.2.2:9090"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("as QEMU's guests call the host: %s", resp.Status)
	}
}
