package wire_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"meta9/session/wire"
)

// TestDecodeRead: it takes just the Treads that Decode takes, and reads the same.
func TestDecodeRead(t *testing.T) {
	var fast wire.Msg
	rapid.Check(t, func(t *rapid.T) {
		d := wire.Dialect(rapid.IntRange(0, int(wire.Unknown)+1).Draw(t, "dialect"))
		frame := rapid.SliceOfN(rapid.Byte(), wire.HeaderLen, 30).Draw(t, "frame")
		if rapid.Bool().Draw(t, "is Tread") {
			frame[4] = byte(wire.Tread)
		}
		frame[0], frame[1], frame[2], frame[3] = byte(len(frame)), 0, 0, 0
		var slow wire.Msg
		err := wire.Decode(&slow, frame, d)
		want := err == nil && slow.Type == wire.Tread
		before := fast
		if got := wire.DecodeRead(&fast, frame, d); got != want {
			t.Fatalf("%v in %s, Decode says %v", got, d, err)
		}
		if !want {
			slow = before
		}
		if diff := cmp.Diff(slow, fast); diff != "" {
			t.Error(diff)
		}
	})
}
