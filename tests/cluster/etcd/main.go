// Etcd is a real etcd for `make bench` and `make fleet-size`: members, each a process of its
// own, and clients of it. The bench asks for a load by HTTP on a unix socket; with -size as many VMs
// as a large fleet has are loaded, and what they take is printed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"meta9/tests/cluster/members"
	"meta9/tests/proc"
)

// quota is what docs/fleet.md says that a large fleet needs.
const quota = 8 << 30

func main() {
	members.Serve()
	var c config
	flag.StringVar(&c.dir, "dir", "", "the folder of all members' data (default: a temporary one)")
	flag.IntVar(&c.members, "members", 3, "how many members there are; with -size 1 is a member's share all the same")
	flag.StringVar(&c.socket, "socket", "", "serve loads here, for the bench")
	flag.BoolVar(&c.size, "size", false, "load VMs, and print what they take")
	flag.IntVar(&c.vms, "vms", 100_000, "with -size: how many VMs")
	flag.IntVar(&c.keys, "keys", 50, "with -size: how many keys each has, of 100 bytes")
	flag.IntVar(&c.hosts, "hosts", 100, "with -size: how many hosts own them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}

// config is the command line.
type config struct {
	dir, socket      string
	members          int
	size             bool
	vms, keys, hosts int
}

func run(ctx context.Context, c config) error {
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "meta9-etcd-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c.dir = dir
	}
	m, err := members.New(c.dir, c.members, members.Config{Quota: quota}, 5*time.Minute)
	if err != nil {
		return err
	}
	if err := m.Start(); err != nil {
		return err
	}
	defer m.KillAll()
	if c.size {
		return size(ctx, c, m, os.Stdout)
	}
	return serveLoads(ctx, c.socket, m)
}

// serveLoads answers GET /endpoints, and GET /load?kind=KIND&clients=N&ms=TIME by a report.
func serveLoads(ctx context.Context, socket string, m *members.Cluster) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /endpoints", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, m.Endpoints(), nil)
	})
	mux.HandleFunc("GET /load", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		clients, err := strconv.Atoi(q.Get("clients"))
		ms, err2 := strconv.Atoi(q.Get("ms"))
		kind := loads[q.Get("kind")]
		if err != nil || err2 != nil || clients < 1 || kind == nil {
			answer(w, nil, fmt.Errorf("no such load: %s", r.URL.RawQuery))
			return
		}
		rep, err := load(r.Context(), m.Endpoints(), kind, clients, time.Duration(ms)*time.Millisecond)
		answer(w, rep, err)
	})
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: mux}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	fmt.Println(proc.Ready)
	if err := s.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	if err == nil {
		err = json.NewEncoder(w).Encode(v)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
