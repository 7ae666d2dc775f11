package store_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/vm"
)

const (
	benchVMs  = 10000
	benchKeys = 100
	benchSize = 100
)

// fill makes VMs of keys whose values have size bytes, with realistic names.
func fill(b *testing.B, s *store.Store, vms, keys, size int) {
	b.Helper()
	var wg sync.WaitGroup
	value := strings.Repeat("v", size-8)
	for i := range vms {
		var meta strings.Builder
		for k := range keys {
			fmt.Fprintf(&meta, `,"metadata-key-%d":"%s%08d"`, k, value, k)
		}
		wg.Add(1)
		s.Submit(&store.Intent{
			Kind: store.CreateVM,
			Data: fmt.Sprintf(`{"uuid":"%s","alias":"vm-%d","owner_uuid":"%s","ram":1024,"vcpus":2,"customer_metadata":{%s}}`,
				uuidOf(i), i, uuidOf(i+1), meta.String()[1:]),
			Done: func(r store.Result) {
				if r.Err != nil {
					b.Error(r.Err)
				}
				wg.Done()
			},
		})
	}
	wg.Wait()
}

func uuidOf(i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(i)*2654435761, i)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkColdStart opens a store of 10,000 VMs of 100 keys of 100 bytes. It
// reports the seconds that takes and the bytes of heap a key costs over its
// value, all together: names, rows, properties, the view.
func BenchmarkColdStart(b *testing.B) {
	dir := b.TempDir()
	full := openBolt(b, dir, store.Config{})
	fill(b, full, benchVMs, benchKeys, benchSize)
	if err := full.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		before := heap()
		start := time.Now()
		s := openBolt(b, dir, store.Config{})
		b.ReportMetric(time.Since(start).Seconds(), "s/start")
		over := float64(heap()-before)/(benchVMs*benchKeys) - benchSize
		b.ReportMetric(over, "heapB/key")
		if s.Count() != benchVMs {
			b.Fatal("VMs:", s.Count())
		}
		_ = s.Close()
	}
}

func openBolt(b *testing.B, dir string, cfg store.Config) *store.Store {
	b.Helper()
	e, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(e, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// BenchmarkWrite is durable writes of 100 bytes, by so many writers that each
// wait for their own.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := openBolt(b, b.TempDir(), store.Config{})
			fill(b, s, writers, 10, benchSize)
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range writers {
				wg.Go(func() {
					c := s.Cell(uuidOf(i))
					for range b.N/writers + 1 {
						s.Do(&store.Intent{Kind: store.Put, Cell: c, Space: vm.Keys, Name: "metadata-key-3", Data: strings.Repeat("x", benchSize)})
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkCommit is a write without a disk: what the committer itself costs.
func BenchmarkCommit(b *testing.B) {
	s, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	fill(b, s, benchVMs, benchKeys, benchSize)
	c := s.Cell(uuidOf(7))
	b.ReportAllocs()
	for b.Loop() {
		s.Do(&store.Intent{Kind: store.Put, Cell: c, Name: "metadata-key-3", Data: "value"})
	}
}
