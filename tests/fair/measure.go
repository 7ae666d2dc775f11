package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/raw"
)

// hostile is the attacker's VM; guest(i) is that of an honest guest.
const hostile = "99999999-0000-4000-8000-000000000000"

func guest(i int) string { return fmt.Sprintf("11111111-0000-4000-8000-%012d", i) }

// figures are what the guests saw in one time, or the median of that.
type figures struct {
	readP50, readP99, writeP50, writeP99 time.Duration
	rate                                 float64 // reads and writes of all guests in a second
	memory                               int64   // how much RssAnon of meta9d grew at most
	attack                               float64 // requests of the attacker in a second
}

// result is an attack's figures.
type result struct {
	attack
	alone, attacked, control figures
}

// measure runs all rounds of an attack, on two new meta9d.
func (o options) measure(a attack) (result, error) {
	r := result{attack: a}
	dir, err := os.MkdirTemp(o.dir, "meta9-fair-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	if o.meta9d == "" {
		if o.meta9d, err = daemon.Build(dir, "meta9d"); err != nil {
			return r, err
		}
	}
	var both [2]*daemon.Daemon
	for i := range both {
		at := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(at, 0o700); err != nil {
			return r, err
		}
		d, err := daemon.Start(daemon.Options{Bin: o.meta9d, Dir: at, Config: o.config})
		if err != nil {
			return r, err
		}
		defer d.Kill()
		if err := a.prepare(d, hostile); err != nil {
			return r, fmt.Errorf("the hostile VM: %w", err)
		}
		both[i] = d
	}
	g, err := newGuests(both[0], o.guests)
	if err != nil {
		return r, err
	}
	defer g.close()
	var alone, attacked, control []figures
	for round := range o.rounds {
		// What goes first has the machine as the last left it, so they take turns.
		steps := []func() error{
			func() error { return o.step(&alone, g, nil, a) },
			func() error { return o.step(&attacked, g, both[0], a) },
			func() error { return o.step(&control, g, both[1], a) },
		}
		for i := range steps {
			if err := steps[(i+round)%len(steps)](); err != nil {
				return r, err
			}
		}
	}
	r.alone, r.attacked, r.control = median(alone), median(attacked), median(control)
	return r, nil
}

// step measures the guests once; d is whom the attack goes to, nil for none.
func (o options) step(to *[]figures, g *guests, d *daemon.Daemon, a attack) error {
	for _, d := range []*daemon.Daemon{g.Daemon, d} {
		if err := rest(d); err != nil {
			return err
		}
	}
	before, err := g.Anon()
	if err != nil {
		return err
	}
	var by *attacker
	if d != nil {
		if by, err = startAttack(a.name, filepath.Dir(d.VM(hostile))); err != nil {
			return err
		}
		defer by.kill()
		time.Sleep(settleTime)
	}
	f, err := g.measure(o.time, before)
	if err != nil {
		return err
	}
	if by != nil {
		if f.attack, err = by.end(); err != nil {
			return err
		}
	}
	if o.verbose {
		who := "alone"
		if d == g.Daemon {
			who = "attacked"
		} else if d != nil {
			who = "control"
		}
		fmt.Fprintf(os.Stderr, "fair: %s, %s: %+v\n", a.name, who, f)
	}
	*to = append(*to, f)
	return nil
}

// settleTime is what an attack has to get under way.
const settleTime = 500 * time.Millisecond

// rest waits until meta9d, which may be nil, has done what an earlier attack left
// behind: it takes less than a tenth of a CPU.
func rest(d *daemon.Daemon) error {
	const step = 100 * time.Millisecond
	if d == nil {
		return nil
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		from, err := d.CPUTime()
		if err != nil {
			return fmt.Errorf("meta9d is gone: %w\n%s", err, d.Log())
		}
		time.Sleep(step)
		to, err := d.CPUTime()
		if err != nil {
			return fmt.Errorf("meta9d is gone: %w\n%s", err, d.Log())
		}
		if to-from <= step/10 {
			return nil
		}
	}
	return errors.New("meta9d is still busy 30 s after the attack")
}

// guests are the honest ones, each with a connection.
type guests struct {
	*daemon.Daemon
	conns []*raw.Conn
}

// pace is how often a guest reads and writes.
const pace = 100 * time.Millisecond

func newGuests(d *daemon.Daemon, n int) (*guests, error) {
	g := &guests{Daemon: d}
	for i := range n {
		if err := d.Create(fmt.Appendf(nil, `{"uuid":%q,"customer_metadata":{"color":"blue"}}`, guest(i))); err != nil {
			return nil, err
		}
		c, err := hello(d.VM(guest(i)), "9P2000.e")
		if err != nil {
			return nil, err
		}
		g.conns = append(g.conns, c)
	}
	return g, nil
}

