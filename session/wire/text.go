package wire

import (
	"bytes"
	"strings"

	"meta9/fs/errs"
)

// Format is m on one line, as in `Tread tag 5 fid 7 offset 0 count 100`: the
// type, then each field's name and value in the order of the wire. Strings and
// data are quoted as by strconv.Quote, a number of all ones is ~0, a qid is
// type.version.path, a list is values side by side. Fields that d does not have
// are left out unless they are set.
func (m *Msg) Format(d Dialect) string {
	x := text{d: d}
	return x.format(m)
}

// String is Format for no dialect in particular. Parse is its inverse.
func (m *Msg) String() string { return m.Format(None) }

// Parse reads what Format and String write; fields stand in the same order, and
// only those that some dialect lacks may be left out. The error is errs.Invalid.
func Parse(line string) (*Msg, error) {
	x := text{parsing: true, tokens: split(line)}
	m := &Msg{Type: typeNamed(x.next())}
	if m.Type == 0 {
		return nil, errs.New(errs.Invalid, "no message type begins %.40q", line)
	}
	x.message(m)
	if len(x.tokens) != 0 {
		x.fail("unexpected " + x.tokens[0])
	}
	if x.bad != "" {
		return nil, errs.New(errs.Invalid, "%s: %s", m.Type, x.bad)
	}
	if m.Type == Twrite || m.Type == Tswrite {
		m.Count = uint32(len(m.Data))
	}
	return m, nil
}

// Mask is String for people to see: *** and a length in bytes stand for session
// keys, for MUMBLE messages, for the data of fids that secret names, and for
// what Tsread and Tswrite move under a name that ends in _pw. A reply has no fid
// and no names: set m's to its request's before.
func Mask(m *Msg, secret func(fid uint32) bool) string {
	x := text{masking: true, hidden: secret(m.Fid) || underPW(m.Names) || bytes.Contains(m.Data, []byte("MUMBLE:"))}
	return x.format(m)
}

// underPW tells a path to a key whose name marks it as a password.
func underPW(names []string) bool {
	return len(names) > 0 && strings.HasSuffix(names[len(names)-1], "_pw")
}

// typeNamed is the inverse of Type.String; 0 is no type.
func typeNamed(name string) Type {
	for t := range table {
		if name != "" && table[t].name == name {
			return Type(t)
		}
	}
	return 0
}

func (x *text) format(m *Msg) string {
	x.out = append(make([]byte, 0, 128), m.Type.String()...)
	x.message(m)
	return string(x.out)
}

// message goes through the fields of m in the order of the wire: writes them, or
// sets them from the tokens. The names are those of the manuals where these have
// one; modes and permissions are octal, flags and masks hexadecimal.
func (x *text) message(m *Msg) {
	num(x, "tag", 10, &m.Tag)
	switch m.Type {
	case Tversion, Rversion:
		num(x, "msize", 10, &m.Msize)
		x.str("version", &m.Version)
	case Tauth, Tattach:
		x.attach(m)
	case Rerror:
		x.str("ename", &m.Ename)
		if x.optional("errno", x.d.IsU() || m.Errno != 0) {
			num(x, "errno", 10, &m.Errno)
		}
	case Tflush:
		num(x, "oldtag", 10, &m.Oldtag)
	case Twalk:
		num(x, "fid", 10, &m.Fid)
		num(x, "newfid", 10, &m.Newfid)
		x.names(&m.Names)
	case Rwalk:
		x.qids(&m.QIDs)
	case Topen:
		num(x, "fid", 10, &m.Fid)
		num(x, "mode", 16, &m.Mode)
	case Ropen, Rcreate, Rlopen, Rlcreate:
		x.qid("qid", &m.QID)
		num(x, "iounit", 10, &m.Iounit)
	case Rauth, Rattach, Rsymlink, Rmknod, Rmkdir:
		x.qid("qid", &m.QID)
	case Tcreate:
		x.create(m)
	case Tclunk, Tremove, Tstat, Tstatfs, Treadlink:
		num(x, "fid", 10, &m.Fid)
	case Rwrite, Rswrite:
		num(x, "count", 10, &m.Count)
	case Tread, Treaddir, Rread, Rsread, Rreaddir, Twrite, Tsread, Tswrite:
		x.transfer(m)
	case Rstat, Twstat:
		x.stat(m)
	case Tsession, Tresume, Rresume:
		x.session(m)
	default:
		x.linux(m)
	}
}

