package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"meta9/fs/errs"
	"meta9/session/client"
	"meta9/tests/cluster/link"
	"meta9/tests/cluster/stale"
	"meta9/tests/httpunix"
	"meta9/tests/linear/order"
)

// register is one key that a single writer sets to 1, 2, 3 and so on.
var register = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, in, out any) (bool, any) {
		if v := in.(int); v != 0 {
			return true, v
		}
		return out == state, state
	},
	DescribeOperation: func(in, out any) string {
		if v := in.(int); v != 0 {
			return fmt.Sprint("write ", v)
		}
		return fmt.Sprint("read ", out)
	},
}

// asked is a read at a host.
type asked struct {
	host           string
	call, returned time.Time
	value          int
}

// readers read the key at two hosts, all the time, and write down what they were told.
type readers struct {
	t       *testing.T
	mu      sync.Mutex
	reads   []asked
	tries   map[string]int // at a host, answered or not
	refused int            // with the text of cluster.reads
	stop    atomic.Bool
	all     sync.WaitGroup
}

// read reads at a path of a host until stop.
func (r *readers) read(host, addr, path string) {
	r.all.Go(func() {
		var c *client.Client
		defer func() {
			if c != nil {
				c.Close()
			}
		}()
		for !r.stop.Load() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			var err error
			if c == nil {
				c, err = client.Dial(ctx, addr, client.Options{Patience: time.Second})
			}
			var data []byte
			one := asked{host: host, call: time.Now()}
			if err == nil {
				data, err = c.ReadFile(ctx, path)
			}
			one.returned = time.Now()
			cancel()
			if err == nil {
				one.value, err = strconv.Atoi(string(data))
			} else if c != nil && !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.IO) {
				c.Close() // its VM has left, and with it the session
				c = nil
			}
			r.mu.Lock()
			switch {
			case err == nil:
				r.reads = append(r.reads, one)
			case strings.Contains(err.Error(), "may be old"):
				r.refused++
			}
			r.tries[host]++
			r.mu.Unlock()
			time.Sleep(2 * time.Millisecond) // a history of thousands is judged at once
		}
	})
}

// more waits for so many more tries at a host.
func (r *readers) more(host string, n int) {
	r.t.Helper()
	count := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.tries[host]
	}
	till := count() + n
	for end := time.Now().Add(patience); count() < till; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("nobody reads at host %s any more", host)
		}
	}
}

