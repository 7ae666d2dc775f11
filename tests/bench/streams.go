package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

func follow(d *daemon.Daemon) (*follower, error) {
	c, err := d.Dial("")
	if err == nil {
		err = errors.Join(c.Walk(0, 1, "events"), c.Open(1, wire.ORead))
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
	followers := make([]*follower, n)
	var reading sync.WaitGroup
	defer reading.Wait()
	for i := range followers {
		if followers[i], err = follow(in.daemon); err != nil {
			return f, fmt.Errorf("stream %d: %w", i+1, err)
		}
		defer followers[i].c.Close()
		reading.Go(followers[i].run)
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
	if err := errors.Join(append(errs, caughtUp(followers))...); err != nil {
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