func (g *guests) close() {
	for _, c := range g.conns {
		c.Close()
	}
}

// measure has the guests at work for a while. before is the memory that growth is
// counted from.
func (g *guests) measure(long time.Duration, before int64) (figures, error) {
	var reads, writes []time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	begin := time.Now()
	for i, c := range g.conns {
		wg.Go(func() {
			r, w, err := work(c, begin.Add(pace*time.Duration(i)/time.Duration(len(g.conns))), begin.Add(long))
			mu.Lock()
			defer mu.Unlock()
			reads, writes = append(reads, r...), append(writes, w...)
			if err != nil {
				failed = fmt.Errorf("guest %d: %w", i, err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	most := before
	for at := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-at.C:
			now, _ := g.Anon()
			most = max(most, now)
			continue
		case <-done:
		}
		at.Stop()
		break
	}
	if failed != nil {
		return figures{}, fmt.Errorf("%w\nmeta9d's log:\n%s", failed, g.Log())
	}
	took := time.Since(begin)
	f := figures{rate: float64(len(reads)+len(writes)) / took.Seconds(), memory: most - before}
	f.readP50, f.readP99 = percentiles(reads)
	f.writeP50, f.writeP99 = percentiles(writes)
	return f, nil
}

// work is one guest's, from its first turn on. A turn that takes longer than the
// pace makes the next one late: the rate shows that.
func work(c *raw.Conn, at, end time.Time) (reads, writes []time.Duration, err error) {
	value := make([]byte, 100)
	for ; at.Before(end); at = at.Add(pace) {
		if late := time.Since(at); late > pace {
			at = at.Add(late)
		}
		time.Sleep(time.Until(at))
		from := time.Now()
		if _, err := c.Sread(0, "keys", "color"); err != nil {
			return reads, writes, fmt.Errorf("a read: %w", err)
		}
		mid := time.Now()
		if err := c.Swrite(0, value, "keys", "color"); err != nil {
			return reads, writes, fmt.Errorf("a write: %w", err)
		}
		reads, writes = append(reads, mid.Sub(from)), append(writes, time.Since(mid))
	}
	return reads, writes, nil
}

func percentiles(d []time.Duration) (p50, p99 time.Duration) {
	if len(d) == 0 {
		return 0, 0
	}
	slices.Sort(d)
	return d[len(d)/2], d[len(d)*99/100]
}

// median is that of each figure by itself; of the memory, the most.
func median(all []figures) (m figures) {
	duration := func(field func(*figures) *time.Duration) {
		var d []time.Duration
		for i := range all {
			d = append(d, *field(&all[i]))
		}
		slices.Sort(d)
		*field(&m) = d[len(d)/2]
	}
	number := func(field func(*figures) *float64) {
		var d []float64
		for i := range all {
			d = append(d, *field(&all[i]))
		}
		slices.Sort(d)
		*field(&m) = d[len(d)/2]
	}
	duration(func(f *figures) *time.Duration { return &f.readP50 })
	duration(func(f *figures) *time.Duration { return &f.readP99 })
	duration(func(f *figures) *time.Duration { return &f.writeP50 })
	duration(func(f *figures) *time.Duration { return &f.writeP99 })
	number(func(f *figures) *float64 { return &f.rate })
	number(func(f *figures) *float64 { return &f.attack })
	for _, f := range all {
		m.memory = max(m.memory, f.memory)
	}
	return m
}

// attacker is the process that attacks.
type attacker struct {
	cmd  *exec.Cmd
	stop io.Closer
	out  *bufio.Reader
	from time.Time
}

// startAttack starts it and waits until it is under way.
func startAttack(name, socket string) (*attacker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-attack", name, "-socket", socket)
	cmd.Env = append(os.Environ(), attackEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stop, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &attacker{cmd, stop, bufio.NewReader(out), time.Time{}}
	if line, err := a.out.ReadString('\n'); line != "ready\n" {
		a.kill()
		return nil, fmt.Errorf("the attacker said %q, %w", line, err)
	}
	a.from = time.Now()
	return a, nil
}

// end has the attacker end, and gives its requests a second.
func (a *attacker) end() (float64, error) {
	a.stop.Close()
	took := time.Since(a.from)
	line, err := a.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the attacker did not say what it did: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	a.kill()
	return float64(n) / took.Seconds(), err
}

func (a *attacker) kill() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}
