package wire_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"

	"meta9/fs/errs"
	"meta9/session/wire"
)

func TestAppendError(t *testing.T) {
	full := errs.New(errs.NoSpace, "%d bytes of metadata is this VM's limit", 16777216)
	host := &fs.PathError{Op: "open", Path: "/var/lib/host-secret", Err: errors.New("broken")}
	for _, c := range []struct {
		err  error
		d    wire.Dialect
		want string
	}{
		{errs.NotFound, wire.Plain, `Rerror tag 7 ename "file does not exist"`},
		{errs.NotFound, wire.U, `Rerror tag 7 ename "file does not exist" errno 2`},
		{errs.NotFound, wire.L, `Rlerror tag 7 ecode 2`},
		{errs.Gone, wire.U, `Rerror tag 7 ename "file does not exist" errno 2`},
		{errs.Gone, wire.LE, `Rlerror tag 7 ecode 116`},
		{errs.CannotResume, wire.E, `Rerror tag 7 ename "cannot recover"`},
		{full, wire.Plain, `Rerror tag 7 ename "No space left on device"`},
		{full, wire.E, `Rerror tag 7 ename "No space left on device: 16777216 bytes of metadata is this VM's limit"`},
		{full, wire.EN, `Rerror tag 7 ename "No space left on device: 16777216 bytes of metadata is this VM's limit"`},
		{full, wire.U, `Rerror tag 7 ename "No space left on device: 16777216 bytes of metadata is this VM's limit" errno 28`},
		{full, wire.L, `Rlerror tag 7 ecode 28`},
		{full, wire.None, `Rerror tag 7 ename "No space left on device"`},
		{full, wire.Unknown, `Rerror tag 7 ename "No space left on device"`},
		{fmt.Errorf("commit on /dev/host-disk: %w", full), wire.E, `Rerror tag 7 ename "No space left on device: 16777216 bytes of metadata is this VM's limit"`},
		{fmt.Errorf("commit on /dev/host-disk: %w", errs.Busy), wire.E, `Rerror tag 7 ename "Device or resource busy"`},
		{host, wire.E, `Rerror tag 7 ename "i/o error"`},
		{host, wire.L, `Rlerror tag 7 ecode 5`},
	} {
		frame := wire.AppendError([]byte("before"), 7, c.err, c.d)[len("before"):]
		var m wire.Msg
		if err := wire.Decode(&m, frame, c.d); err != nil || m.Format(c.d) != c.want {
			t.Errorf("%v in %v: %s, %v, want %s", c.err, c.d, m.Format(c.d), err, c.want)
		}
	}
}

// TestLongErrorIsCut has details of runes of 3 bytes, so that the limit falls
// between runes and within one.
func TestLongErrorIsCut(t *testing.T) {
	for _, pad := range []string{"", "x", "xx"} {
		err := errs.New(errs.Invalid, "%s", pad+strings.Repeat("€", 500))
		frame := wire.AppendError(nil, 1, err, wire.E)
		var m wire.Msg
		if err := wire.Decode(&m, frame, wire.E); err != nil {
			t.Fatal(err)
		}
		if n := len(m.Ename); n > 255 || n < 253 || !utf8.ValidString(m.Ename) || !strings.HasPrefix(m.Ename, "Invalid argument: "+pad+"€") {
			t.Errorf("%d bytes: %q", n, m.Ename)
		}
	}
}
