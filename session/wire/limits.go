package wire

import "strconv"

// span is the smallest and the largest frame of a message, in bytes.
type span struct{ min, max uint32 }

// row is what is known of a message type before its frame is read.
type row struct {
	name string
	in   dialects
	span
}

// What the parts of varying length add to a smallest frame, in bytes. Data is
// bounded by msize alone, and msize by MaxMsize.
const (
	maxStr   = 1<<16 - 1              // [s] beyond length[2]
	maxNames = MaxWalk * (2 + maxStr) // nwname*(wname[s])
	maxQIDs  = MaxWalk * 13           // nwqid*(qid[13])
	maxStat  = MaxDir - dirLen        // stat[n] beyond its fixed part
	maxData  = 1 << 31                // data[count]
	maxNums  = MaxNumbers * 8         // count*(number[8])
)

// table has every message type. The comment of a row is the layout that follows
// size[4] type[1] tag[2]; the parts in <> are of the dialects of wide. Numbers
// are little-endian, [s] is length[2] and that many bytes, stat is what AppendDir
// writes.
var table = [256]row{
	Rlerror: {"Rlerror", linuxLike | beforeAny, span{11, 11}}, // ecode[4]

	Tstatfs:      {"Tstatfs", linuxLike, span{11, 11}},             // fid[4]
	Rstatfs:      {"Rstatfs", linuxLike, span{67, 67}},             // type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4]
	Tlopen:       {"Tlopen", linuxLike, span{15, 15}},              // fid[4] flags[4]
	Rlopen:       {"Rlopen", linuxLike, span{24, 24}},              // qid[13] iounit[4]
	Tlcreate:     {"Tlcreate", linuxLike, span{25, 25 + maxStr}},   // fid[4] name[s] flags[4] mode[4] gid[4]
	Rlcreate:     {"Rlcreate", linuxLike, span{24, 24}},            // qid[13] iounit[4]
	Tsymlink:     {"Tsymlink", linuxLike, span{19, 19 + 2*maxStr}}, // fid[4] name[s] symtgt[s] gid[4]
	Rsymlink:     {"Rsymlink", linuxLike, span{20, 20}},            // qid[13]
	Tmknod:       {"Tmknod", linuxLike, span{29, 29 + maxStr}},     // dfid[4] name[s] mode[4] major[4] minor[4] gid[4]
	Rmknod:       {"Rmknod", linuxLike, span{20, 20}},              // qid[13]
	Trename:      {"Trename", linuxLike, span{17, 17 + maxStr}},    // fid[4] dfid[4] name[s]
	Rrename:      {"Rrename", linuxLike, span{7, 7}},
	Treadlink:    {"Treadlink", linuxLike, span{11, 11}},        // fid[4]
	Rreadlink:    {"Rreadlink", linuxLike, span{9, 9 + maxStr}}, // target[s]
	Tgetattr:     {"Tgetattr", linuxLike, span{19, 19}},         // fid[4] request_mask[8]
	Rgetattr:     {"Rgetattr", linuxLike, span{160, 160}},       // valid[8] qid[13] mode[4] uid[4] gid[4] nlink[8] rdev[8] size[8] blksize[8] blocks[8] atime[8+8] mtime[8+8] ctime[8+8] btime[8+8] gen[8] data_version[8]
	Tsetattr:     {"Tsetattr", linuxLike, span{67, 67}},         // fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime[8+8] mtime[8+8]
	Rsetattr:     {"Rsetattr", linuxLike, span{7, 7}},
	Txattrwalk:   {"Txattrwalk", linuxLike, span{17, 17 + maxStr}},   // fid[4] newfid[4] name[s]
	Rxattrwalk:   {"Rxattrwalk", linuxLike, span{15, 15}},            // size[8]
	Txattrcreate: {"Txattrcreate", linuxLike, span{25, 25 + maxStr}}, // fid[4] name[s] attr_size[8] flags[4]
	Rxattrcreate: {"Rxattrcreate", linuxLike, span{7, 7}},
	Treaddir:     {"Treaddir", linuxLike, span{23, 23}},           // fid[4] offset[8] count[4]
	Rreaddir:     {"Rreaddir", linuxLike, span{11, 11 + maxData}}, // count[4] data[count]
	Tfsync:       {"Tfsync", linuxLike, span{11, 15}},             // fid[4] datasync[4]; older clients leave datasync out
	Rfsync:       {"Rfsync", linuxLike, span{7, 7}},
	Tlock:        {"Tlock", linuxLike, span{38, 38 + maxStr}},    // fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s]
	Rlock:        {"Rlock", linuxLike, span{8, 8}},               // status[1]
	Tgetlock:     {"Tgetlock", linuxLike, span{34, 34 + maxStr}}, // fid[4] type[1] start[8] length[8] proc_id[4] client_id[s]
	Rgetlock:     {"Rgetlock", linuxLike, span{30, 30 + maxStr}}, // type[1] start[8] length[8] proc_id[4] client_id[s]
	Tlink:        {"Tlink", linuxLike, span{17, 17 + maxStr}},    // dfid[4] fid[4] name[s]
	Rlink:        {"Rlink", linuxLike, span{7, 7}},
	Tmkdir:       {"Tmkdir", linuxLike, span{21, 21 + maxStr}},      // dfid[4] name[s] mode[4] gid[4]
	Rmkdir:       {"Rmkdir", linuxLike, span{20, 20}},               // qid[13]
	Trenameat:    {"Trenameat", linuxLike, span{19, 19 + 2*maxStr}}, // olddirfid[4] oldname[s] newdirfid[4] newname[s]
	Rrenameat:    {"Rrenameat", linuxLike, span{7, 7}},
	Tunlinkat:    {"Tunlinkat", linuxLike, span{17, 17 + maxStr}}, // dirfid[4] name[s] flags[4]
	Runlinkat:    {"Runlinkat", linuxLike, span{7, 7}},

	Tversion: {"Tversion", everywhere, span{13, 13 + maxStr}},        // msize[4] version[s]
	Rversion: {"Rversion", everywhere, span{13, 13 + maxStr}},        // msize[4] version[s]
	Tauth:    {"Tauth", negotiated, span{15, 15 + 2*maxStr}},         // afid[4] uname[s] aname[s] <n_uname[4]>
	Rauth:    {"Rauth", negotiated, span{20, 20}},                    // aqid[13]
	Tattach:  {"Tattach", negotiated, span{19, 19 + 2*maxStr}},       // fid[4] afid[4] uname[s] aname[s] <n_uname[4]>
	Rattach:  {"Rattach", negotiated, span{20, 20}},                  // qid[13]
	Rerror:   {"Rerror", plainLike | beforeAny, span{9, 9 + maxStr}}, // ename[s] <errno[4]>
	Tflush:   {"Tflush", negotiated, span{9, 9}},                     // oldtag[2]
	Rflush:   {"Rflush", negotiated, span{7, 7}},
	Twalk:    {"Twalk", negotiated, span{17, 17 + maxNames}}, // fid[4] newfid[4] nwname[2] nwname*(wname[s])
	Rwalk:    {"Rwalk", negotiated, span{9, 9 + maxQIDs}},    // nwqid[2] nwqid*(wqid[13])
	Topen:    {"Topen", plainLike, span{12, 12}},             // fid[4] mode[1]
	Ropen:    {"Ropen", plainLike, span{24, 24}},             // qid[13] iounit[4]
	Tcreate:  {"Tcreate", plainLike, span{18, 18 + maxStr}},  // fid[4] name[s] perm[4] mode[1] <extension[s]>
	Rcreate:  {"Rcreate", plainLike, span{24, 24}},           // qid[13] iounit[4]
	Tread:    {"Tread", negotiated, span{23, 23}},            // fid[4] offset[8] count[4]
	Rread:    {"Rread", negotiated, span{11, 11 + maxData}},  // count[4] data[count]
	Twrite:   {"Twrite", negotiated, span{23, 23 + maxData}}, // fid[4] offset[8] count[4] data[count]
	Rwrite:   {"Rwrite", negotiated, span{11, 11}},           // count[4]
	Tclunk:   {"Tclunk", negotiated, span{11, 11}},           // fid[4]
	Rclunk:   {"Rclunk", negotiated, span{7, 7}},
	Tremove:  {"Tremove", negotiated, span{11, 11}}, // fid[4]
	Rremove:  {"Rremove", negotiated, span{7, 7}},
	Tstat:    {"Tstat", plainLike, span{11, 11}},                              // fid[4]
	Rstat:    {"Rstat", plainLike, span{9 + dirLen, 9 + dirLen + maxStat}},    // n[2] stat[n]
	Twstat:   {"Twstat", plainLike, span{11 + dirLen, 13 + dirLen + maxStat}}, // fid[4] n[2] stat[n]; docker/go-p9p leaves n out
	Rwstat:   {"Rwstat", plainLike, span{7, 7}},

	Tsession: {"Tsession", withKeys, span{15, 15 + 2*maxStr}}, // key[8]; any other frame than one of 15 bytes is the draft's node[s] group[s] key[4]
	Rsession: {"Rsession", withKeys, span{7, 7}},
	Tsread:   {"Tsread", withKeys, span{13, 13 + maxNames}},  // fid[4] nwname[2] nwname*(wname[s])
	Rsread:   {"Rsread", withKeys, span{11, 11 + maxData}},   // count[4] data[count]
	Tswrite:  {"Tswrite", withKeys, span{17, 17 + maxData}},  // fid[4] nwname[2] nwname*(wname[s]) count[4] data[count]
	Rswrite:  {"Rswrite", withKeys, span{11, 11}},            // count[4]
	Tresume:  {"Tresume", withNums, span{9, 9 + maxNums}},    // count[2] count*(number[8])
	Rresume:  {"Rresume", withNums, span{9, 9 + MaxNumbers}}, // count[2] count*(state[1])
}

