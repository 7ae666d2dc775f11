// Run is a fleet on one machine, to try: three members of etcd in this process, two meta9d
// as the hosts a and b, and a VM that can be claimed to and fro. Lines at its terminal
// end hosts and members, and start them again. `make run-fleet` runs it; all of it is
// in one folder, and ends with it.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// vm is the VM that is made.
const vm = "550e8400-e29b-41d4-a716-446655440000"

// hosts are the names of the two meta9d, and of their folders.
var hosts = []string{"a", "b"}

func main() {
	bin := flag.String("bin", "bin", "the folder of meta9 and meta9d")
	dir := flag.String("dir", "meta9-fleet", "make all folders and sockets in `DIR`, which must not be there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *dir, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "run-fleet:", err)
		stop()
		os.Exit(1)
	}
}

// run runs the fleet until ctx ends. It does what the lines of in say (orders).
func run(ctx context.Context, bin, dir string, in io.Reader, out io.Writer) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	// Another run would find other members than those that have made the folder.
	mine, err := own(dir)
	if err != nil {
		return err
	}
	defer mine.Close()
	defer os.RemoveAll(dir)
	addrs, err := quietAddrs(6)
	if err != nil {
		return err
	}
	members := cluster(dir, addrs)
	if err := members.start(); err != nil {
		return err
	}
	defer members.close()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a secret of a fleet to try\n"), 0o600); err != nil {
		return err
	}
	f := &fleet{bin: bin, dir: dir, members: members, hosts: make(map[string]*process), ended: make(chan *process)}
	defer f.end()
	for _, host := range hosts {
		if err := f.startHost(ctx, host); err != nil {
			return err
		}
	}
	if err := sample(ctx, bin, dir); err != nil {
		return err
	}
	fmt.Fprintf(out, help, filepath.Base(dir), vm, orders)
	lines := make(chan string)
	go func() {
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-f.ended:
			if f.hosts[d.host] == d {
				delete(f.hosts, d.host)
				fmt.Fprintf(out, "meta9d of host %s has ended: %v; here, 'start %[1]s' starts it again\n", d.host, d.err)
			}
		case line := <-lines:
			if words := strings.Fields(line); len(words) > 0 {
				if err := f.order(ctx, words); err != nil {
					fmt.Fprintln(out, err)
				} else {
					fmt.Fprintln(out, "done:", line)
				}
			}
		}
	}
}

// ownFile is the file in the folder by which another run sees that this one runs: it is locked, and
// holds the process' number.
const ownFile = "process"

