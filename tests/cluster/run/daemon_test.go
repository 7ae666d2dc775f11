package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"meta9/tests/cluster/link"
	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// patience is how long a test waits for what must come, however busy the machine is.
const patience = 2 * time.Minute

// bin is the folder of the programs that are tested.
var bin string

func TestMain(m *testing.M) {
	var flags []string
	if testenv.Race() { // of meta9d alone: the commands are many, and short
		flags = append(flags, "-race")
	}
	var err error
	if bin, err = testenv.Folder(); err == nil {
		_, err = daemon.Build(bin, "meta9d", flags...)
	}
	if err == nil {
		_, err = daemon.Build(bin, "meta9")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testenv.Main(m)
}

// folder is a folder for sockets, whose paths must be short.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// proc is a meta9d.
type proc struct {
	t    *testing.T
	run  string // its run folder
	cmd  *exec.Cmd
	log  bytes.Buffer
	gone chan struct{}
}

// begin starts a meta9d whose settings are text; its run folder is dir/HOST.
func begin(t *testing.T, dir, host, text string) *proc {
	t.Helper()
	p := &proc{t: t, run: filepath.Join(dir, host), gone: make(chan struct{})}
	settings := filepath.Join(dir, host+".toml")
	text = fmt.Sprintf("data = \"\"\nrun = %q\n[cluster]\nhost = %q\n", p.run, host) + text
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start(settings, dir)
	return p
}

// start starts the program, which ends with the test.
func (p *proc) start(settings, dir string) {
	p.t.Helper()
	p.cmd = exec.Command(filepath.Join(bin, "meta9d"), "--config", settings)
	p.cmd.Dir = dir
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.gone)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.gone
		testenv.NoRace(p.t, p.log.String())
	})
}

// end waits for its end, and gives its exit status and its log.
func (p *proc) end() (code int, log string) {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.gone
		p.t.Fatalf("meta9d does not end; its log:\n%s", p.log.String())
	}
	return p.cmd.ProcessState.ExitCode(), p.log.String()
}

func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

func (p *proc) stop() (code int, log string) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.end()
}

// create makes a VM of a payload, which stays in the file RUN.json.
func (p *proc) create(payload string) {
	p.t.Helper()
	file := p.run + ".json"
	if err := os.WriteFile(file, []byte(payload), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.must("vm", "create", "-f", file)
}

// meta9 runs the command at the daemon's admin socket.
func (p *proc) meta9(args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join(bin, "meta9"), append([]string{"--addr", "unix:" + filepath.Join(p.run, "admin.sock")}, args...)...)
	said, err := c.CombinedOutput()
	return string(said), err
}

// must is meta9 for what must not fail.
func (p *proc) must(args ...string) string {
	p.t.Helper()
	out, err := p.meta9(args...)
	if err != nil {
		p.t.Fatalf("meta9 %s: %v\n%s\nmeta9d:\n%s", strings.Join(args, " "), err, out, p.log.String())
	}
	return out
}

// until waits until the command says that; an error of it is taken for a no.
func (p *proc) until(want string, args ...string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		out, err := p.meta9(args...)
		if err == nil && strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("meta9 %s never says %q, but: %v\n%s\nmeta9d:\n%s", strings.Join(args, " "), want, err, out, p.log.String())
		}
	}
}

// freeCluster is a cluster that is not started, at ports that are free now: tests run side by side.
func freeCluster(t *testing.T, dir string) *etcds {
	t.Helper()
	addrs, err := daemon.FreeAddrs(6)
	if err != nil {
		t.Fatal(err)
	}
	return cluster(dir, addrs)
}

// started is a cluster that runs until the test ends.
func started(t *testing.T, dir string) *etcds {
	t.Helper()
	e := freeCluster(t, dir)
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	return e
}

// settingsOf are those of [cluster] for a cluster of the test's.
func (e *etcds) settingsOf(t *testing.T, dir string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a secret of this test's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("endpoints = [\"%s\"]\nkey_file = \"key\"\n", strings.Join(e.endpoints, `", "`))
}

