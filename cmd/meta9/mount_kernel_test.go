//go:build linux

package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	opt, err := parseMountOptions("cache=bogus", false)
	if err != nil {
		t.Fatal(err)
	}
	m := &mounting{app: &app{}, source: "virtio:meta9", dir: "/m", opt: opt}
	for err, want := range map[unix.Errno][]string{
		unix.ENODEV:       {"modules 9p and 9pnet_fd", "cloud kernel"},
		unix.EPERM:        {"virtio:meta9 on /m: operation not permitted", "container"},
		unix.EACCES:       {"permission denied", "container"},
		unix.ECONNREFUSED: {"who is there", "-o mumble=FILE"},
		unix.EINVAL:       {"invalid argument", "cache=none,cache=bogus", "9pnet_fd"},
		unix.ENOENT:       {"aname="},
		unix.EIO:          {"mounting virtio:meta9 on /m: input/output error"},
	} {
		got := m.explain(err)
		for _, part := range want {
			if !strings.Contains(got.Error(), part) {
				t.Errorf("%v: %q has no %q", err, got, part)
			}
		}
	}
}
