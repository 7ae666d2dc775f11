// Package posix says what the words of 9P2000.L mean on the tree: open(2)'s flags,
// stat(2)'s attributes, the types of directory entries. They are hugelgupf/p9's types;
// the server of package session and package p9fs speak them alike.
//
// It has no state; everything may be called by any number of goroutines.
package posix

import (
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
)

// The flags of open(2) that say something here, in Linux's generic numbers,
// which 9P2000.L has on every machine (diod protocol.md).
const (
	access   = 3
	excl     = 0o200
	trunc    = 0o1000
	appendTo = 0o2000
	nonblock = 0o4000

	Directory = 0o200000 // Tlopen: it must be a folder
)

// RemoveDir is the flag of a Tunlinkat that asks for a folder's removal, AT_REMOVEDIR of
// unlinkat(2).
const RemoveDir = 0x200

// Flags are the flags that open(2)'s ask for. O_CREAT in a Tlopen says nothing:
// Linux has looked the file up. Nor does O_APPEND where nothing is written.
// errs.Invalid: neither reading nor writing.
func Flags(open uint32) (fs.Flags, error) {
	flags := [4]fs.Flags{fs.Read, fs.Write, fs.Read | fs.Write, 0}[open&access]
	if flags == 0 {
		return 0, errs.New(errs.Invalid, "open flags %#o", open)
	}
	for _, f := range [...]struct {
		bit  uint32
		flag fs.Flags
	}{{excl, fs.Excl}, {trunc, fs.Trunc}, {appendTo, fs.AppendTo}, {nonblock, fs.NonBlock}} {
		if open&f.bit != 0 {
			flags |= f.flag
		}
	}
	if flags&fs.Write == 0 {
		flags &^= fs.AppendTo
	}
	return flags, nil
}

// Attrs are the attributes that every file has, those of stat(2)
// (P9_STATS_BASIC). The time of birth, the generation and the data's version are
// not kept, and clients ask for them in vain.
var Attrs = p9.AttrMask{
	Mode: true, NLink: true, UID: true, GID: true, RDev: true, ATime: true,
	MTime: true, CTime: true, INo: true, Size: true, Blocks: true,
}

// The blocks of st_blksize and st_blocks, in bytes.
const (
	blockSize = 4096
	block     = 512
)

// lastSecond is the latest time that a file can have, in the year 2242.
const lastSecond = 1 << 33

// SetAttrs fills a from st. A folder has one link, which tells find(1) that
// links do not count folders here; an open file that is gone has none, as in any
// Unix.
func SetAttrs(a *p9.Attr, st *fs.Stat) {
	sec, nsec := uint64(st.Mtime/1e9), uint64(st.Mtime%1e9)
	*a = p9.Attr{
		Mode: p9.ModeRegular | p9.FileMode(st.Mode), NLink: 1,
		UID: p9.UID(st.UID), GID: p9.GID(st.GID),
		Size: st.Length, BlockSize: blockSize, Blocks: (st.Length + block - 1) / block,
		ATimeSeconds: sec, ATimeNanoSeconds: nsec,
		MTimeSeconds: sec, MTimeNanoSeconds: nsec,
		CTimeSeconds: sec, CTimeNanoSeconds: nsec,
	}
	if st.Gone {
		a.NLink = 0
	}
	if st.IsDir() {
		a.Mode = p9.ModeDirectory | p9.FileMode(st.Mode)
	}
}

// KeepsOwner tells whether a Tsetattr leaves the owner and the group that st has.
// errs.NotPermitted: it is a chown to somebody else.
func KeepsOwner(mask *p9.SetAttrMask, a *p9.SetAttr, st *fs.Stat) error {
	if mask.UID && uint32(a.UID) != st.UID || mask.GID && uint32(a.GID) != st.GID {
		return errs.New(errs.NotPermitted, "this file belongs to %d:%d", st.UID, st.GID)
	}
	return nil
}

// Change is the change that a Tsetattr asks for; owners are KeepsOwner's. The times of
// access and of change are the server's to say. A commit stamps the time of the last
// write anyway, so that a new length needs no time beside it. A time that no file here can
// have becomes the nearest, as Linux does it for its own file systems. errs.Invalid: a time
// that is none.
func Change(mask *p9.SetAttrMask, a *p9.SetAttr, now func() time.Time) (ch fs.Change, err error) {
	if mask.Permissions {
		mode := uint16(a.Permissions & 0o777)
		ch.Mode = &mode
	}
	if mask.Size {
		size := a.Size
		ch.Length = &size
	}
	switch {
	case mask.MTime && mask.MTimeNotSystemTime:
		if a.MTimeNanoSeconds >= 1e9 {
			return ch, errs.New(errs.Invalid, "a time of %d s %d ns", a.MTimeSeconds, a.MTimeNanoSeconds)
		}
		at := min(max(int64(a.MTimeSeconds), 0), lastSecond)*1e9 + int64(a.MTimeNanoSeconds)
		ch.Mtime = &at
	case mask.MTime && !mask.Size:
		at := now().UnixNano()
		ch.Mtime = &at
	}
	return ch, nil
}

// The types of directory entries, readdir(3)'s, which v9fs passes on as they are.
const (
	typeDir  p9.QIDType = 4
	typeFile p9.QIDType = 8
)

// Dirent is the entry of a folder's listing for st.
func Dirent(cookie uint64, st *fs.Stat) p9.Dirent {
	d := p9.Dirent{QID: st.QID, Offset: cookie, Type: typeFile, Name: st.Name}
	if st.IsDir() {
		d.Type = typeDir
	}
	return d
}