// TestEtcdAway: a host whose etcd is away at its start answers its admin, has no VM, makes none,
// and says why; as soon as etcd is there it serves. What was made is there after
// a restart. When etcd is away again the host ends all the same, though a change waits for it.
func TestEtcdAway(t *testing.T) {
	dir := folder(t)
	e := freeCluster(t, dir)
	settings := e.settingsOf(t, dir) + "ttl = \"2s\"\n"
	a := begin(t, dir, "a", settings)
	a.until("fleet_etcd no VM is here until etcd is back", "cat", "/ctl")
	if out, err := a.meta9("status"); err == nil || !strings.Contains(out, "meta9d is not well: fleet: no VM is here until etcd is back") {
		t.Errorf("status: %v\n%s", err, out)
	}
	out, err := a.meta9("vm", "create", "web0")
	if err == nil || !strings.Contains(out, "no VM is here until etcd is back") {
		t.Errorf("a VM is made without etcd: %v, %s", err, out)
	}
	for _, args := range [][]string{
		{"fleet", "status"},
		{"fleet", "where", vm},
		{"fleet", "where", "web0"},
		{"fleet", "claim", vm},
		{"fleet", "expect", vm},
		{"fleet", "drain"},
		{"fleet", "drain", "--undo"},
		{"fleet", "fence", "b"},
		{"cat", "/fleet/hosts"},
		{"cat", "/fleet/claimable"},
		{"cat", "/fleet/events"},
		{"upgrade"},
	} {
		var code *exec.ExitError
		if out, err := a.meta9(args...); !errors.As(err, &code) || code.ExitCode() != 1 || !strings.Contains(out, "no VM is here until etcd is back, which cannot be used since ") {
			t.Errorf("meta9 %s without etcd: %v, %s", args, err, out)
		}
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.must("vm", "create", "web0", "-m", "motd=hello")
	code, log := a.stop()
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, log)
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "etcd is away") && (strings.Contains(line, "Device or resource busy") || strings.Count(line, strings.TrimPrefix(e.endpoints[0], "http://")) > 1) {
			t.Errorf("it is not plain that etcd is away: %s", line)
		}
	}
	a = begin(t, dir, "a", settings)
	a.until("hello", "cat", "/names/web0/keys/motd")

	e.close()
	put := exec.Command(filepath.Join(bin, "meta9"), "--addr", "unix:"+filepath.Join(a.run, "admin.sock"), "put", "/names/web0/keys/motd", "never told")
	if err := put.Start(); err != nil {
		t.Fatal(err)
	}
	a.until("fleet_etcd the lease is lost", "cat", "/ctl") // by then the change is under way
	if health := a.stat("health"); !strings.HasPrefix(health, "fleet: the lease is lost") {
		t.Errorf("health without a lease: %q", health)
	}
	if out, err := a.meta9("status"); err == nil || !strings.Contains(out, "meta9d is not well: fleet: the lease is lost") {
		t.Errorf("status without a lease: %v\n%s", err, out)
	}
	code, log = a.stop()
	if err := put.Wait(); err == nil {
		t.Error("a change is acknowledged without etcd")
	}
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, log)
	}
}

// TestEndInStart: a host that is told to end while it starts, and etcd has become silent, ends at
// once: before it has read anything, when it takes its VMs over, and when it has loaded them. The
// next start serves them.
func TestEndInStart(t *testing.T) {
	t.Parallel() // it waits most of the time
	dir := folder(t)
	e := started(t, dir)
	settings := e.settingsOf(t, dir)
	a := begin(t, dir, "a", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.create(`{"uuid":"` + vm + `"}`)
	if code, log := a.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, log)
	}
	for _, part := range []string{"/meta9/v1/mark/a", `"epoch":2`, "/meta9/v1/res/"} {
		k := link.New(t, e.endpoints[0])
		held := k.HoldAt(part)
		a := begin(t, dir, "a", (&etcds{endpoints: []string{k.URL()}}).settingsOf(t, dir))
		select {
		case <-held:
		case <-a.gone:
			t.Fatalf("%s: meta9d has ended before:\n%s", part, a.log.String())
		case <-time.After(patience):
			t.Fatalf("%s is never sent", part)
		}
		if code, log := a.stop(); code != 0 || !strings.Contains(log, "told to end before it has served") {
			t.Errorf("%s: exit %d\n%s", part, code, log)
		}
	}
	a = begin(t, dir, "a", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	a.until("uuid "+vm, "cat", "/vms/"+vm+"/ctl")
}

