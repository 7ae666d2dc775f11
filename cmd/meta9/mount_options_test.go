//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountOptions(t *testing.T) {
	const standard = "trans=fd,rfdno=7,wfdno=7,version=9p2000.L,msize=131072,cache=none"
	for _, tt := range []struct {
		list  string
		flags uintptr
		data  string
	}{
		{"", 0, standard},
		{"defaults,nofail,_netdev,noauto,user,x-systemd.automount,X-foo=1,comment=hi,,", 0, standard},
		{"ro,noexec,nosuid,nodev,noatime", unix.MS_RDONLY | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME, standard},
		{"ro,noexec,rw,exec", 0, standard},
		{"sync,dirsync,relatime", unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_RELATIME, standard},
		{"cache=mmap,access=any,aname=keys", 0, standard + ",cache=mmap,access=any,aname=keys"},
		{"aname=/keys,aname=/sdc,ro", unix.MS_RDONLY, standard + ",aname=sdc"},
		{"uid=1000,mode=0640", 0, standard + ",aname=uid=1000/mode=0640/"},
		{"aname=/keys,gid=0,uid=7,access=any", 0, standard + ",access=any,aname=uid=7/gid=0/keys"},
		{"version=9p2000,gid=4,mode=444", 0, "trans=fd,rfdno=7,wfdno=7,version=9p2000,msize=131072,cache=none,dfltgid=4,aname=gid=4/mode=444/"},
		{"version=9p2000.u,msize=8192", 0, "trans=fd,rfdno=7,wfdno=7,version=9p2000.u,msize=8192,cache=none"},
		{"dfltuid=0,dfltgid=0,posixacl,context=a:b", 0, standard + ",dfltuid=0,dfltgid=0,posixacl,context=a:b"},
		{"mumble=/etc/m,cert=c,key=k,ca=a", 0, standard},
	} {
		o, err := parseMountOptions(tt.list, false)
		if err != nil || o.flags != tt.flags || o.kernelData(7) != tt.data {
			t.Errorf("-o %s: flags %#x, %s, %v; want %#x, %s", tt.list, o.flags, o.kernelData(7), err, tt.flags, tt.data)
		}
	}
}

func TestMountOptionsOfOurs(t *testing.T) {
	o, err := parseMountOptions("mumble=/etc/m,cert=/c=1,key=k,ca=a,version=9p2000", false)
	got := []string{o.mumble, o.cert, o.key, o.ca, o.dialect()}
	if want := "/etc/m /c=1 k a 9P2000"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v", got, err)
	}
}

func TestMountOptionsRefused(t *testing.T) {
	for list, want := range map[string]string{
		"bogus":           "-o bogus: there is no such option",
		"ro,chache=none":  "chache=none",
		"trans=tcp":       "makes the transport itself",
		"rfdno=3":         "makes the transport itself",
		"remount,ro":      "umount and mount again",
		"msize=0":         "from 4096 to 1048576",
		"msize=1048577":   "from 4096 to 1048576",
		"msize=4k":        "from 4096 to 1048576",
		"version=9P2000":  "9p2000.L, 9p2000.u or 9p2000",
		"version=9p2000,": "",
		"uid=root":        "-o uid=root: a number from 0 to 4294967294",
		"gid=4294967295":  "-o gid=4294967295: a number from 0 to 4294967294",
		"mode=0999":       "-o mode=0999: three or four octal digits",
		"mode=40":         "-o mode=40: three or four octal digits",
		"umask=1000":      "-o umask=1000: octal digits, up to 0777",
		"umask=077":       "",
	} {
		_, err := parseMountOptions(list, false)
		switch {
		case want == "" && err == nil:
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("-o %s: %v, want %q", list, err, want)
		case exitCode(err) != exitUsage:
			t.Errorf("-o %s: exit code %d", list, exitCode(err))
		}
	}
	if _, err := parseMountOptions("bogus,ro", true); err != nil {
		t.Errorf("sloppy: %v", err)
	}
	if _, err := parseMountOptions("trans=tcp", true); err == nil {
		t.Error("sloppy: trans=tcp is no unknown option")
	}
}

