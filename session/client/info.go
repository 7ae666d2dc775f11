package client

import (
	"io/fs"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/session/wire"
)

// Info is what a server says of a file.
type Info struct {
	Name   string // as in its folder; "/" for the root
	QID    p9.QID
	Mode   fs.FileMode // permission bits, and ModeDir, ModeAppend, ModeExclusive
	Length uint64      // bytes; 0 for folders
	Mtime  time.Time   // to the second
	UID    string
	GID    string
	Muid   string // who changed it last
}

// IsDir tells whether it is a folder.
func (i *Info) IsDir() bool { return i.Mode.IsDir() }

func infoOf(d *wire.Dir) Info {
	return Info{
		Name: d.Name, QID: d.QID, Mode: fileMode(d.Mode), Length: d.Length,
		Mtime: time.Unix(int64(d.Mtime), 0), UID: d.UID, GID: d.GID, Muid: d.Muid,
	}
}

// fileMode is stat(5)'s mode as Go writes it.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode) & fs.ModePerm
	for bit, f := range map[uint32]fs.FileMode{wire.DMDir: fs.ModeDir, wire.DMAppend: fs.ModeAppend, wire.DMExcl: fs.ModeExclusive} {
		if mode&bit != 0 {
			m |= f
		}
	}
	return m
}

// parseDirs reads the stat records of a folder.
func parseDirs(b []byte, d wire.Dialect) (list []Info, err error) {
	for len(b) > 0 {
		var dir wire.Dir
		if dir, b, err = wire.DecodeDir(b, d); err != nil {
			return nil, err
		}
		list = append(list, infoOf(&dir))
	}
	return list, nil
}

// noChange is the stat record that asks for no change, from stat(5).
func noChange() wire.Dir {
	return wire.Dir{
		Type: ^uint16(0), Dev: ^uint32(0), QID: p9.QID{Type: ^p9.QIDType(0), Version: ^uint32(0), Path: ^uint64(0)},
		Mode: ^uint32(0), Atime: ^uint32(0), Mtime: ^uint32(0), Length: ^uint64(0),
		NUID: wire.NoUID, NGID: wire.NoUID, NMuid: wire.NoUID,
	}
}
