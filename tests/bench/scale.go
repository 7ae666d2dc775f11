package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/peers"
	"meta9/tests/raw"
)

// The sizes that meta9d must bear; a short run has a tenth of them.
const (
	idleConns = 10_000
	nParked   = 10_000
	scaleVMs  = 10_000
	keysPerVM = 100

	fleetVMs  = 100_000 // of fleetKeys
	fleetKeys = 10
)

func (b *bench) scaled(n int) int {
	if b.short {
		return n / 10
	}
	return n
}

// atMost is a row of one figure of meta9d that has an upper bound.
func atMost(name, title, unit string, bound float64, measure func(*bench) (figure, error)) row {
	return row{
		name: name, title: title, unit: unit, slow: true, less: true,
		entries: []entry{ours(sMeta9, measure)},
		bars:    []bar{{entry: sMeta9, text: unit, most: true, bound: bound, at: value(sMeta9)}},
	}
}

func idle() row {
	return atMost("idle", "growth of RSS by an idle attached unix connection, of 10,000 (a tenth if -short)", "bytes/connection", 5<<10, (*bench).idleRSS)
}

func parked() row {
	return atMost("parked", "growth of RSS by 10,000 parked sessions of 4 fids", "MiB", 64, (*bench).parkedRSS)
}

func heap() row {
	return atMost("heap", "live heap of a key of 100 bytes beyond its value, 100 keys a VM", "bytes/key", 350, (*bench).heapPerKey)
}

func coldStart() row {
	return atMost("coldstart", "from exec to ready, 10,000 VMs of 100 keys (a tenth if -short)", "s", 5, (*bench).startTime)
}

func fleetStart() row {
	return atMost("fleetstart", "from exec to ready, 100,000 VMs of 10 keys (a tenth if -short)", "s", 1.5, (*bench).fleetTime)
}

// fleetMemory is what meta9d takes right after it has started.
func fleetMemory() row {
	const anon, rss = "RssAnon", "RSS"
	return row{
		name: "fleetmemory", title: "memory after a cold start, 100,000 VMs of 10 keys of 100 bytes (a tenth if -short)", unit: "MiB", slow: true, less: true,
		entries: []entry{
			ours(anon, func(b *bench) (figure, error) {
				return b.fleetSize(func(d *daemon.Daemon) (int64, error) { return d.Anon() })
			}),
			ours(rss, func(b *bench) (figure, error) {
				return b.fleetSize(func(d *daemon.Daemon) (int64, error) { return d.RSS() })
			}),
		},
		bars: []bar{{entry: anon, text: "MiB", most: true, bound: 500, at: value(anon)}},
	}
}

// idleRSS attaches connections, leaves them alone, and weighs the process.
func (b *bench) idleRSS() (figure, error) {
	defer b.stopAll()
	in, err := b.instance(sMeta9)
	if err != nil {
		return figure{}, err
	}
	before, err := in.proc.RSS()
	if err != nil {
		return figure{}, err
	}
	n := b.scaled(idleConns)
	conns := make([]*raw.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		c, err := in.dial()
		if err != nil {
			return figure{}, fmt.Errorf("connection %d: %w", len(conns)+1, err)
		}
		conns = append(conns, c)
	}
	time.Sleep(b.idle) // the row is about what is left after that long
	after, err := in.proc.RSS()
	return figure{value: float64(after-before) / float64(n)}, err
}

// parkedConfig keeps sessions while they are made and weighed.
const parkedConfig = "[session]\nlifetime = \"1h\"\n"

// parkedRSS parks sessions one after the other and weighs the process. A short
// run counts up what its fewer sessions cost.
func (b *bench) parkedRSS() (figure, error) {
	dir, err := b.dirFor("parked")
	if err != nil {
		return figure{}, err
	}
	d, err := daemon.Start(daemon.Options{Bin: b.build().meta9d, Dir: dir, Config: parkedConfig})
	if err != nil {
		return figure{}, err
	}
	defer d.Kill()
	if err := d.Create(payload(benchVM, files())); err != nil {
		return figure{}, err
	}
	before, err := d.RSS()
	if err != nil {
		return figure{}, err
	}
	n := b.scaled(nParked)
	for i := range n {
		if err := park(d, uint64(i)+1); err != nil {
			return figure{}, fmt.Errorf("session %d: %w", i+1, err)
		}
	}
	after, err := d.RSS()
	return figure{value: float64(after-before) / (1 << 20) * nParked / float64(n)}, err
}

// park leaves a session behind that has 4 fids, two of them open.
func park(d *daemon.Daemon, key uint64) error {
	c, err := raw.Dial("unix", d.Admin())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.Version(8192, "9P2000.e"); err != nil {
		return err
	}
	if _, err := c.RPC(wire.Tsession, raw.NoTag, key); err == nil || !strings.Contains(err.Error(), "cannot recover") {
		return fmt.Errorf("a new key: %w", err)
	}
	if err := c.Attach(0, plainE.aname); err != nil {
		return err
	}
	for fid := uint32(1); fid <= 3; fid++ {
		if err := c.Walk(0, fid, fileName(int(fid))); err != nil {
			return err
		}
		if fid == 3 {
			break
		}
		if err := c.Open(fid, wire.ORead); err != nil {
			return err
		}
	}
	return nil
}

