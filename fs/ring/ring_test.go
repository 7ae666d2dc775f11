package ring_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"meta9/fs/ring"
)

type item struct {
	at   uint64
	size int
}

// TestModel compares with a slice from which the oldest are dropped, in numbers that
// let the circle turn while it grows.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := ring.Config[item]{
			Items: rapid.IntRange(1, 6).Draw(t, "items"), Position: func(i *item) uint64 { return i.at },
			Bytes: rapid.SampledFrom([]int{0, 1, 10}).Draw(t, "bytes"), Size: func(i *item) int { return i.size },
		}
		first := rapid.Uint64Range(0, 9).Draw(t, "first")
		r := ring.New(cfg, first)
		var model []item
		last, dropped := first, first
		for range rapid.IntRange(0, 40).Draw(t, "adds") {
			last += rapid.Uint64Range(1, 3).Draw(t, "step")
			add := item{last, rapid.IntRange(0, 12).Draw(t, "size")}
			r.Add(add, nil)
			model = append(model, add)
			bytes := 0
			for _, i := range model {
				bytes += i.size
			}
			for len(model) > cfg.Items || cfg.Bytes > 0 && bytes > cfg.Bytes {
				bytes -= model[0].size
				dropped, model = model[0].at, model[1:]
			}
			pos, most := rapid.Uint64Range(0, last+1).Draw(t, "pos"), rapid.IntRange(0, 4).Draw(t, "max")
			got, lost := r.After(pos, most, nil)
			var want []item
			for _, i := range model {
				if i.at > pos && (most == 0 || len(want) < most) {
					want = append(want, i)
				}
			}
			wantLost := uint64(0)
			if dropped > pos {
				wantLost = dropped
			}
			if !slices.Equal(got, want) || lost != wantLost || r.Last() != last {
				t.Fatalf("after %d, %d at most: %v, lost %d, last %d; want %v, %d, %d", pos, most, got, lost, r.Last(), want, wantLost, last)
			}
		}
	})
}
