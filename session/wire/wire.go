// Package wire is the codec of every 9P dialect that meta9 speaks: 9P2000
// (Plan 9 manual, section 5), 9P2000.u, 9P2000.L, 9P2000.e (published v1.0) and
// the private 9P2000.L.e and 9P2000.e.n.
//
// There is one message struct, Msg, for all types. A frame is judged by its
// size against a table (limits.go) before anything else looks at it. Decoding
// never copies Data: it aliases the frame. A message has a text form for tests and
// traces (text.go). Nothing here keeps state or locks, so any call may run beside
// any other on another Msg.
package wire

import "github.com/hugelgupf/p9/p9"

// Type is a message type.
type Type uint8

// The message types: 9P2000.L (diod protocol.md), 9P2000 (intro(5)), 9P2000.e
// (published v1.0: 150-155), and our own Tresume (156).
const (
	Rlerror Type = 7

	Tstatfs      Type = 8
	Rstatfs      Type = 9
	Tlopen       Type = 12
	Rlopen       Type = 13
	Tlcreate     Type = 14
	Rlcreate     Type = 15
	Tsymlink     Type = 16
	Rsymlink     Type = 17
	Tmknod       Type = 18
	Rmknod       Type = 19
	Trename      Type = 20
	Rrename      Type = 21
	Treadlink    Type = 22
	Rreadlink    Type = 23
	Tgetattr     Type = 24
	Rgetattr     Type = 25
	Tsetattr     Type = 26
	Rsetattr     Type = 27
	Txattrwalk   Type = 30
	Rxattrwalk   Type = 31
	Txattrcreate Type = 32
	Rxattrcreate Type = 33
	Treaddir     Type = 40
	Rreaddir     Type = 41
	Tfsync       Type = 50
	Rfsync       Type = 51
	Tlock        Type = 52
	Rlock        Type = 53
	Tgetlock     Type = 54
	Rgetlock     Type = 55
	Tlink        Type = 70
	Rlink        Type = 71
	Tmkdir       Type = 72
	Rmkdir       Type = 73
	Trenameat    Type = 74
	Rrenameat    Type = 75
	Tunlinkat    Type = 76
	Runlinkat    Type = 77

	Tversion Type = 100
	Rversion Type = 101
	Tauth    Type = 102
	Rauth    Type = 103
	Tattach  Type = 104
	Rattach  Type = 105
	Rerror   Type = 107 // there is no Terror
	Tflush   Type = 108
	Rflush   Type = 109
	Twalk    Type = 110
	Rwalk    Type = 111
	Topen    Type = 112
	Ropen    Type = 113
	Tcreate  Type = 114
	Rcreate  Type = 115
	Tread    Type = 116
	Rread    Type = 117
	Twrite   Type = 118
	Rwrite   Type = 119
	Tclunk   Type = 120
	Rclunk   Type = 121
	Tremove  Type = 122
	Rremove  Type = 123
	Tstat    Type = 124
	Rstat    Type = 125
	Twstat   Type = 126
	Rwstat   Type = 127

	Tsession Type = 150
	Rsession Type = 151
	Tsread   Type = 152
	Rsread   Type = 153
	Tswrite  Type = 154
	Rswrite  Type = 155
	Tresume  Type = 156
	Rresume  Type = 157
)

// Protocol constants, from intro(5), walk(5) and version(5).
const (
	NoTag   uint16 = 0xffff
	NoFid   uint32 = 0xffffffff
	NoUID   uint32 = 0xffffffff
	MaxWalk        = 16 // names in one Twalk, Tsread or Tswrite

	HeaderLen = 7  // size[4] type[1] tag[2]
	ReadLen   = 11 // an Rread or Rsread before its data
	MinMsize  = 4096
	MaxMsize  = 1<<20 + 64<<10 // so that the largest value fits a macro
	KeyLen    = 8              // a session key, published form

	// MaxNumbers is how many requests one Tresume may name, and so how many a
	// client may have in flight in a numbered dialect.
	MaxNumbers = 512
)

// Open modes of Topen and Tcreate, from open(5); OAppend is 9P2000.u's.
const (
	ORead   uint8 = 0
	OWrite  uint8 = 1
	ORdWr   uint8 = 2
	OExec   uint8 = 3
	OTrunc  uint8 = 0x10
	ORclose uint8 = 0x40
	OAppend uint8 = 0x80
)

// Permission bits above the nine of Unix, from stat(5).
const (
	DMDir    uint32 = 0x80000000
	DMAppend uint32 = 0x40000000
	DMExcl   uint32 = 0x20000000
	DMAuth   uint32 = 0x08000000
	// DMUnix are the bits that 9P2000.u adds: links, devices, pipes, sockets,
	// set-id. No file of ours has one.
	DMUnix uint32 = 0x03fc0000
)

// The states of an Rresume: what became of a numbered request.
const (
	Unseen   uint8 = 0 // it never came: send it again, under the same number
	Answered uint8 = 1 // its kept reply follows
	Running  uint8 = 2 // it waits here and will answer on this connection
	Undone   uint8 = 3 // the server was killed before it was done (LE2, EN2)
)

