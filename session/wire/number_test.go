package wire_test

import (
	"strings"
	"testing"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// TestKeptReplies: what a server has to keep is as short as is said.
func TestKeptReplies(t *testing.T) {
	for _, d := range []wire.Dialect{wire.LE, wire.EN, wire.LE2, wire.EN2} {
		for req := wire.Type(0); req < 255; req++ {
			_, known := wire.MinSize(req, d)
			if !known || !strings.HasPrefix(req.String(), "T") || req.Again() || !req.Counted() {
				continue
			}
			if n := wire.MaxSize(req+1, d, wire.MaxMsize); n > wire.MaxKept {
				t.Errorf("%s in %s has up to %d bytes", req+1, d, n)
			}
		}
		long := errs.New(errs.Invalid, "%s", strings.Repeat("x", 1000))
		if n := len(wire.AppendError(nil, 1, long, d)); n > wire.MaxKept {
			t.Errorf("an error in %s has %d bytes", d, n)
		}
	}
}

// TestAgain names what may run twice: a type that is new is not among them unless
// somebody has thought of it.
func TestAgain(t *testing.T) {
	want := "Tstatfs Treadlink Tgetattr Treaddir Tlock Tgetlock Tflush Tread Tstat Tsread"
	var got []string
	for req := wire.Type(0); req < 255; req++ {
		if req.Again() {
			got = append(got, req.String())
		}
	}
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}
