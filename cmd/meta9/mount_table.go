//go:build linux

package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// mountTablePath is the table of this process's name space; see proc(5).
const mountTablePath = "/proc/self/mountinfo"

// mountEntry is a mount.
type mountEntry struct {
	id      string
	dir     string
	fstype  string
	source  string
	options string // the file system's own
}

// mountTable is what is mounted in this process's name space, the last on top.
func mountTable() ([]mountEntry, error) {
	b, err := os.ReadFile(mountTablePath)
	if err != nil {
		return nil, err
	}
	return parseMountTable(string(b)), nil
}

// parseMountTable reads lines of
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// of which the seventh field, and others like it, may be there or not.
func parseMountTable(text string) (list []mountEntry) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+4 {
			continue
		}
		list = append(list, mountEntry{
			id: f[0], dir: unescape(f[4]),
			fstype: f[dash+1], source: unescape(f[dash+2]), options: f[dash+3],
		})
	}
	return list
}

// unescape reads the octal numbers that the kernel writes for blanks, line ends
// and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// findMount gives the mount at dir that is on top; the zero entry: there is none.
func findMount(dir string) (found mountEntry, err error) {
	list, err := mountTable()
	for _, e := range list {
		if e.dir == dir {
			found = e
		}
	}
	return found, err
}

// fuseType is the type of our mounts by FUSE.
const fuseType = "fuse.meta9"

// ours tells whether a keeper made the mount: by FUSE, or its source is an address, which
// the kernel does not look at where it is given open files.
func (e *mountEntry) ours() bool {
	return e.fstype == fuseType || e.fstype == "9p" && slices.Contains(strings.Split(e.options, ","), "trans=fd")
}
