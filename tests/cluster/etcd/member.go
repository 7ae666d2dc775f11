package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"meta9/tests/daemon"
	"meta9/tests/proc"
)

// quota is what docs/fleet.md says that a large fleet needs.
const quota = 8 << 30

// patience is how long a member may take to serve what it has.
const patience = 5 * time.Minute

// memberConfig is one member's, as JSON on its command line.
type memberConfig struct {
	Name, Dir, Client, Peer, Cluster string
}

// serveMember is a member until it is killed.
func serveMember(text string) error {
	var c memberConfig
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
	cfg.QuotaBackendBytes = quota
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

// members are an etcd cluster.
type members struct {
	configs   []memberConfig
	procs     []*proc.Proc // nil: it does not run
	endpoints []string
}

// startMembers starts a cluster of n in dir.
func startMembers(dir string, n int) (*members, error) {
	m := &members{procs: make([]*proc.Proc, n)}
	addrs, err := daemon.FreeAddrs(2 * n)
	if err != nil {
		return nil, err
	}
	var all []string
	for i := range n {
		c := memberConfig{
			Name: fmt.Sprint("m", i), Dir: filepath.Join(dir, fmt.Sprint("m", i)),
			Client: "http://" + addrs[2*i], Peer: "http://" + addrs[2*i+1],
		}
		m.configs = append(m.configs, c)
		m.endpoints = append(m.endpoints, c.Client)
		all = append(all, c.Name+"="+c.Peer)
	}
	failed := make(chan error, n)
	for i := range n { // none serves before most of them run
		m.configs[i].Cluster = strings.Join(all, ",")
		go func() { failed <- m.start(i) }()
	}
	for range n {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		m.kill()
	}
	return m, err
}

// start starts a member, and returns when it serves.
func (m *members) start(i int) error {
	text, err := json.Marshal(m.configs[i])
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	m.procs[i], err = proc.Start(exec.Command(self, "-member", string(text)), patience)
	return err
}

// kill ends all members, as a crash does.
func (m *members) kill() {
	for i, p := range m.procs {
		if p != nil {
			p.Kill()
			m.procs[i] = nil
		}
	}
}
