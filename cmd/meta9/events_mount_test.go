//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPlaceIn(t *testing.T) {
	list := parseMountTable(`21 1 0:19 / / rw - ext4 /dev/vda1 rw
36 21 0:40 / /metadata rw - fuse.meta9 virtio:meta9 rw,user_id=0
37 21 0:41 / /mnt/other rw - tmpfs tmpfs rw
38 36 0:42 / /metadata/over rw - tmpfs tmpfs rw
39 21 0:43 / /srv rw - tmpfs tmpfs rw
40 39 0:44 / /srv rw - 9p tcp:10.0.2.2:5640 rw,trans=fd,rfd=3,wfd=3
`)
	for abs, want := range map[string]place{
		"/":                   {},
		"/metadata":           {"/metadata", ""},
		"/metadata/keys/motd": {"/metadata", "/keys/motd"},
		"/metadatas":          {},
		"/metadata/over/x":    {},
		"/mnt/other/keys":     {},
		"/srv/vms":            {"/srv", "/vms"},
	} {
		if got := placeIn(list, abs); got != want {
			t.Errorf("%s: %+v, want %+v", abs, got, want)
		}
	}
}

// TestRootBy9P: where the root file system itself comes by 9P, a path of the connection's stays one.
func TestRootBy9P(t *testing.T) {
	list := parseMountTable(`21 1 0:19 / / rw - 9p /dev/root rw,trans=virtio
36 21 0:40 / /metadata rw - 9p meta9 rw,trans=virtio
`)
	for abs, want := range map[string]place{
		"/":              {},
		"/vms/x/keys":    {},
		"/metadata/keys": {"/metadata", "/keys"},
	} {
		if got := placeIn(list, abs); got != want {
			t.Errorf("%s: %+v, want %+v", abs, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err == nil {
		err = os.Symlink(dir, filepath.Join(dir, "link"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"link": "", "link/none": "none", "link/none/at/all": "none/at/all", "none": "none",
	} {
		if got := plainPath(filepath.Join(dir, name)); got != filepath.Join(dir, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
