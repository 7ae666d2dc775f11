// Package cluster tests meta9 over real etcd clusters. Each member is a process of its
// own, this test's program again, so that it can be killed and stopped. It is a module of
// its own: etcd's server brings some 130 modules.
package cluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// memberEnv makes this program a member: its memberConfig as JSON.
const memberEnv = "META9_TEST_ETCD"

type memberConfig struct {
	Name, Dir, Client, Peer, Cluster string
	Quota                            int64
	Fast                             bool   // no fsync: a killed process loses nothing by that
	Cert, Key, CA                    string // files: clients speak TLS, and have a certificate of this CA
}

func TestMain(m *testing.M) {
	if text := os.Getenv(memberEnv); text != "" {
		if err := serveMember(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testenv.Main(m)
}

// serveMember is a member until it is killed, or the test is gone.
func serveMember(text string) error {
	var c memberConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = c.Name, c.Dir, c.Cluster
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls(c.Client), urls(c.Client)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls(c.Peer), urls(c.Peer)
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.QuotaBackendBytes = c.Quota
	cfg.UnsafeNoFsync = c.Fast
	if c.Cert != "" {
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = c.Cert, c.Key
		cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = c.CA, true
	}
	cfg.LogLevel, cfg.Logger, cfg.LogOutputs = "fatal", "zap", []string{"stderr"}
	s, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	go func() { // the test holds the other end
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}()
	<-s.Server.ReadyNotify()
	fmt.Println("ready")
	return <-s.Err()
}

func urls(text string) []url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return []url.URL{*u}
}

// cluster is an etcd cluster of the test's.
type cluster struct {
	t       *testing.T
	configs []memberConfig
	members []*exec.Cmd
}

// fast is for start.
func fast(m *memberConfig) { m.Fast = true }

// start starts a cluster of n members, which ends with the test.
func start(t *testing.T, n int, change ...func(*memberConfig)) *cluster {
	t.Helper()
	c := &cluster{t: t, members: make([]*exec.Cmd, n)}
	var all []string
	addrs, err := daemon.FreeAddrs(2 * n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		m := memberConfig{
			Name: fmt.Sprint("m", i), Dir: t.TempDir(),
			Client: "http://" + addrs[2*i], Peer: "http://" + addrs[2*i+1],
		}
		for _, f := range change {
			f(&m)
		}
		c.configs = append(c.configs, m)
		all = append(all, m.Name+"="+m.Peer)
	}
	ready := make([]func(), n)
	for i := range n {
		c.configs[i].Cluster = strings.Join(all, ",")
		ready[i] = c.run(i)
	}
	for _, wait := range ready {
		wait()
	}
	t.Cleanup(func() {
		for i := range n {
			c.kill(i)
		}
	})
	return c
}

// run starts a member; the function that it gives waits until it serves.
func (c *cluster) run(i int) (wait func()) {
	c.t.Helper()
	text, err := json.Marshal(c.configs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.members[i] = cmd
	ready := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(out).ReadString('\n')
		ready <- err
	}()
	return func() {
		select {
		case err := <-ready:
			if err != nil {
				c.t.Fatalf("member %d: %v", i, err)
			}
		case <-time.After(60 * time.Second):
			c.t.Fatalf("member %d does not serve", i)
		}
	}
}

// kill ends a member as a crash does.
func (c *cluster) kill(i int) {
	if m := c.members[i]; m != nil {
		_ = m.Process.Kill()
		_ = m.Wait()
		c.members[i] = nil
	}
}

// signal stops (SIGSTOP) or continues (SIGCONT) a member.
func (c *cluster) signal(i int, s syscall.Signal) {
	if err := c.members[i].Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) endpoints() (all []string) {
	for _, m := range c.configs {
		all = append(all, m.Client)
	}
	return all
}