// own makes the folder this run's, until the file is closed: also by SIGKILL.
func own(dir string) (*os.File, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, os.ErrExist):
		if process, is := runs(filepath.Join(dir, ownFile)); is {
			return nil, fmt.Errorf("one runs already, in %s (process %s): end that with Ctrl-C, or name another folder with -dir", at, process)
		}
		return nil, fmt.Errorf("%s is there already, and none runs in it: remove it, if one that was killed has left it, or name another folder with -dir", at)
	case err != nil:
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, ownFile))
	if err != nil {
		return nil, err
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err == nil {
		_, err = fmt.Fprint(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// runs tells whether a process has the file locked, and which.
func runs(file string) (process string, is bool) {
	f, err := os.Open(file)
	if err != nil {
		return "", false
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return "", false
	}
	text, _ := io.ReadAll(f)
	return string(text), true
}

// quietAddrs are so many addresses of the loopback that nobody listens at now. Their ports are lower than
// those that the kernel gives to whoever asks for any, so that no other program takes that of a member
// that is stopped.
func quietAddrs(n int) (all []string, err error) {
	const first, end = 23790, 32768
	for port := first; len(all) < n && port < end; port++ {
		l, listenErr := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if listenErr != nil {
			err = listenErr
			continue
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	if len(all) < n {
		return nil, err
	}
	return all, nil
}

// starting runs what starts processes that are to end with this one, also by SIGKILL. Linux sends
// Pdeathsig when the thread that has started them ends: this one ends with the process.
var starting = sync.OnceValue(func() chan<- func() {
	do := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range do {
			f()
		}
	}()
	return do
})

// help is what is printed when all is there.
const help = `
A fleet of two hosts serves. Paste into another terminal, in this folder:

  a() { bin/meta9 --addr unix:%[1]s/a/admin.sock "$@"; }
  b() { bin/meta9 --addr unix:%[1]s/b/admin.sock "$@"; }
  a fleet status
  a fleet where %[2]s
  a put /vms/%[2]s/keys/motd 'written at a'
  b fleet claim %[2]s
  b cat /vms/%[2]s/keys/motd
  a fleet claim %[2]s

To see what happens when something fails, type here: %[3]s
Ctrl-C here ends it, and removes %[1]s.
`

// orders are what a line can say.
const orders = "kill HOST, stop HOST, start HOST (a or b), stop MEMBER, start MEMBER (etcd1, etcd2 or etcd3)"

// fleet is what runs.
type fleet struct {
	bin, dir string
	members  *etcds
	hosts    map[string]*process // those that run
	ended    chan *process       // those that have ended after they served
}

// order does what a line says.
func (f *fleet) order(ctx context.Context, words []string) error {
	if len(words) != 2 {
		return errors.New("type one of: " + orders)
	}
	what, who := words[0], words[1]
	d := f.hosts[who]
	member := slices.IndexFunc(f.members.configs, func(c *embed.Config) bool { return c.Name == who })
	switch {
	case slices.Contains(hosts, who) && what == "start":
		if d != nil {
			return fmt.Errorf("host %s runs", who)
		}
		return f.startHost(ctx, who)
	case slices.Contains(hosts, who) && (what == "kill" || what == "stop"):
		if d == nil {
			return fmt.Errorf("host %s does not run", who)
		}
		delete(f.hosts, who)
		if what == "kill" {
			_ = d.cmd.Process.Kill()
		}
		d.end()
		return nil
	case member >= 0 && what == "start":
		return f.members.startOne(member)
	case member >= 0 && what == "stop":
		return f.members.stopOne(member)
	}
	return errors.New("type one of: " + orders)
}

// startHost starts the meta9d of a host, which may have run before.
func (f *fleet) startHost(ctx context.Context, host string) error {
	d, err := startDaemon(ctx, f.bin, f.dir, host, f.members.endpoints)
	if err != nil {
		return err
	}
	f.hosts[host] = d
	go func() {
		<-d.gone
		select {
		case f.ended <- d:
		case <-ctx.Done():
		}
	}()
	return nil
}

// end ends the hosts that run.
func (f *fleet) end() {
	for _, d := range f.hosts {
		d.end()
	}
}

// etcds are the members of a cluster.
type etcds struct {
	configs   []*embed.Config
	all       []*embed.Etcd
	endpoints []string
}

// cluster makes three members in dir, at six addresses. None is started.
func cluster(dir string, addrs []string) *etcds {
	e := new(etcds)
	var peers []string
	for i := range 3 {
		urls := []url.URL{{Scheme: "http", Host: addrs[2*i]}, {Scheme: "http", Host: addrs[2*i+1]}}
		cfg := embed.NewConfig()
		cfg.Name = fmt.Sprint("etcd", i+1)
		cfg.Dir = filepath.Join(dir, cfg.Name)
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls[:1], urls[:1]
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls[1:], urls[1:]
		cfg.LogLevel, cfg.Logger, cfg.LogOutputs = "fatal", "zap", []string{"stderr"}
		e.configs = append(e.configs, cfg)
		e.endpoints = append(e.endpoints, urls[0].String())
		peers = append(peers, cfg.Name+"="+urls[1].String())
	}
	for _, cfg := range e.configs {
		cfg.InitialCluster = strings.Join(peers, ",")
	}
	return e
}

// start starts the members, and waits until they serve.
func (e *etcds) start() error {
	e.all = make([]*embed.Etcd, len(e.configs))
	for i := range e.configs {
		if err := e.startOne(i); err != nil {
			e.close()
			return err
		}
	}
	for _, m := range e.all {
		select {
		case <-m.Server.ReadyNotify():
		case <-time.After(time.Minute):
			e.close()
			return errors.New("etcd does not serve")
		}
	}
	return nil
}

// startOne starts a member. It serves as soon as most members run.
func (e *etcds) startOne(i int) (err error) {
	if e.all[i] != nil {
		return fmt.Errorf("%s runs", e.configs[i].Name)
	}
	e.all[i], err = embed.StartEtcd(e.configs[i])
	return err
}

// stopOne ends a member.
func (e *etcds) stopOne(i int) error {
	if e.all[i] == nil {
		return fmt.Errorf("%s does not run", e.configs[i].Name)
	}
	e.all[i].Close()
	e.all[i] = nil
	return nil
}

// close ends the members that run.
func (e *etcds) close() {
	for i, m := range e.all {
		if m != nil {
			m.Close()
			e.all[i] = nil
		}
	}
}

// process is a meta9d that runs.
type process struct {
	host string
	cmd  *exec.Cmd
	gone chan struct{}
	err  error // why it has ended; for who has seen gone closed
}

// startDaemon runs a host's meta9d in dir/HOST, and waits until it serves.
func startDaemon(ctx context.Context, bin, dir, host string, endpoints []string) (*process, error) {
	settings := filepath.Join(dir, host+".toml")
	text := fmt.Sprintf("data = \"\"\nrun = %q\n\n[cluster]\nendpoints = [\"%s\"]\nhost = %q\nkey_file = %q\n",
		filepath.Join(dir, host), strings.Join(endpoints, `", "`), host, filepath.Join(dir, "key"))
	// A host that is started again has the settings that somebody may have changed.
	file, err := os.OpenFile(settings, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	d := &process{host: host, gone: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(bin, "meta9d"), "--config", settings, "--log-level", "warn")
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C is for this program, which ends them in order
		Pdeathsig: syscall.SIGKILL, // without the members here meta9d would wait for ever
	}
	said, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	starting() <- func() { started <- d.cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		if n, _ := io.ReadFull(said, make([]byte, len("ready\n"))); n > 0 {
			close(ready)
		}
		_, _ = io.Copy(io.Discard, said)
		if d.err = d.cmd.Wait(); d.err == nil {
			d.err = errors.New("exit status 0")
		}
		close(d.gone)
	}()
	select {
	case <-ready:
		return d, nil
	case <-d.gone:
		return nil, fmt.Errorf("meta9d of host %s has ended: %w", host, d.err)
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(time.Minute):
		err = fmt.Errorf("meta9d of host %s does not serve", host)
	}
	d.end()
	return nil, err
}

// end ends it, as SIGTERM does.
func (d *process) end() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.gone:
	case <-time.After(30 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.gone
	}
}

// sample makes the VM at the host a.
func sample(ctx context.Context, bin, dir string) error {
	payload := `{"uuid":"` + vm + `","alias":"web0","customer_metadata":{"motd":"hello"}}`
	c := exec.CommandContext(ctx, filepath.Join(bin, "meta9"), "--addr", "unix:"+filepath.Join(dir, "a", "admin.sock"), "vm", "create")
	c.Stdin = strings.NewReader(payload)
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("meta9 vm create: %w: %s", err, said)
	}
	return nil
}
