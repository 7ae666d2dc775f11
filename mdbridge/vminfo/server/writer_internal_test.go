package server

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

// taker is a client that takes its time for each write.
type taker struct {
	http.ResponseWriter
	pause time.Duration
	sizes []int
}

func (t *taker) Write(b []byte) (int, error) {
	time.Sleep(t.pause)
	t.sizes = append(t.sizes, len(b))
	return len(b), nil
}

func (t *taker) SetWriteDeadline(time.Time) error { return nil }

// TestPieces: a client that takes what it is given at once gets more at a time, and one
// that is slow does not, since it has only so much time for each piece.
func TestPieces(t *testing.T) {
	const patience, k = 16 * time.Millisecond, 1 << 10
	for _, test := range []struct {
		pause time.Duration
		sizes []int
	}{
		{0, []int{64 * k, 256 * k, 256 * k, 64 * k}},
		{patience / 8, slices.Repeat([]int{64 * k}, 10)},
	} {
		c := &taker{pause: test.pause}
		o := newAnswer(c, 16*patience)
		if test.pause > 0 {
			o = newAnswer(c, patience)
		}
		if err := o.write(make([]byte, 640*k)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.sizes, test.sizes) {
			t.Errorf("with pauses of %v: pieces of %v", test.pause, c.sizes)
		}
	}
}
