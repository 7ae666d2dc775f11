//go:build linux

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMountTable(t *testing.T) {
	const table = `22 1 0:20 / / rw,relatime - rootfs rootfs rw
29 22 0:26 / /meta\040data rw,sync,dirsync - 9p virtio:meta9 rw,sync,dirsync,access=client,msize=131072,trans=fd,rfd=8,wfd=8
30 22 0:27 / /a\134\011\012b\101\9 ro shared:1 master:2 propagate_from:3 - 9p tcp:h\040x:1 rw,trans=tcp
31 22 0:28 /sub /none rw -
garbage
`
	want := []mountEntry{
		{"22", "/", "rootfs", "rootfs", "rw"},
		{"29", "/meta data", "9p", "virtio:meta9", "rw,sync,dirsync,access=client,msize=131072,trans=fd,rfd=8,wfd=8"},
		{"30", "/a\\\t\nbA\\9", "9p", "tcp:h x:1", "rw,trans=tcp"},
	}
	got := parseMountTable(table)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountEntry{})); diff != "" {
		t.Error(diff)
	}
	for i, ours := range []bool{false, true, false} {
		if got[i].ours() != ours {
			t.Errorf("%s: ours is %t", got[i].dir, !ours)
		}
	}
}

// TestFindMount: what is there in every Linux.
func TestFindMount(t *testing.T) {
	if e, err := findMount("/proc"); err != nil || e.fstype != "proc" || e.id == "" || e.ours() {
		t.Errorf("/proc: %+v, %v", e, err)
	}
	if e, err := findMount(t.TempDir()); err != nil || e != (mountEntry{}) {
		t.Errorf("a folder: %+v, %v", e, err)
	}
}
