package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// syncs counts the fdatasyncs a second of the disk that meta9d writes to, each
// after one page was written anew, in the folder of its data, while it is idle.
func (b *bench) syncs() (figure, error) {
	in, err := b.instance(sMeta9)
	if err != nil {
		return figure{}, err
	}
	f, err := os.Create(filepath.Join(in.daemon.Data(), "bench-sync"))
	if err != nil {
		return figure{}, fmt.Errorf("measuring the disk: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	var took []time.Duration
	begin := time.Now()
	for now := begin; now.Sub(begin) < b.time; {
		start := now
		page[0]++
		if _, err := f.WriteAt(page, 0); err != nil {
			return figure{}, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return figure{}, err
		}
		now = time.Now()
		took = append(took, now.Sub(start))
	}
	return summary(took, time.Since(begin))
}

// syncless is the rate of fdatasyncs above which the disk cannot be doing
// them: a page in 20 microseconds is memory.
const syncless = 50000
