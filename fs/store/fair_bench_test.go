package store_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/fs/store"
)

// BenchmarkFair is what a durable write of 100 honest VMs, one each 100 ms, waits
// for: alone, and beside one VM that has 64 x 256 writes of a byte waiting at all
// times. Alone and attack take turns.
func BenchmarkFair(b *testing.B) {
	const honest, rounds, waiting = 100, 3, 64 * 256
	s := openBolt(b, b.TempDir(), store.Config{})
	fill(b, s, honest+1, 10, benchSize)
	var alone, attacked []time.Duration
	for b.Loop() {
		for range rounds {
			alone = append(alone, honestWrites(s, honest)...)
			var stop atomic.Bool
			var done sync.WaitGroup
			hostile := s.Cell(uuidOf(honest))
			done.Add(waiting)
			for range waiting {
				in := &store.Intent{Kind: store.Splice, Cell: hostile, Name: "metadata-key-3", Data: "x"}
				in.Done = func(store.Result) {
					if stop.Load() {
						done.Done()
						return
					}
					s.Submit(in)
				}
				s.Submit(in)
			}
			attacked = append(attacked, honestWrites(s, honest)...)
			stop.Store(true)
			done.Wait()
		}
	}
	us := func(all []time.Duration, percent int) float64 {
		slices.Sort(all)
		return float64(all[len(all)*percent/100].Microseconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(us(alone, 50), "us-alone-p50")
	b.ReportMetric(us(attacked, 50), "us-attacked-p50")
	b.ReportMetric(us(attacked, 50)/us(alone, 50), "x-p50")
	b.ReportMetric(us(alone, 99), "us-alone-p99")
	b.ReportMetric(us(attacked, 99), "us-attacked-p99")
}

// honestWrites is what the writes of two seconds took.
func honestWrites(s *store.Store, vms int) []time.Duration {
	const every, each = 100 * time.Millisecond, 20
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range vms {
		wg.Go(func() {
			c := s.Cell(uuidOf(i))
			time.Sleep(every * time.Duration(i) / time.Duration(vms))
			for range each {
				start := time.Now()
				s.Do(&store.Intent{Kind: store.Put, Cell: c, Name: "metadata-key-3", Data: "honest"})
				d := time.Since(start)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
				time.Sleep(max(0, every-d))
			}
		})
	}
	wg.Wait()
	return took
}
