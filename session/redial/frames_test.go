package redial

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"meta9/fs/errs"
)

// TestFramesStorage: a frame in shared storage lives until the next, a fresh one for good.
func TestFramesStorage(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		f := NewFrames(strings.NewReader("\x08\x00\x00\x00\x75\x00\x00a\x08\x00\x00\x00\x75\x00\x00b"))
		f.fresh = fresh
		first, err := f.Next(8)
		if err != nil || first[7] != 'a' {
			t.Fatalf("%q, %v", first, err)
		}
		if second, err := f.Next(8); err != nil || second[7] != 'b' || (first[7] == 'a') != fresh {
			t.Errorf("fresh %v: %q, %q, %v", fresh, first, second, err)
		}
		if _, err := f.Next(8); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	f := NewFrames(strings.NewReader("\x09\x00\x00\x00\x75\x00\x00ab"))
	if _, err := f.Next(8); !errors.Is(err, errs.Protocol) {
		t.Errorf("a frame too long: %v", err)
	}
}

// TestFramesStall: on a transport a frame that has begun must end within 45 s; before it
// begins there is all the time in the world.
func TestFramesStall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		f := NewFrames(ours)
		f.nc = ours
		write := func(s string) {
			if _, err := theirs.Write([]byte(s)); err != nil {
				t.Error(err)
			}
		}
		go func() {
			time.Sleep(time.Hour)
			write("\x08\x00\x00\x00\x75\x00\x00")
			time.Sleep(silenceTime - time.Second)
			write("a")
			time.Sleep(time.Hour)
			write("\x08\x00\x00\x00\x75\x00\x00")
		}()
		if frame, err := f.Next(8); err != nil || frame[7] != 'a' {
			t.Fatalf("%q, %v", frame, err)
		}
		begin := time.Now()
		if _, err := f.Next(8); !errors.Is(err, os.ErrDeadlineExceeded) || inWords(err) != errSilent {
			t.Errorf("half a frame: %v", err)
		}
		if waited := time.Since(begin) - time.Hour; waited != silenceTime {
			t.Errorf("waited %v", waited)
		}
	})
}
