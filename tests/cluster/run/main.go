// Run is a fleet on one machine, to try: three members of etcd in this process, two meta9d
// as the hosts a and b, and a VM that can be claimed to and fro. `make
// run-fleet` runs it; all of it is in one folder, and ends with it.
package main

import (
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
	"strings"
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
	if err := run(ctx, *bin, *dir, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "run-fleet:", err)
		stop()
		os.Exit(1)
	}
}

// run runs the fleet until ctx ends.
func run(ctx context.Context, bin, dir string, out io.Writer) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	// Another run would find other members than those that have made the folder.
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	members, err := cluster(dir)
	if err != nil {
		return err
	}
	if err := members.start(); err != nil {
		return err
	}
	defer members.close()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a secret of a fleet to try\n"), 0o600); err != nil {
		return err
	}
	failed := make(chan error, len(hosts))
	for _, host := range hosts {
		end, err := daemon(ctx, bin, dir, host, members.endpoints, failed)
		if err != nil {
			return err
		}
		defer end()
	}
	if err := sample(ctx, bin, dir); err != nil {
		return err
	}
	fmt.Fprintf(out, help, filepath.Base(dir), vm)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

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

Ctrl-C here ends it, and removes %[1]s.
`

// etcds are the members of a cluster.
type etcds struct {
	configs   []*embed.Config
	all       []*embed.Etcd
	endpoints []string
}

// cluster makes three members in dir, on ports that are free now. None is started.
func cluster(dir string) (*etcds, error) {
	e := new(etcds)
	ports, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	var peers []string
	for i := range 3 {
		urls := []url.URL{{Scheme: "http", Host: ports[2*i]}, {Scheme: "http", Host: ports[2*i+1]}}
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
	return e, nil
}

// start starts the members, and waits until they serve.
func (e *etcds) start() error {
	for _, cfg := range e.configs {
		m, err := embed.StartEtcd(cfg)
		if err != nil {
			e.close()
			return err
		}
		e.all = append(e.all, m)
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

// close ends the members that were started.
func (e *etcds) close() {
	for _, m := range e.all {
		m.Close()
	}
	e.all = nil
}

// freePorts are so many addresses of the loopback that nobody listens at now. No two are
// one, since all are taken before any is given back.
func freePorts(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// daemon runs a host's meta9d in dir/HOST, and waits until it serves.
func daemon(ctx context.Context, bin, dir, host string, endpoints []string, failed chan error) (end func(), err error) {
	settings := filepath.Join(dir, host+".toml")
	text := fmt.Sprintf("data = \"\"\nrun = %q\n\n[cluster]\nendpoints = [\"%s\"]\nhost = %q\nkey_file = %q\n",
		filepath.Join(dir, host), strings.Join(endpoints, `", "`), host, filepath.Join(dir, "key"))
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := exec.Command(filepath.Join(bin, "meta9d"), "--config", settings, "--log-level", "warn")
	d.Stderr = os.Stderr
	d.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program, which ends them in order
	said, err := d.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.Start(); err != nil {
		return nil, err
	}
	ready, gone := make(chan struct{}), make(chan struct{})
	go func() {
		if n, _ := io.ReadFull(said, make([]byte, len("ready\n"))); n > 0 {
			close(ready)
		}
		_, _ = io.Copy(io.Discard, said)
		failed <- fmt.Errorf("meta9d of host %s has ended: %v", host, d.Wait())
		close(gone)
	}()
	end = func() {
		_ = d.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(30 * time.Second):
			_ = d.Process.Kill()
			<-gone
		}
	}
	select {
	case <-ready:
		return end, nil
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(time.Minute):
		err = fmt.Errorf("meta9d of host %s does not serve", host)
	}
	end()
	return nil, err
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
