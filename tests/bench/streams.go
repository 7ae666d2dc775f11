package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
)

// What goes on beside the streams: each guest reads its key every so often, and a key of
// another VM changes.
const (
	nStreams    = 10_000 // of the events of all VMs
	nGuests     = 8
	guestPause  = 2 * time.Millisecond
	changePause = 10 * time.Millisecond
)

// streams is what many who follow the events of all VMs cost the reads of guests.
func streams() row {
	const none, all = "no stream", "10,000 streams"
	return row{
		name: "streams", title: "Tsread by 8 guests, 100 changes a second, and 10,000 streams of all events (a tenth if -short)", unit: "ms at p99",
		base: none, slow: true, less: true,
		entries: []entry{
			ours(none, func(b *bench) (figure, error) { return b.readsBesideStreams(0) }),
			ours(all, func(b *bench) (figure, error) { return b.readsBesideStreams(b.scaled(nStreams)) }),
		},
		bars: []bar{{entry: all, text: "times those without streams", bound: 3, most: true, at: ratio(all, none)}},
	}
}

func guestUUID(i int) string { return fmt.Sprintf("33333333-3333-4333-8333-%012d", i) }

// follower is a connection of the admin that reads the events of all VMs.
type follower struct {
	c    *raw.Conn
	read atomic.Int64 // bytes
}

func follow(admin string) (*follower, error) {
	c, err := raw.Dial("unix", admin)
	if err == nil {
		err = errors.Join(daemon.Hello(c, plainE.version, ""), c.Walk(0, 1, "events"), c.Open(1, wire.ORead))
	}
	return &follower{c: c}, err
}

// run reads until the connection is closed.
func (f *follower) run() {
	for off := uint64(0); ; {
		b, err := f.c.Read(1, off, readCount)
		if err != nil {
			return
		}
		off += uint64(len(b))
		f.read.Store(int64(off))
	}
}

// readsBesideStreams is how long guests' reads take at p99 while so many follow all
// changes. Each of those must have got what the others have, in the end.
func (b *bench) readsBesideStreams(n int) (f figure, err error) {
	defer b.stopAll()
	in, err := b.instance(sMeta9)
	if err != nil {
		return f, err
	}
	guests := make([]*raw.Conn, nGuests)
	for i := range guests {
		if err := in.daemon.Create(payload(guestUUID(i), files())); err != nil {
			return f, err
		}
		if guests[i], err = raw.Dial("unix", in.daemon.VM(guestUUID(i))); err != nil {
			return f, err
		}
		defer guests[i].Close()
		if err := daemon.Hello(guests[i], plainE.version, "keys"); err != nil {
			return f, err
		}
	}
	end := func() error { return nil }
	if n > 0 {
		crowd, err := startCrowd(in.daemon.Admin(), n)
		if err != nil {
			return f, err
		}
		defer crowd.kill()
		end = crowd.end
	}
	writer, err := in.daemon.Dial(plainE.aname)
	if err != nil {
		return f, err
	}
	defer writer.Close()
	until := time.Now().Add(4 * b.time)
	errs := make([]error, nGuests+1)
	took := make([][]time.Duration, nGuests)
	var wg sync.WaitGroup
	for i, c := range guests {
		wg.Go(func() {
			for now := time.Now(); now.Before(until) && errs[i] == nil; now = time.Now() {
				_, errs[i] = c.Sread(0, fileName(i))
				took[i] = append(took[i], time.Since(now))
				time.Sleep(guestPause)
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(until) && errs[nGuests] == nil {
			errs[nGuests] = writer.Swrite(0, []byte(fileValue()), fileName(0))
			time.Sleep(changePause)
		}
	})
	wg.Wait()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	if err := errors.Join(append(errs, end())...); err != nil {
		return f, err
	}
	f, err = summary(all, 4*b.time)
	f.value = float64(f.p99) / float64(time.Millisecond)
	return f, err
}

// caughtUp waits until all followers have read as much as the one that has most.
func caughtUp(list []*follower) error {
	var most int64
	for _, f := range list {
		most = max(most, f.read.Load())
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		behind := 0
		for _, f := range list {
			if f.read.Load() < most {
				behind++
			}
		}
		if behind == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d streams are behind the others after 20 s", behind)
		}
	}
}

// beCrowd is the process of n followers: it follows until standard input ends, and then
// until all have the same. In the guests' process a guest that has its reply would wait
// behind all followers that have one.
func beCrowd(admin string, n int) error {
	followers := make([]*follower, n)
	for i := range followers {
		f, err := follow(admin)
		if err != nil {
			return fmt.Errorf("stream %d: %w", i+1, err)
		}
		followers[i] = f
		go f.run()
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return caughtUp(followers)
}

// crowd is the process of the followers.
type crowd struct {
	cmd  *exec.Cmd
	stop io.Closer
}

// startCrowd starts n followers and waits until all follow.
func startCrowd(admin string, n int) (*crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &crowd{cmd: exec.Command(self, "-follow", strconv.Itoa(n), "-socket", admin)}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.stop, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		c.kill()
		return nil, fmt.Errorf("the streams could not be opened: %w", err)
	}
	return c, nil
}

// end waits until all followers have got what the others have.
func (c *crowd) end() error {
	c.stop.Close()
	return c.cmd.Wait()
}

func (c *crowd) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