// attach has Tauth and Tattach. Without its n_uname a line is of a dialect that
// has none, and reads as Decode would have it.
func (x *text) attach(m *Msg) {
	if m.Type == Tattach {
		num(x, "fid", 10, &m.Fid)
	}
	num(x, "afid", 10, &m.Afid)
	x.str("uname", &m.Uname)
	x.str("aname", &m.Aname)
	if x.optional("n_uname", x.d.numericIDs() || m.NUname != NoUID) {
		num(x, "n_uname", 10, &m.NUname)
	} else if x.parsing {
		m.NUname = NoUID
	}
}

func (x *text) create(m *Msg) {
	num(x, "fid", 10, &m.Fid)
	x.str("name", &m.Name)
	num(x, "perm", 8, &m.Perm)
	num(x, "mode", 16, &m.Mode)
	if x.optional("extension", x.d.IsU() || m.Ext != "") {
		x.str("extension", &m.Ext)
	}
}

// transfer has the messages that read and write files and folders.
func (x *text) transfer(m *Msg) {
	switch m.Type {
	case Tread, Treaddir:
		num(x, "fid", 10, &m.Fid)
		num(x, "offset", 10, &m.Offset)
		num(x, "count", 10, &m.Count)
	case Rread, Rsread, Rreaddir:
		x.data("data", &m.Data)
	case Twrite:
		num(x, "fid", 10, &m.Fid)
		num(x, "offset", 10, &m.Offset)
		x.data("data", &m.Data)
	case Tsread:
		num(x, "fid", 10, &m.Fid)
		x.names(&m.Names)
	case Tswrite:
		num(x, "fid", 10, &m.Fid)
		x.names(&m.Names)
		x.data("data", &m.Data)
	}
}

// stat has the stat record without its sizes, which follow from it. The fields of
// 9P2000.u come together or not at all.
func (x *text) stat(m *Msg) {
	if m.Type == Twstat {
		num(x, "fid", 10, &m.Fid)
	}
	d := &m.Dir
	num(x, "type", 10, &d.Type)
	num(x, "dev", 10, &d.Dev)
	x.qid("qid", &d.QID)
	num(x, "mode", 8, &d.Mode)
	num(x, "atime", 10, &d.Atime)
	num(x, "mtime", 10, &d.Mtime)
	num(x, "length", 10, &d.Length)
	x.str("name", &d.Name)
	x.str("uid", &d.UID)
	x.str("gid", &d.GID)
	x.str("muid", &d.Muid)
	unix := d.Extension != "" || d.NUID != NoUID || d.NGID != NoUID || d.NMuid != NoUID
	if x.optional("extension", x.d.IsU() || unix) {
		x.str("extension", &d.Extension)
		num(x, "n_uid", 10, &d.NUID)
		num(x, "n_gid", 10, &d.NGID)
		num(x, "n_muid", 10, &d.NMuid)
	} else if x.parsing {
		d.NUID, d.NGID, d.NMuid = NoUID, NoUID, NoUID
	}
}

// session has the messages that begin a session: the draft's form of Tsession is
// told by its node.
func (x *text) session(m *Msg) {
	switch {
	case m.Type == Tresume:
		if x.optional("counted", m.Counted != 0 || m.Token != 0) {
			num(x, "counted", 10, &m.Counted)
			num(x, "token", 10, &m.Token)
		}
		list(x, "numbers", &m.Numbers)
	case m.Type == Rresume:
		if x.optional("token", m.Token != 0) {
			num(x, "token", 10, &m.Token)
		}
		list(x, "states", &m.States)
	case x.optional("node", m.Draft):
		m.Draft = true
		x.str("node", &m.Node)
		x.str("group", &m.Group)
		x.key("key", m.Key[:draftKeyLen])
	default:
		x.key("key", m.Key[:])
	}
}

