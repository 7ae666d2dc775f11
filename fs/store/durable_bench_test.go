package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/fs/store"
)

// BenchmarkDurable is what a durable write of 100 bytes takes beside an fdatasync of
// a page that is overwritten, and how many writes of 64 writers, a VM each, the disk's
// fdatasyncs are worth. The three take turns.
func BenchmarkDurable(b *testing.B) {
	const rounds, each = 10, 100 * time.Millisecond
	dir := b.TempDir()
	s := openBolt(b, dir, store.Config{})
	fill(b, s, 64, 10, benchSize)
	f, err := os.Create(filepath.Join(dir, "page"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	sync1 := func() {
		_, err := f.WriteAt(page, 0)
		if err == nil {
			err = syscall.Fdatasync(int(f.Fd()))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	sync1()
	write := func(i int) {
		in := &store.Intent{Kind: store.Put, Cell: s.Cell(uuidOf(i)), Name: "metadata-key-3", Data: strings.Repeat("x", benchSize)}
		if r := s.Do(in); r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	for range 100 {
		write(0)
	}
	took := func(of func()) (list []time.Duration) {
		for end := time.Now().Add(each); time.Now().Before(end); {
			start := time.Now()
			of()
			list = append(list, time.Since(start))
		}
		return list
	}
	var syncs, ones, many []time.Duration
	for b.Loop() {
		for range rounds {
			syncs = append(syncs, took(sync1)...)
			ones = append(ones, took(func() { write(0) })...)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					list := took(func() { write(i) })
					mu.Lock()
					defer mu.Unlock()
					many = append(many, list...)
				})
			}
			wg.Wait()
		}
	}
	p50 := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)/2].Nanoseconds()) / 1e3
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p50(syncs), "us-fdatasync")
	b.ReportMetric(p50(ones), "us-write")
	b.ReportMetric(p50(many), "us-of-64")
	b.ReportMetric(p50(ones)/p50(syncs), "x-p50")
	b.ReportMetric(float64(len(ones))/float64(len(syncs)), "writes/fdatasync-of-1")
	b.ReportMetric(float64(len(many))/float64(len(syncs)), "writes/fdatasync-of-64")
}
