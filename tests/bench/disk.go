package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// syncSize is what a small change is on the disk: one block.
const syncSize = 4096

// disk writes and syncs a file of its own in the folder of a meta9d's data, from
// the CPU of the server: the disk interrupts one CPU, and a thread on another waits
// longer for it.
type disk struct {
	file *os.File
	page []byte
	ask  chan struct{}
	took chan time.Duration // of each write and sync
	err  error              // set before took is closed
}

func (b *bench) newDisk(in *instance, size int) (*disk, error) {
	f, err := os.Create(filepath.Join(in.daemon.Data(), "bench-sync"))
	if err != nil {
		return nil, fmt.Errorf("measuring the disk: %w", err)
	}
	d := &disk{file: f, page: make([]byte, size), ask: make(chan struct{}), took: make(chan time.Duration)}
	if err := d.once(); err != nil { // so that no other needs room
		d.close()
		return nil, fmt.Errorf("measuring the disk: %w", err)
	}
	go d.run(b.way.pinned, &b.cpus)
	return d, nil
}

// run answers what is asked. Its thread must not end with it: servers that it has
// started would end, too.
func (d *disk) run(pinned bool, c *cpus) {
	defer close(d.took)
	if pinned {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if d.err = unix.SchedSetaffinity(0, &c.server); d.err != nil {
			return
		}
		defer unix.SchedSetaffinity(0, &c.load)
	}
	for range d.ask {
		begin := time.Now()
		if d.err = d.once(); d.err != nil {
			return
		}
		d.took <- time.Since(begin)
	}
}

// once writes the same bytes of the file anew and syncs them.
func (d *disk) once() error {
	d.page[0]++
	if _, err := d.file.WriteAt(d.page, 0); err != nil {
		return err
	}
	return unix.Fdatasync(int(d.file.Fd()))
}

func (d *disk) sync() (time.Duration, error) {
	select {
	case d.ask <- struct{}{}:
	case <-d.took: // closed
	}
	took, ok := <-d.took
	if !ok {
		return 0, fmt.Errorf("measuring the disk: %w", d.err)
	}
	return took, nil
}

func (d *disk) close() {
	close(d.ask)
	d.file.Close()
	os.Remove(d.file.Name())
}

// inTurn measures one connection that writes, and after each write a write of size
// bytes and an fdatasync of the disk beneath, so that whatever else the disk does
// is in both. What it found of the disk is what syncs gives.
func (b *bench) inTurn(server string, p prepare, size int) (figure, error) {
	in, err := b.instance(server)
	if err != nil {
		return figure{}, err
	}
	l, err := newLoader(in, 0, 1, p)
	if err != nil {
		return figure{}, err
	}
	defer l.c.Close()
	d, err := b.newDisk(in, size)
	if err != nil {
		return figure{}, err
	}
	defer d.close()
	var synced []time.Duration
	until := time.Now().Add(2 * b.time)
	l.c.Net.SetDeadline(until.Add(10 * time.Second))
	for now := time.Now(); now.Before(until); now = time.Now() {
		if _, err := l.once(now); err != nil {
			return figure{}, err
		}
		took, err := d.sync()
		if err != nil {
			return figure{}, err
		}
		synced = append(synced, took)
	}
	if b.synced[b.way], err = summary(synced, total(synced)); err != nil {
		return figure{}, err
	}
	return summary(l.took, total(l.took))
}

func total(took []time.Duration) (sum time.Duration) {
	for _, t := range took {
		sum += t
	}
	return sum
}

// syncs is how fast the disk was beside the server's writes, measured just before.
func (b *bench) syncs() (figure, error) { return b.synced[b.way], nil }

// syncless is the rate of fdatasyncs above which the disk cannot be doing
// them: a page in 20 microseconds is memory.
const syncless = 50000
