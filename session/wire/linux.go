package wire

import "github.com/hugelgupf/p9/p9"

// linux reads the types that only 9P2000.L has; the layouts are diod's
// protocol.md and what hugelgupf/p9 and Linux send. Where protocol.md says dfid
// or dirfid, Msg has the folder in Fid.
func (r *reader) linux(m *Msg) {
	l := &m.L
	switch m.Type {
	case Tgetattr:
		m.Fid = r.u32()
		l.Mask = attrMask(r.u64())
	case Rgetattr:
		l.Mask, m.QID = attrMask(r.u64()), r.qid()
		r.attr(&l.Attr)
	case Tsetattr:
		m.Fid = r.u32()
		l.SetMask = setAttrMask(r.u32())
		r.setAttr(&l.SetAttr)
	case Rlerror:
		m.Errno = r.u32()
	case Tlopen:
		m.Fid, l.Flags = r.u32(), r.u32()
	case Rstatfs:
		r.statfs(&l.Stat)
	case Tfsync:
		m.Fid = r.u32()
		if len(r.b) != 0 { // hugelgupf/p9 sends no datasync
			l.Datasync = r.u32()
		}
	case Rxattrwalk:
		l.Size = r.u64()
	case Tlock:
		m.Fid, l.LockType, l.Flags = r.u32(), p9.LockType(r.u8()), r.u32()
		r.lock(l)
	case Rlock:
		l.Status = p9.LockStatus(r.u8())
	case Tgetlock:
		m.Fid, l.LockType = r.u32(), p9.LockType(r.u8())
		r.lock(l)
	case Rgetlock:
		l.LockType = p9.LockType(r.u8())
		r.lock(l)
	default:
		r.linuxNames(m)
	}
}

// linuxNames reads the types of 9P2000.L that make, name or remove a file.
func (r *reader) linuxNames(m *Msg) {
	l := &m.L
	switch m.Type {
	case Tlcreate:
		m.Fid, m.Name, l.Flags, m.Perm, l.GID = r.u32(), r.str(), r.u32(), r.u32(), r.u32()
	case Tsymlink:
		m.Fid, m.Name, m.Ext, l.GID = r.u32(), r.str(), r.str(), r.u32()
	case Tmknod:
		m.Fid, m.Name, m.Perm = r.u32(), r.str(), r.u32()
		l.Major, l.Minor, l.GID = r.u32(), r.u32(), r.u32()
	case Tmkdir:
		m.Fid, m.Name, m.Perm, l.GID = r.u32(), r.str(), r.u32(), r.u32()
	case Trename, Tlink, Txattrwalk:
		m.Fid, m.Newfid, m.Name = r.u32(), r.u32(), r.str()
	case Rreadlink:
		m.Ext = r.str()
	case Txattrcreate:
		m.Fid, m.Name, l.Size, l.Flags = r.u32(), r.str(), r.u64(), r.u32()
	case Trenameat:
		m.Fid, m.Name, m.Newfid, m.Ext = r.u32(), r.str(), r.u32(), r.str()
	case Tunlinkat:
		m.Fid, m.Name, l.Flags = r.u32(), r.str(), r.u32()
	}
}

// linux writes what reader.linux reads; a Tfsync always with its datasync.
func (w *writer) linux(m *Msg) {
	l := &m.L
	switch m.Type {
	case Tgetattr:
		w.u32(m.Fid)
		w.u64(attrBits(&l.Mask))
	case Rgetattr:
		w.u64(attrBits(&l.Mask))
		w.qid(&m.QID)
		w.attr(&l.Attr)
	case Tsetattr:
		w.u32(m.Fid)
		w.u32(setAttrBits(&l.SetMask))
		w.setAttr(&l.SetAttr)
	case Rlerror:
		w.u32(m.Errno)
	case Tlopen:
		w.u32(m.Fid)
		w.u32(l.Flags)
	case Rstatfs:
		w.statfs(&l.Stat)
	case Tfsync:
		w.u32(m.Fid)
		w.u32(l.Datasync)
	case Rxattrwalk:
		w.u64(l.Size)
	case Tlock:
		w.u32(m.Fid)
		w.u8(uint8(l.LockType))
		w.u32(l.Flags)
		w.lock(l)
	case Rlock:
		w.u8(uint8(l.Status))
	case Tgetlock:
		w.u32(m.Fid)
		w.u8(uint8(l.LockType))
		w.lock(l)
	case Rgetlock:
		w.u8(uint8(l.LockType))
		w.lock(l)
	default:
		w.linuxNames(m)
	}
}

