package session

import "testing"

// TestBuffersTrim: of the buffers of a rush those stay that are needed, however busy it is,
// and the others go at the second call.
func TestBuffersTrim(t *testing.T) {
	const size = 100
	f := buffers{free: make(chan []byte, 64)}
	use := func(n int) {
		var all [][]byte
		for range n {
			all = append(all, f.get(size))
		}
		for _, b := range all {
			f.put(b)
		}
	}
	for i, step := range []struct {
		uses []int // at a time
		gone int
		left int
	}{
		{nil, 0, 0},
		{[]int{100}, 0, 64},
		{[]int{3, 10, 1}, 54, 10},
		{[]int{10}, 0, 10},
		{[]int{12}, 0, 12},
		{[]int{1, 1}, 11, 1},
		{nil, 1, 0},
		{nil, 0, 0},
		{[]int{64}, 0, 64},
		{nil, 64, 0},
	} {
		for _, n := range step.uses {
			use(n)
		}
		if bytes := f.trim(); bytes != int64(step.gone*size) || len(f.free) != step.left {
			t.Errorf("step %d: %d bytes gone, %d buffers left", i, bytes, len(f.free))
		}
	}
	b := f.get(size) // of before, and used when it is trimmed
	f.trim()
	f.put(b)
	if f.trim() != 0 || f.trim() != size {
		t.Error("one that was used is gone at once, or stays")
	}
}

// TestBuffersCost: to take a buffer and give it back allocates nothing.
func TestBuffersCost(t *testing.T) {
	f := buffers{free: make(chan []byte, 64)}
	f.put(make([]byte, 0, 100))
	if n := testing.AllocsPerRun(100, func() { f.put(f.get(100)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