// linux has the types that only 9P2000.L has.
func (x *text) linux(m *Msg) {
	l := &m.L
	switch m.Type {
	case Rlerror:
		num(x, "ecode", 10, &m.Errno)
	case Tlopen:
		num(x, "fid", 10, &m.Fid)
		num(x, "flags", 16, &l.Flags)
	case Tgetattr, Rgetattr, Tsetattr:
		x.attributes(m)
	case Rstatfs:
		x.statfs(m)
	case Tfsync:
		num(x, "fid", 10, &m.Fid)
		num(x, "datasync", 10, &l.Datasync)
	case Rxattrwalk:
		num(x, "size", 10, &l.Size)
	case Rlock:
		num(x, "status", 10, &l.Status)
	case Tlock, Tgetlock, Rgetlock:
		x.lock(m)
	case Rreadlink:
		x.str("target", &m.Ext)
	case Trename, Tlink, Txattrwalk:
		num(x, "fid", 10, &m.Fid)
		num(x, "newfid", 10, &m.Newfid)
		x.str("name", &m.Name)
	case Trenameat:
		num(x, "fid", 10, &m.Fid)
		x.str("name", &m.Name)
		num(x, "newfid", 10, &m.Newfid)
		x.str("newname", &m.Ext)
	case Tlcreate, Tsymlink, Tmknod, Tmkdir, Tunlinkat, Txattrcreate:
		x.entry(m)
	}
}

// entry has the types of 9P2000.L that begin with a folder and a name in it.
func (x *text) entry(m *Msg) {
	l := &m.L
	num(x, "fid", 10, &m.Fid)
	x.str("name", &m.Name)
	switch m.Type {
	case Tlcreate:
		num(x, "flags", 16, &l.Flags)
		num(x, "mode", 8, &m.Perm)
	case Tsymlink:
		x.str("target", &m.Ext)
	case Tmknod:
		num(x, "mode", 8, &m.Perm)
		num(x, "major", 10, &l.Major)
		num(x, "minor", 10, &l.Minor)
	case Tmkdir:
		num(x, "mode", 8, &m.Perm)
	case Txattrcreate:
		num(x, "size", 10, &l.Size)
		num(x, "flags", 16, &l.Flags)
		return
	case Tunlinkat:
		num(x, "flags", 16, &l.Flags)
		return
	}
	num(x, "gid", 10, &l.GID)
}

func (x *text) lock(m *Msg) {
	l := &m.L
	if m.Type != Rgetlock {
		num(x, "fid", 10, &m.Fid)
	}
	num(x, "type", 10, &l.LockType)
	if m.Type == Tlock {
		num(x, "flags", 16, &l.Flags)
	}
	num(x, "start", 10, &l.Start)
	num(x, "length", 10, &l.Length)
	num(x, "proc_id", 10, &l.ProcID)
	x.str("client_id", &l.ClientID)
}

func (x *text) statfs(m *Msg) {
	s := &m.L.Stat
	num(x, "type", 16, &s.Type)
	num(x, "bsize", 10, &s.BlockSize)
	num(x, "blocks", 10, &s.Blocks)
	num(x, "bfree", 10, &s.BlocksFree)
	num(x, "bavail", 10, &s.BlocksAvailable)
	num(x, "files", 10, &s.Files)
	num(x, "ffree", 10, &s.FilesFree)
	num(x, "fsid", 16, &s.FSID)
	num(x, "namelen", 10, &s.NameLength)
}

func (x *text) attributes(m *Msg) {
	l := &m.L
	switch m.Type {
	case Tgetattr:
		num(x, "fid", 10, &m.Fid)
		x.attrMask("mask", &l.Mask)
	case Rgetattr:
		x.attrMask("valid", &l.Mask)
		x.qid("qid", &m.QID)
		x.attr(&l.Attr)
	case Tsetattr:
		num(x, "fid", 10, &m.Fid)
		x.setAttrMask("valid", &l.SetMask)
		x.setAttr(&l.SetAttr)
	}
}