// stat is a line of the host's ctl.
func (p *proc) stat(name string) string {
	p.t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (.*)$`).FindStringSubmatch(p.must("cat", "/ctl"))
	if found == nil {
		return ""
	}
	return found[1]
}

// TestReads: a host that cannot reach etcd, or stood still, while another one takes its VM and
// writes. With cluster.reads = "refuse" one order explains all reads that were answered. By
// default old values are answered, and each of them is flagged: without these one order
// explains the rest.
func TestReads(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	for _, mode := range []string{"refuse", "stale"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			testReads(t, e, mode)
		})
	}
}

func testReads(t *testing.T, e *etcds, mode string) {
	dir := folder(t)
	settings := e.settingsOf(t, dir) + fmt.Sprintf("ttl = \"2s\"\nprefix = \"/reads/%s/\"\nreads = %q\n", mode, mode)
	var links []*link.Link
	far := settings
	for _, endpoint := range e.endpoints {
		k := link.New(t, endpoint)
		links = append(links, k)
		far = strings.Replace(far, endpoint, k.URL(), 1)
	}
	a, b := begin(t, dir, "a", far), begin(t, dir, "b", settings)
	for _, h := range []*proc{a, b} {
		h.until("fleet_etcd ok", "cat", "/ctl")
	}
	const path = "/vms/" + vm + "/keys/n"
	a.create(`{"uuid":"` + vm + `","nocloud_http":true}`)
	admin, err := client.Dial(t.Context(), "unix:"+filepath.Join(a.run, "admin.sock"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	log, err := stale.Follow(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}

	r := &readers{t: t, tries: make(map[string]int)}
	var ops []porcupine.Operation
	write := func(h *proc) {
		t.Helper()
		v := len(ops) + 1
		call := time.Now()
		h.must("put", path, strconv.Itoa(v))
		ops = append(ops, porcupine.Operation{Input: v, Call: call.UnixNano(), Return: time.Now().UnixNano()})
	}
	write(a)
	for _, h := range []*proc{a, b} {
		r.read(filepath.Base(h.run), "unix:"+filepath.Join(h.run, "admin.sock"), path)
	}
	r.read("a", "unix:"+filepath.Join(a.run, vm, "9p.sock"), "/keys/n")
	defer func() {
		r.stop.Store(true)
		r.all.Wait()
	}()

	// It is cut off, and knows that it may be.
	for _, k := range links {
		k.Cut()
	}
	b.must("fleet", "claim", vm)
	write(b)
	r.more("a", 20)
	checkStale(t, a, mode)
	for _, k := range links {
		k.Open()
	}
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.must("fleet", "claim", vm)
	write(a)
	r.more("a", 20)

	// It stands still, and does not know for how long.
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.must("fleet", "claim", vm)
	write(b)
	if err := a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.more("a", 20)
	a.until("fleet_etcd ok", "cat", "/ctl")
	r.more("b", 20)
	r.stop.Store(true)
	r.all.Wait()
	lapses, _ := strconv.Atoi(a.stat("fleet_lapses"))
	for end := time.Now().Add(patience); log.Over() < lapses; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) || log.Err() != nil {
			t.Fatalf("%d times were told of, and there were %d: %v", log.Over(), lapses, log.Err())
		}
	}
	if lapses < 2 || log.Err() != nil {
		t.Fatalf("%d times without the lease, %v", lapses, log.Err())
	}

	flagged, all := 0, ops
	for _, one := range r.reads {
		op := porcupine.Operation{Input: 0, Output: one.value, Call: one.call.UnixNano(), Return: one.returned.UnixNano()}
		all = append(all, op)
		if one.host == "a" && log.Flagged(one.call, one.returned) {
			flagged++
			continue
		}
		ops = append(ops, op)
	}
	t.Logf("%d reads, %d of them flagged, %d refused; %d times without the lease", len(r.reads), flagged, r.refused, lapses)
	judge := func(ops []porcupine.Operation) (porcupine.CheckResult, string) {
		result, info := porcupine.CheckOperationsVerbose(register, ops, time.Minute)
		return result, order.Blame(ops, info, register.DescribeOperation)
	}
	if result, blame := judge(ops); result != porcupine.Ok {
		t.Errorf("%v; no order explains what was answered:\n%s", result, blame)
	}
	switch result, blame := judge(all); {
	case mode == "stale" && (result != porcupine.Illegal || flagged == 0):
		t.Errorf("%v with %d flagged reads: nothing old was answered, and this test shows nothing", result, flagged)
	case mode == "refuse" && result != porcupine.Ok:
		t.Errorf("%v; no order explains all that was answered:\n%s", result, blame)
	case mode == "refuse" && r.refused == 0:
		t.Error("no read was refused")
	}
}

// checkStale looks at all that a host without its lease says.
func checkStale(t *testing.T, h *proc, mode string) {
	t.Helper()
	h.until("fleet_stale_since 2", "cat", "/ctl")
	get := func(socket, path string) (int, string) {
		t.Helper()
		c := httpunix.Client(filepath.Join(h.run, socket))
		defer c.CloseIdleConnections()
		code, body, err := httpunix.Get(c, path)
		if err != nil {
			t.Fatal(err)
		}
		return code, body
	}
	mdata := func() string {
		t.Helper()
		c, err := net.Dial("unix", filepath.Join(h.run, vm, "mdata.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "GET n\n"); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	status, err := h.meta9("fleet", "status")
	if err == nil {
		t.Errorf("fleet status of a host without its lease is well:\n%s", status)
	}
	if code, body := get("vminfo.sock", "/metrics"); code != http.StatusOK || !regexp.MustCompile(`(?m)^meta9_fleet_stale_since_seconds [1-9]`).MatchString(body) {
		t.Errorf("metrics: %d\n%s", code, body)
	}
	value, valueErr := h.meta9("cat", "/vms/"+vm+"/keys/n")
	seed, _ := get(vm+"/http.sock", "/meta-data")
	vms, _ := get("vminfo.sock", "/vms")
	if mode == "refuse" {
		if valueErr == nil || !strings.Contains(value, "may be old") || !strings.Contains(status, "are refused, since 2") {
			t.Errorf("cat: %v, %s\n%s", valueErr, value, status)
		}
		if got := mdata(); got != "FAILURE\n" || seed != http.StatusServiceUnavailable || vms != http.StatusServiceUnavailable {
			t.Errorf("mdata %q, nocloud %d, vminfo %d", got, seed, vms)
		}
		for _, command := range []string{"vm list", "backup -"} {
			if out, err := h.meta9(strings.Fields(command)...); err == nil || !strings.Contains(out, "may be old") {
				t.Errorf("meta9 %s: %v, %s", command, err, out)
			}
		}
		return
	}
	if valueErr != nil || value != "1" || !strings.Contains(status, "may be old, since 2") {
		t.Errorf("cat: %v, %s\n%s", valueErr, value, status)
	}
	if got := mdata(); got != "SUCCESS\n" || seed != http.StatusOK || vms != http.StatusOK {
		t.Errorf("mdata %q, nocloud %d, vminfo %d", got, seed, vms)
	}
	if out := h.must("fleet", "where", vm); !strings.Contains(out, vm+" a - stale since 2") {
		t.Errorf("where: %s", out)
	}
	if out := h.must("cat", "/vms/"+vm+"/ctl"); !strings.Contains(out, "\nstale_since 2") {
		t.Errorf("the VM's ctl:\n%s", out)
	}
}
