// Package members runs etcd clusters for tests and programs. Each member is a process of its own, the
// program that imports this once more, so that it can be killed and stopped.
package members

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"meta9/tests/daemon"
	"meta9/tests/proc"
)

// Config is a member's.
type Config struct {
	Name, Dir, Client, Peer string
	Cluster                 string // all members, as etcd wants them
	Quota                   int64  // 0: etcd's own
	TickMS                  uint   // its heartbeat; an election takes ten; 0: etcd's own
	MaxOps, MaxBytes        uint   // of a transaction; 0: etcd's own
	NoSync                  bool   // a killed process loses nothing by that
}

// env makes a process a member: it is its Config in JSON.
const env = "META9_TEST_ETCD"

// Serve is a member until it is killed, where this process was started as one. Where it was not,
// Serve returns at once. main, or TestMain, begins with it.
func Serve() {
	text := os.Getenv(env)
	if text == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "etcd:", serve(text))
	os.Exit(1)
}

func serve(text string) error {
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	client, err := url.Parse(c.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(c.Peer)
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = c.Name, c.Dir, c.Cluster
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	if c.TickMS > 0 {
		cfg.TickMs, cfg.ElectionMs = c.TickMS, 10*c.TickMS
	}
	if c.MaxOps > 0 {
		cfg.MaxTxnOps = c.MaxOps
	}
	if c.MaxBytes > 0 {
		cfg.MaxRequestBytes = c.MaxBytes
	}
	cfg.QuotaBackendBytes, cfg.UnsafeNoFsync = c.Quota, c.NoSync
	cfg.LogLevel, cfg.Logger, cfg.LogOutputs = "fatal", "zap", []string{"stderr"}
	s, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	select {
	case <-s.Server.ReadyNotify():
		fmt.Println(proc.Ready)
		return <-s.Err()
	case <-s.Server.StopNotify():
		return errors.New("it has stopped before it served")
	}
}

// Cluster is an etcd cluster. Its methods may be called from any goroutine, but for one member from one
// at a time.
type Cluster struct {
	Configs  []Config
	Procs    []*proc.Proc  // nil: the member does not run
	Patience time.Duration // how long a member may take until it serves
}

// New is a cluster of n members of c, whose data are below dir, on addresses of the loopback that are
// free now. None runs yet.
func New(dir string, n int, c Config, patience time.Duration) (*Cluster, error) {
	all := &Cluster{Procs: make([]*proc.Proc, n), Patience: patience}
	addrs, err := daemon.FreeAddrs(2 * n)
	if err != nil {
		return nil, err
	}
	var peers []string
	for i := range n {
		c.Name = fmt.Sprint("m", i)
		c.Dir = filepath.Join(dir, c.Name)
		c.Client, c.Peer = "http://"+addrs[2*i], "http://"+addrs[2*i+1]
		all.Configs = append(all.Configs, c)
		peers = append(peers, c.Name+"="+c.Peer)
	}
	for i := range all.Configs {
		all.Configs[i].Cluster = strings.Join(peers, ",")
	}
	return all, nil
}

// Start starts all members, and returns when they serve. If one does not, none runs.
func (c *Cluster) Start() (err error) {
	failed := make(chan error, len(c.Configs))
	for i := range c.Configs { // none serves before most of them run
		go func() { failed <- c.StartOne(i) }()
	}
	for range c.Configs {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		c.KillAll()
	}
	return err
}

// StartOne starts a member, and returns when it serves.
func (c *Cluster) StartOne(i int) error {
	text, err := json.Marshal(c.Configs[i])
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env+"="+string(text))
	p, err := proc.Start(cmd, c.Patience)
	if err != nil {
		return fmt.Errorf("member %d: %w", i, err)
	}
	c.Procs[i] = p
	return nil
}

// Kill ends a member as a crash does, if it runs.
func (c *Cluster) Kill(i int) {
	if p := c.Procs[i]; p != nil {
		p.Kill()
		c.Procs[i] = nil
	}
}

// KillAll is Kill of all members.
func (c *Cluster) KillAll() {
	for i := range c.Procs {
		c.Kill(i)
	}
}

// Signal stops (SIGSTOP) or continues (SIGCONT) a member that runs.
func (c *Cluster) Signal(i int, s syscall.Signal) error { return c.Procs[i].Signal(s) }

// Endpoints are those for clients.
func (c *Cluster) Endpoints() (all []string) {
	for _, m := range c.Configs {
		all = append(all, m.Client)
	}
	return all
}