// Dir is a stat record, from stat(5). In a Twstat every field that is ~0 (for a
// string, empty) asks for no change. The last four fields are 9P2000.u's; where
// the dialect has none, Decode leaves the numbers NoUID.
type Dir struct {
	Type   uint16
	Dev    uint32
	QID    p9.QID
	Mode   uint32
	Atime  uint32 // seconds since 1970
	Mtime  uint32 // seconds since 1970
	Length uint64 // bytes
	Name   string
	UID    string
	GID    string
	Muid   string

	Extension string
	NUID      uint32
	NGID      uint32
	NMuid     uint32
}

// Msg is any message. A comment names the messages that use the field; fields
// that a type does not use are zero after Decode. Decode reuses the storage of
// Names and QIDs; Data aliases the frame and lives only as long as it does.
type Msg struct {
	Type Type
	Tag  uint16

	Msize   uint32   // Tversion, Rversion
	Version string   // Tversion, Rversion
	Afid    uint32   // Tauth, Tattach
	Fid     uint32   // almost every T
	Newfid  uint32   // Twalk, Txattrwalk (newfid), Trename (dfid), Trenameat (newdirfid), Tlink (fid; its dfid is Fid)
	Uname   string   // Tauth, Tattach
	Aname   string   // Tauth, Tattach
	NUname  uint32   // Tauth, Tattach in .u and .L (n_uname); NoUID elsewhere
	Oldtag  uint16   // Tflush
	Names   []string // Twalk, Tsread, Tswrite
	QIDs    []p9.QID // Rwalk
	QID     p9.QID   // Rauth, Rattach, Ropen, Rcreate, Rlopen, Rlcreate, Rmkdir, Rsymlink, Rmknod, Rgetattr
	Iounit  uint32   // Ropen, Rcreate, Rlopen, Rlcreate
	Mode    uint8    // Topen, Tcreate
	Perm    uint32   // Tcreate; Tlcreate, Tmkdir, Tmknod (mode)
	Name    string   // Tcreate, Tlcreate, Tmkdir, Tsymlink, Tmknod, Tlink, Trename, Trenameat (old), Tunlinkat, Txattrwalk, Txattrcreate
	Ext     string   // Tcreate in .u (extension), Tsymlink (target), Trenameat (new name), Rreadlink
	Offset  uint64   // Tread, Twrite, Treaddir
	Count   uint32   // Tread, Treaddir, Rwrite, Rswrite: bytes; Twrite, Tswrite: len(Data), which is what Append writes
	Data    []byte   // Rread, Twrite, Rsread, Tswrite, Rreaddir (Dirents)
	Dir     Dir      // Rstat, Twstat
	Ename   string   // Rerror
	Errno   uint32   // Rerror in .u, Rlerror

	Key   [KeyLen]byte // Tsession, published form
	Draft bool         // Tsession: the draft's form, node[s] group[s] key[4]; the key is Key[:4]
	Node  string       // Tsession, draft form
	Group string       // Tsession, draft form

	Counted uint64   // Tresume in LE2 and EN2: how many requests the client has sent
	Token   uint64   // Tresume in LE2 and EN2: of the last Rresume, 0 if there was none; Rresume: the next
	Numbers []uint64 // Tresume: requests whose answer never came
	States  []uint8  // Rresume: one for each of those: Unseen and so on

	// L holds the fields that only 9P2000.L messages have.
	L MsgL
}

// MsgL are the fields that only 9P2000.L messages have (diod protocol.md). Bits
// of a mask that p9 has no word for are dropped.
type MsgL struct {
	Flags    uint32         // Tlopen, Tlcreate: open(2)'s; Txattrcreate: setxattr(2)'s; Tunlinkat: unlinkat(2)'s; Tlock: P9_LOCK_FLAGS
	GID      uint32         // Tlcreate, Tsymlink, Tmknod, Tmkdir: of who asks
	Major    uint32         // Tmknod
	Minor    uint32         // Tmknod
	Mask     p9.AttrMask    // Tgetattr: what is asked; Rgetattr: what is valid
	Attr     p9.Attr        // Rgetattr; the qid is Msg.QID
	SetMask  p9.SetAttrMask // Tsetattr
	SetAttr  p9.SetAttr     // Tsetattr; Permissions has all of mode[4]
	Stat     p9.FSStat      // Rstatfs
	Datasync uint32         // Tfsync
	Size     uint64         // Rxattrwalk, Txattrcreate: bytes of the value
	LockType p9.LockType    // Tlock, Tgetlock, Rgetlock
	Status   p9.LockStatus  // Rlock
	Start    uint64         // Tlock, Tgetlock, Rgetlock
	Length   uint64         // Tlock, Tgetlock, Rgetlock: bytes, 0 to the end
	ProcID   uint32         // Tlock, Tgetlock, Rgetlock
	ClientID string         // Tlock, Tgetlock, Rgetlock
}

// Dialect says how messages look and which of them exist. The zero Dialect is
// that of a connection that has not seen Tversion.
type Dialect uint8

// The dialects, by the version string that names them.
const (
	None    Dialect = iota
	Plain           // 9P2000
	U               // 9P2000.u
	L               // 9P2000.L
	E               // 9P2000.e
	LE              // 9P2000.L.e: L with sessions, macros and numbered requests
	EN              // 9P2000.e.n: E with numbered requests
	LE2             // 9P2000.L.e.2: LE, whose Tresume has a count and a token
	EN2             // 9P2000.e.n.2: EN with the same
	Unknown         // the answer "unknown"
)