// wide are the frames that are larger in dialects in which users have numbers, for
// n_uname, errno, extension, n_uid, n_gid and n_muid: all of these in 9P2000.u, Tauth and
// Tattach in 9P2000.L too.
var wide = [256]span{
	Tauth:   {19, 19 + 2*maxStr},
	Tattach: {23, 23 + 2*maxStr},
	Rerror:  {13, 13 + maxStr},
	Tcreate: {20, 20 + 2*maxStr},
	Rstat:   {9 + dirLen + dirMore, 9 + dirLen + maxStat},
	Twstat:  {11 + dirLen + dirMore, 13 + dirLen + maxStat},
}

// longer are the frames that are larger in dialects with tokens.
var longer = [256]span{
	Tresume: {25, 25 + maxNums},    // counted[8] token[8], and as without
	Rresume: {17, 17 + MaxNumbers}, // token[8], and as without
}

// spanOf is the span of a frame of type t in d; false: d has no such type.
func spanOf(t Type, d Dialect) (span, bool) {
	if !table[t].in.has(d) {
		return span{}, false
	}
	if d.Tokens() && longer[t].min != 0 {
		return longer[t], true
	}
	if d.numericIDs() && wide[t].min != 0 {
		return wide[t], true
	}
	return table[t].span, true
}

// MaxSize is the size in bytes of the largest frame of type t in dialect d that
// says anything, never more than msize. Decode ignores what follows, as other
// servers do, so a reader need not keep it. For a type that d does not have it
// is HeaderLen: no more is needed to refuse it.
func MaxSize(t Type, d Dialect, msize uint32) uint32 {
	s, ok := spanOf(t, d)
	if !ok {
		s.max = HeaderLen
	}
	return min(s.max, msize)
}

// String is the name of the type as the manuals spell it, or typeN.
func (t Type) String() string {
	if name := table[t].name; name != "" {
		return name
	}
	return "type" + strconv.Itoa(int(t))
}
