//go:build linux

package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDaemon: what was said on the command line reaches the keeper, and its name is
// meta9, however the helper was called.
func TestDaemon(t *testing.T) {
	m := &mounting{
		app:    &app{timeout: time.Minute, mumble: "/etc/m", ca: "/ca,pem"},
		source: "-tcp:h:1", dir: "/a b", list: "ro,mumble=/etc/m", sloppy: true,
	}
	cmd, err := m.daemon()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"meta9", "mount", "--ready-fd=3", "--timeout=1m0s", "--options=ro,mumble=/etc/m", "--mumble=/etc/m", "--ca=/ca,pem", "--sloppy", "--", "-tcp:h:1", "/a b"}
	if diff := cmp.Diff(want, cmd.Args); diff != "" {
		t.Error(diff)
	}
	root := newRoot(&app{})
	mount, rest, err := root.Find(cmd.Args[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.ParseFlags(rest); err != nil || !slices.Equal(mount.Flags().Args(), []string{"-tcp:h:1", "/a b"}) {
		t.Errorf("the keeper reads it as %q, %v", mount.Flags().Args(), err)
	}
}

// TestEnded: the exit code of a keeper that did not mount is its parent's.
func TestEnded(t *testing.T) {
	err := ended(t.Context(), exec.Command("sh", "-c", "exit 3").Run())
	var b strings.Builder
	a := &app{err: &b}
	if a.fail(err); a.code != 3 || b.Len() != 0 {
		t.Errorf("exit 3: code %d, %q", a.code, b.String())
	}
	err = ended(t.Context(), exec.Command("sh", "-c", "kill -9 $$").Run())
	if err == nil || !strings.Contains(err.Error(), "killed") || exitCode(err) != exitFailed {
		t.Errorf("killed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ended(ctx, errors.New("any")); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