// TestRefused: settings that cannot be used are one line that says why, and exit status 2.
func TestRefused(t *testing.T) {
	t.Parallel() // it waits most of the time
	dir := folder(t)
	e := started(t, dir)
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	settings := e.settingsOf(t, dir)
	a := begin(t, dir, "a", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	if err := os.WriteFile(filepath.Join(dir, "other"), []byte("another fleet's secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	twin := begin(t, folder(t), "a", strings.Replace(settings, `"key"`, `"`+filepath.Join(dir, "key")+`"`, 1))
	if code, log := twin.end(); code != 2 || !strings.Contains(log, `another meta9d is the host "a"`) {
		t.Errorf("a second host a: exit %d\n%s", code, log)
	}
	another := freeCluster(t, folder(t))
	another.configs = another.configs[:1] // one member, which is a cluster of its own
	another.configs[0].InitialCluster, _, _ = strings.Cut(another.configs[0].InitialCluster, ",")
	if err := another.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(another.close)
	for name, c := range map[string]struct{ settings, why string }{
		"noetcd": {"endpoints = [\"" + web.URL + "\"]\nkey_file = \"key\"\n", "that is no etcd"},
		"old":    {"endpoints = [\"" + oldEtcd(t) + "\"]\nkey_file = \"key\"\n", "is etcd 3.4.23: at least 3.5.0 is needed"},
		"two":    {"endpoints = [\"" + e.endpoints[0] + "\", \"" + another.endpoints[0] + "\"]\nkey_file = \"key\"\n", "are not of one etcd"},
		"other":  {strings.Replace(settings, `"key"`, `"other"`, 1), "is in use by the fleet"},
	} {
		code, log := begin(t, dir, name, c.settings).end()
		lines := strings.Split(strings.TrimSpace(log), "\n")
		last := lines[len(lines)-1]
		if code != 2 || !strings.HasPrefix(last, "meta9d: ") || !strings.Contains(last, c.why) {
			t.Errorf("%s: exit %d, want 2; the last line is %q, want %q in it", name, code, last, c.why)
		}
	}
}

// oldEtcd is an etcd that says that it is 3.4.23, and has nothing else.
func oldEtcd(t *testing.T) (endpoint string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterMaintenanceServer(srv, old{})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return "http://" + l.Addr().String()
}

type old struct {
	pb.UnimplementedMaintenanceServer
}

func (old) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{}, Version: "3.4.23"}, nil
}

// TestRunFleet: what make run-fleet does, until it is told to end. A host that is killed does not end
// it, and what its lines say is done.
func TestRunFleet(t *testing.T) {
	dir := filepath.Join(folder(t), "fleet")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in, orders := io.Pipe()
	defer orders.Close()
	out := new(lines)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, bin, dir, in, out) }()
	saw := 0
	says := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			all := out.all()
			if i := strings.Index(all[saw:], what); i >= 0 {
				saw += i + len(what)
				return
			}
			select {
			case err := <-ended:
				t.Fatalf("it has ended: %v\n%s", err, all)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("it never says %q, but:\n%s", what, all)
			}
		}
	}
	order := func(line string) {
		t.Helper()
		fmt.Fprintln(orders, line)
		says("done: " + line + "\n")
	}
	says("Ctrl-C here ends it")
	if err := run(ctx, bin, dir, strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("one runs already, in %s (process %d)", dir, os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	a, b := &proc{t: t, run: filepath.Join(dir, "a")}, &proc{t: t, run: filepath.Join(dir, "b")}
	_, rest, _ := strings.Cut(a.must("cat", "/ctl"), "\npid ")
	pid, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	says("meta9d of host a has ended: signal: killed; here, 'start a' starts it again\n")
	b.must("fleet", "status")
	order("start a")
	a.must("cat", "/vms/"+vm+"/keys/motd")
	order("kill a")
	order("start a")
	order("stop etcd1")
	a.must("put", "/vms/"+vm+"/keys/motd", "two members are enough")
	order("start etcd1")
	order("stop b")
	order("stop etcd2")
	order("start etcd2")
	fmt.Fprintln(orders, "start a")
	says("host a runs\n")
	fmt.Fprintln(orders, "stop etcd4")
	says("type one of: ")
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// TestRunFleetKilled: a run-fleet that is killed leaves no meta9d; the next one says that the folder is left.
func TestRunFleetKilled(t *testing.T) {
	dir := folder(t)
	program := filepath.Join(dir, "run-fleet")
	if said, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	of := filepath.Join(dir, "fleet")
	c := exec.Command(program, "-bin", bin, "-dir", of)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := new(lines)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	killed := sync.OnceFunc(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	t.Cleanup(killed)
	out.until(t, "Ctrl-C here ends it")
	killed()
	for _, host := range hosts {
		testenv.Eventually(t, "the meta9d of "+host+" has ended", func() bool {
			conn, err := net.Dial("unix", filepath.Join(of, host, "admin.sock"))
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
	}
	if said, err := exec.Command(program, "-bin", bin, "-dir", of).CombinedOutput(); err == nil || !strings.Contains(string(said), of+" is there already, and none runs in it") {
		t.Errorf("the next one: %v\n%s", err, said)
	}
}

// TestQuietAddrs: no port of a member is one that another program is given, or has.
func TestQuietAddrs(t *testing.T) {
	var first []string
	testenv.Eventually(t, "a port that no other program has just taken", func() bool {
		var err error
		if first, err = quietAddrs(2); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", first[0])
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err == nil
	})
	all, err := quietAddrs(6)
	if err != nil || len(all) != 6 {
		t.Fatal(all, err)
	}
	for _, addr := range all {
		_, port, _ := net.SplitHostPort(addr)
		if n, err := strconv.Atoi(port); err != nil || n >= 32768 || addr == first[0] {
			t.Errorf("%s, beside %s which is taken", addr, first[0])
		}
	}
}
