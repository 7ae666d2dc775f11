//go:build unix

package group_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"meta9/cmd/meta9/group"
)

// TestWhole: what a command has started ends with it, also where it takes no notice of SIGTERM.
func TestWhole(t *testing.T) {
	for name, line := range map[string]string{
		"a child":                   "cat $0 & cat $0; wait",
		"one that does not want to": "trap '' TERM; sh -c 'trap \"\" TERM; exec cat $0' $0 & wait; cat $0",
	} {
		t.Run(name, func(t *testing.T) {
			pipe := filepath.Join(t.TempDir(), "pipe")
			if err := unix.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			cause := errors.New("enough")
			ctx, end := context.WithCancelCause(t.Context())
			defer end(nil)
			done := make(chan error)
			go func() { done <- group.Run(ctx, exec.CommandContext(ctx, "sh", "-c", line, pipe)) }()
			w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for a reader
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			end(cause)
			if err := <-done; !errors.Is(err, cause) {
				t.Error(err)
			}
			for err = nil; err == nil; { // until nobody reads any more
				_, err = w.Write(make([]byte, 4096))
			}
			if !errors.Is(err, unix.EPIPE) {
				t.Error(err)
			}
		})
	}
}