// TestDialed: the keeper dials from another folder than it was started in.
func TestDialed(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"unix:run/9p.sock":  "unix:" + dir + "/run/9p.sock",
		"unix:/run/9p.sock": "unix:/run/9p.sock",
		"./9p.sock":         dir + "/9p.sock",
		"9p.sock":           dir + "/9p.sock",
		"/run/a:b":          "/run/a:b",
		"dev:ttyS1":         "dev:" + dir + "/ttyS1",
		"tcp:10.0.2.2:564":  "tcp:10.0.2.2:564",
		"vsock:host:564":    "vsock:host:564",
		"virtio:meta9":      "virtio:meta9",
		"unix:":             "unix:",
	} {
		if got := dialed(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestMountHelperCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{misused("bad"), mountUsage},
		{errNotRoot, mountUsage},
		{saidError{exitUsage}, mountUsage},
		{saidError{exitNoServer}, mountFailed},
		{saidError{exitSignal}, mountInterrupted},
		{errors.New("no 9p"), mountFailed},
	} {
		if got := exitCode(helperError{tt.err}); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// TestKinds: what goes with one kind of mount alone is refused by the other.
func TestKinds(t *testing.T) {
	for list, want := range map[string]struct{ fuse, v9fs string }{
		"ro,aname=keys,uid=1": {},
		"cache=none":          {},
		"cache=mmap":          {fuse: "-o cache=mmap: an option of the kernel's 9P client"},
		"access=any":          {fuse: "-o access=any: "},
		"version=9p2000":      {fuse: "a mount by FUSE speaks 9p2000.L"},
		"allow_other":         {v9fs: "go with --fuse"},
		"umask=022":           {v9fs: "go with --fuse"},
	} {
		o, err := parseMountOptions(list, false)
		if err != nil {
			t.Fatal(err)
		}
		for kind, tt := range map[string]struct {
			err  error
			want string
		}{"fuse": {o.fuse(), want.fuse}, "v9fs": {o.v9fs(), want.v9fs}} {
			if (tt.err == nil) != (tt.want == "") || tt.err != nil && !strings.Contains(tt.err.Error(), tt.want) {
				t.Errorf("-o %s by %s: %v, want %q", list, kind, tt.err, tt.want)
			}
		}
	}
}

// TestOwnedBy: what a user mounts is his, as far as he does not say otherwise.
func TestOwnedBy(t *testing.T) {
	for list, want := range map[string]string{"": "uid=7/gid=8/", "uid=1": "uid=1/gid=8/", "gid=2,aname=keys": "uid=7/gid=2/keys"} {
		o, err := parseMountOptions(list, false)
		if err != nil {
			t.Fatal(err)
		}
		if o.ownedBy(7, 8); o.fullAname() != want {
			t.Errorf("-o %s: %s, want %s", list, o.fullAname(), want)
		}
	}
}

// TestHowToGetFUSE: who lacks something is told by his distribution's words.
func TestHowToGetFUSE(t *testing.T) {
	defer func(was string) { osRelease = was }(osRelease)
	for text, want := range map[string]string{
		"ID=debian\n": "apt-get install fuse3",
		"NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n":   "apt-get install fuse3",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n": "dnf install fuse3",
		"ID=alpine\n": "apk add fuse3",
		"ID=opensuse-leap\nID_LIKE='suse opensuse'\n": "zypper install fuse3",
		"ID=else\n": "install the package fuse3",
		"":          "install the package fuse3",
	} {
		osRelease = filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(osRelease, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := installFUSE(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestNoV9fs: who has no 9P client is told who has one.
func TestNoV9fs(t *testing.T) {
	defer func(was string) { osRelease = was }(osRelease)
	for text, want := range map[string]string{
		"ID=debian\n":                                    ": Debian's linux-image-amd64 (arm64, ...) has it, its cloud kernel has not",
		"ID=ubuntu\nID_LIKE=debian\n":                    "linux-modules-extra-$(uname -r)",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n": ": RHEL and its kin build none",
		"ID=else\n":                                      "(the modules 9p and 9pnet_fd)",
	} {
		osRelease = filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(osRelease, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := noV9fs(); !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