// scaleConfig switches the sockets of the VMs off.
const scaleConfig = "[sockets]\nenabled = false\n"

// fleet is how many VMs a data folder has, and how many keys each of them.
type fleet struct{ vms, keys int }

var (
	someVMs = fleet{scaleVMs, keysPerVM}
	allVMs  = fleet{fleetVMs, fleetKeys}
)

// scaleData gives a folder with the data of many VMs, made once a run and
// build.
func (b *bench) scaleData(n fleet) (dir string, err error) {
	u := b.build()
	if dir := u.scale[n]; dir != "" {
		return dir, nil
	}
	if dir, err = b.dirFor("scale"); err != nil {
		return "", err
	}
	d, err := daemon.Start(daemon.Options{Bin: b.build().meta9d, Dir: dir, Config: scaleConfig})
	if err != nil {
		return "", err
	}
	defer d.Kill()
	if err := b.createVMs(d, n); err != nil {
		return "", err
	}
	if u.scale == nil {
		u.scale = map[fleet]string{}
	}
	u.scale[n] = dir
	return dir, d.Stop(time.Minute)
}

// createVMs creates the VMs over a few connections, so that creations share
// commits.
func (b *bench) createVMs(d *daemon.Daemon, n fleet) error {
	keys := peers.Files{}
	for i := range n.keys {
		keys[fmt.Sprintf("key%03d", i)] = fileValue()
	}
	const makers = 16
	errs := make([]error, makers)
	var wg sync.WaitGroup
	for m := range makers {
		wg.Go(func() {
			c, err := d.Dial("")
			if err != nil {
				errs[m] = err
				return
			}
			defer c.Close()
			for i := m; i < b.scaled(n.vms) && errs[m] == nil; i += makers {
				line := fmt.Sprintf("create %s\n", payload(scaleUUID(i), keys))
				errs[m] = c.Swrite(0, []byte(line), "ctl")
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func scaleUUID(i int) string { return fmt.Sprintf("22222222-2222-4222-8222-%012d", i) }

// onScale runs meta9d on the data of many VMs.
func (b *bench) onScale(n fleet, env ...string) (*daemon.Daemon, error) {
	dir, err := b.scaleData(n)
	if err != nil {
		return nil, err
	}
	return daemon.Start(daemon.Options{Bin: b.build().meta9d, Dir: dir, Config: scaleConfig, Env: env})
}

func (b *bench) startTime() (figure, error) { return b.timeToReady(someVMs) }

func (b *bench) fleetTime() (figure, error) { return b.timeToReady(allVMs) }

// fleetSize weighs a meta9d that has just started on all VMs. A short run counts up
// what its fewer VMs take.
func (b *bench) fleetSize(of func(*daemon.Daemon) (int64, error)) (figure, error) {
	d, err := b.onScale(allVMs)
	if err != nil {
		return figure{}, err
	}
	defer d.Kill()
	n, err := of(d)
	return figure{value: float64(n) / (1 << 20) * fleetVMs / float64(b.scaled(fleetVMs))}, err
}

// timeToReady starts meta9d on many VMs.
func (b *bench) timeToReady(n fleet) (figure, error) {
	if _, err := b.scaleData(n); err != nil {
		return figure{}, err
	}
	begin := time.Now()
	d, err := b.onScale(n)
	if err != nil {
		return figure{}, err
	}
	took := time.Since(begin)
	d.Kill()
	return figure{value: took.Seconds()}, nil
}

// heapPerKey is what Go's own trace of collections says is live, as /proc knows
// only what the process holds. A small GOGC makes collections come soon; they
// change nothing in what is live.
func (b *bench) heapPerKey() (figure, error) {
	d, err := b.onScale(someVMs, "GODEBUG=gctrace=1", "GOGC=5")
	if err != nil {
		return figure{}, err
	}
	defer d.Kill()
	live, err := collected(d, scaleUUID(0))
	keys := float64(b.scaled(scaleVMs) * keysPerVM)
	return figure{value: live/keys - valueSize}, err
}

var gcLine = regexp.MustCompile(`(?m)^gc \d+ @.* \d+->\d+->(\d+) MB`)

// collected makes meta9d allocate until two more collections have ended, the
// second of which began now or later, and gives the live bytes that it found.
func collected(d *daemon.Daemon, uuid string) (float64, error) {
	c, err := d.Dial("vms/" + uuid)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	seen := len(gcLine.FindAllString(d.Log(), -1))
	for range 1_000_000 {
		if _, err := c.Sread(0, "vm.json"); err != nil {
			return 0, err
		}
		if gcs := gcLine.FindAllStringSubmatch(d.Log(), -1); len(gcs) >= seen+2 {
			mb, err := strconv.Atoi(gcs[len(gcs)-1][1])
			return float64(mb) * (1 << 20), err
		}
	}
	return 0, errors.New("no collection came")
}