// linuxNames writes what reader.linuxNames reads: but for Rreadlink they all
// begin with a fid, sometimes a second one, and a name.
func (w *writer) linuxNames(m *Msg) {
	l := &m.L
	if m.Type == Rreadlink {
		w.str(m.Ext)
		return
	}
	w.u32(m.Fid)
	if m.Type == Trename || m.Type == Tlink || m.Type == Txattrwalk {
		w.u32(m.Newfid)
	}
	w.str(m.Name)
	switch m.Type {
	case Tlcreate:
		w.u32(l.Flags)
		w.u32(m.Perm)
		w.u32(l.GID)
	case Tsymlink:
		w.str(m.Ext)
		w.u32(l.GID)
	case Tmknod:
		w.u32(m.Perm)
		w.u32(l.Major)
		w.u32(l.Minor)
		w.u32(l.GID)
	case Tmkdir:
		w.u32(m.Perm)
		w.u32(l.GID)
	case Txattrcreate:
		w.u64(l.Size)
		w.u32(l.Flags)
	case Trenameat:
		w.u32(m.Newfid)
		w.str(m.Ext)
	case Tunlinkat:
		w.u32(l.Flags)
	}
}

// lock reads the end that Tlock, Tgetlock and Rgetlock share.
func (r *reader) lock(l *MsgL) {
	l.Start, l.Length, l.ProcID, l.ClientID = r.u64(), r.u64(), r.u32(), r.str()
}

func (w *writer) lock(l *MsgL) {
	w.u64(l.Start)
	w.u64(l.Length)
	w.u32(l.ProcID)
	w.str(l.ClientID)
}

// attr reads what follows the qid of an Rgetattr. All of it is there, whatever
// the mask calls valid.
func (r *reader) attr(a *p9.Attr) {
	a.Mode, a.UID, a.GID = p9.FileMode(r.u32()), p9.UID(r.u32()), p9.GID(r.u32())
	a.NLink, a.RDev, a.Size = p9.NLink(r.u64()), p9.Dev(r.u64()), r.u64()
	a.BlockSize, a.Blocks = r.u64(), r.u64()
	a.ATimeSeconds, a.ATimeNanoSeconds = r.u64(), r.u64()
	a.MTimeSeconds, a.MTimeNanoSeconds = r.u64(), r.u64()
	a.CTimeSeconds, a.CTimeNanoSeconds = r.u64(), r.u64()
	a.BTimeSeconds, a.BTimeNanoSeconds = r.u64(), r.u64()
	a.Gen, a.DataVersion = r.u64(), r.u64()
}

func (w *writer) attr(a *p9.Attr) {
	w.u32(uint32(a.Mode))
	w.u32(uint32(a.UID))
	w.u32(uint32(a.GID))
	for _, v := range [...]uint64{
		uint64(a.NLink), uint64(a.RDev), a.Size, a.BlockSize, a.Blocks,
		a.ATimeSeconds, a.ATimeNanoSeconds, a.MTimeSeconds, a.MTimeNanoSeconds,
		a.CTimeSeconds, a.CTimeNanoSeconds, a.BTimeSeconds, a.BTimeNanoSeconds,
		a.Gen, a.DataVersion,
	} {
		w.u64(v)
	}
}

// setAttr reads what follows the mask of a Tsetattr.
func (r *reader) setAttr(a *p9.SetAttr) {
	a.Permissions, a.UID, a.GID = p9.FileMode(r.u32()), p9.UID(r.u32()), p9.GID(r.u32())
	a.Size = r.u64()
	a.ATimeSeconds, a.ATimeNanoSeconds = r.u64(), r.u64()
	a.MTimeSeconds, a.MTimeNanoSeconds = r.u64(), r.u64()
}

func (w *writer) setAttr(a *p9.SetAttr) {
	w.u32(uint32(a.Permissions))
	w.u32(uint32(a.UID))
	w.u32(uint32(a.GID))
	w.u64(a.Size)
	w.u64(a.ATimeSeconds)
	w.u64(a.ATimeNanoSeconds)
	w.u64(a.MTimeSeconds)
	w.u64(a.MTimeNanoSeconds)
}

func (r *reader) statfs(s *p9.FSStat) {
	s.Type, s.BlockSize = r.u32(), r.u32()
	s.Blocks, s.BlocksFree, s.BlocksAvailable = r.u64(), r.u64(), r.u64()
	s.Files, s.FilesFree, s.FSID = r.u64(), r.u64(), r.u64()
	s.NameLength = r.u32()
}

func (w *writer) statfs(s *p9.FSStat) {
	w.u32(s.Type)
	w.u32(s.BlockSize)
	for _, v := range [...]uint64{s.Blocks, s.BlocksFree, s.BlocksAvailable, s.Files, s.FilesFree, s.FSID} {
		w.u64(v)
	}
	w.u32(s.NameLength)
}
