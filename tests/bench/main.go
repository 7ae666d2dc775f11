// Command bench loads meta9d and the servers beside it with the same raw frames
// over a unix socket and prints one table of rates, latencies and ratios, each
// with the bar that it has to reach.
//
// Every server is a process of its own: a peer is this program run again with
// -serve NAME. A figure is the median of several rounds, in which the servers
// take turns, so that a machine that slows down slows all of them. The load is
// made of prepared bytes; no client library is in the hot loop.
//
// A load is measured with the server on one CPU and the load on another, and once
// more unpinned; bars are about the pinned figures. With -base, the meta9d of
// another commit takes its turns too, and a bar says how much slower this one may
// be. Only ratios of one run mean anything.
//
// A row is a question (rows.go), a server is how a peer is started and spoken
// to (servers.go), a load is how it is asked (load.go); a new row or a new
// server is a new value in one of the two lists.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	rows    string
	only    string
	base    string
	least   float64
	pin     bool
	rounds  int
	time    time.Duration
	idle    time.Duration
	short   bool
	check   bool
	out     string
	dir     string
	meta9d  string
	etcd    string
	serve   string
	follow  int
	socket  string
	verbose bool
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2) // flag has said what
	}
	if o.serve != "" {
		fail(servePeer(o.serve, o.socket))
	}
	if o.follow > 0 {
		if err := beCrowd(o.socket, o.follow); err != nil {
			fail(err)
		}
		return
	}
	missed, err := run(o)
	if err != nil {
		fail(err)
	}
	if o.check && missed > 0 {
		fail(fmt.Errorf("%d bars missed", missed))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.rows, "rows", "", "run only these rows, by commas: "+strings.Join(rowNames(), ","))
	f.StringVar(&o.only, "only", "", "measure only the servers whose name has this in it, and judge no bar")
	f.StringVar(&o.base, "base", "", "compare with the meta9d of this commit, built in a git worktree")
	f.Float64Var(&o.least, "least", 0.95, "with -base: the bar, how good an entry is to be beside what it was")
	f.BoolVar(&o.pin, "pin", true, "measure each load with the server on one CPU and the load on another, and unpinned beside it")
	f.IntVar(&o.rounds, "rounds", 7, "rounds whose median is a figure")
	f.DurationVar(&o.time, "time", 500*time.Millisecond, "how long one round loads one server")
	f.DurationVar(&o.idle, "idle", 30*time.Second, "how long idle connections stay idle before they are weighed")
	f.BoolVar(&o.short, "short", false, "a smoke run: one short round, a tenth of the scale")
	f.BoolVar(&o.check, "check", false, "exit 1 when a bar is missed")
	f.StringVar(&o.out, "o", "", "write the figures as JSON to this file")
	f.StringVar(&o.dir, "dir", "", "where data folders are made (default: the system's temporary folder)")
	f.StringVar(&o.meta9d, "meta9d", "", "the meta9d to measure (default: built from the tree)")
	f.StringVar(&o.etcd, "etcd", "", "the program of tests/cluster/etcd (default: built from the tree when a row asks for it)")
	f.StringVar(&o.serve, "serve", "", "be the peer of this name (the bench runs itself so)")
	f.IntVar(&o.follow, "follow", 0, "be so many who follow the events of all VMs (the bench runs itself so)")
	f.StringVar(&o.socket, "socket", "", "with -serve: the unix socket to serve on; with -follow: the admin's")
	f.BoolVar(&o.verbose, "v", false, "say what is being measured")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.short {
		o.rounds, o.time, o.idle = 1, 200*time.Millisecond, 2*time.Second
	}
	return o, nil
}

// run measures the rows asked for and prints the table; missed is how many bars
// were not reached.
func run(o options) (missed int, err error) {
	b, err := newBench(o)
	if err != nil {
		return 0, err
	}
	defer b.close()
	var results []result
	for _, r := range rows() {
		if o.rows != "" && !slices.Contains(strings.Split(o.rows, ","), r.name) {
			continue
		}
		m, err := b.measure(r)
		if err != nil {
			return 0, fmt.Errorf("row %s: %w", r.name, err)
		}
		got := r.judge(m, b.commit, b.least)
		results = append(results, got)
		got.print(os.Stdout)
		missed += got.missed()
	}
	if len(results) == 0 {
		return 0, fmt.Errorf("no such row; there are %s", strings.Join(rowNames(), ","))
	}
	return missed, writeJSON(o, results)
}
