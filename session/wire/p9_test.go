package wire_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/session/wire"
)

// answer plays a 9P2000.L server for one request: it wants the frame to read as
// request and sends reply, both without their tag.
func answer(conn io.ReadWriter, request, reply string) error {
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	frame := append(size[:], make([]byte, binary.LittleEndian.Uint32(size[:])-4)...)
	if _, err := io.ReadFull(conn, frame[4:]); err != nil {
		return err
	}
	var m wire.Msg
	if err := wire.Decode(&m, frame, wire.L); err != nil {
		return err
	}
	tag := fmt.Sprintf(" tag %d", m.Tag)
	if got := strings.Replace(m.Format(wire.L), tag, "", 1); got != request {
		return fmt.Errorf("p9 sent\n%s, want\n%s", got, request)
	}
	typ, fields, _ := strings.Cut(reply, " ")
	r, err := wire.Parse(typ + tag + " " + fields)
	if err != nil {
		return err
	}
	b, err := wire.Append(nil, r, wire.L)
	if err != nil {
		return err
	}
	_, err = conn.Write(b)
	return err
}

// linuxPeer is hugelgupf/p9's client at one end of a pipe and this package at
// the other.
type linuxPeer struct {
	*testing.T
	conn      net.Conn
	client    *p9.Client
	root, dir p9.File
}

// step lets p9 make a call: it must send request, and make want of reply.
func (p *linuxPeer) step(request, reply string, call func() (got any, err error), want any) {
	p.Helper()
	served := make(chan error, 1)
	go func() { served <- answer(p.conn, request, reply) }()
	done := make(chan string, 1)
	go func() {
		got, err := call()
		if err != nil {
			p.Errorf("%s: %v", request, err)
		}
		done <- cmp.Diff(want, got)
	}()
	if err := <-served; err != nil {
		p.Fatal(err)
	}
	if diff := <-done; diff != "" {
		p.Errorf("%s: p9 read the answer as %s", request, diff)
	}
}

var someQID = p9.QID{Type: 0x80, Version: 5, Path: 17}

// TestLinuxWithP9 lets hugelgupf/p9's client, a codec that nobody here wrote,
// send each 9P2000.L message that it has and read the answer.
func TestLinuxWithP9(t *testing.T) {
	here, there := net.Pipe()
	p := &linuxPeer{T: t, conn: here}
	defer func() {
		here.Close()
		if p.client != nil {
			p.client.Close()
		}
	}()
	p.begin(there)
	p.attributes()
	p.entries()
	p.transfer()
	p.end()
}

func (p *linuxPeer) begin(conn net.Conn) {
	p.step(`Tversion msize 65536 version "9P2000.L.Google.7"`, `Rversion msize 8192 version "9P2000.L"`, func() (any, error) {
		var err error
		p.client, err = p9.NewClient(conn)
		return nil, err
	}, nil)
	p.step(`Tattach fid 1 afid ~0 uname "" aname "keys" n_uname ~0`, `Rattach qid 0x80.5.17`, func() (got any, err error) {
		p.root, err = p.client.Attach("keys")
		return nil, err
	}, nil)
	p.step(`Twalk fid 1 newfid 2 names "a" "b"`, `Rwalk qids 0x80.5.17 0x80.5.17`, func() (any, error) {
		qids, f, err := p.root.Walk([]string{"a", "b"})
		p.dir = f
		return qids, err
	}, []p9.QID{someQID, someQID})
}

func (p *linuxPeer) attributes() {
	p.step(`Tstatfs fid 1`, `Rstatfs type 0x1 bsize 2 blocks 3 bfree 4 bavail 5 files 6 ffree 7 fsid 0x8 namelen 9`, func() (any, error) {
		return p.root.StatFS()
	}, p9.FSStat{Type: 1, BlockSize: 2, Blocks: 3, BlocksFree: 4, BlocksAvailable: 5, Files: 6, FilesFree: 7, FSID: 8, NameLength: 9})
	p.step(`Tgetattr fid 1 mask 0x2201`,
		`Rgetattr valid 0x2201 qid 0x80.5.17 mode 040755 uid 1 gid 2 nlink 3 rdev 4 size 5 blksize 6 blocks 7 atime 8 atime_nsec 9 mtime 10 mtime_nsec 11 ctime 12 ctime_nsec 13 btime 14 btime_nsec 15 gen 16 data_version 17`,
		func() (any, error) {
			q, mask, attr, err := p.root.GetAttr(p9.AttrMask{Mode: true, Size: true, DataVersion: true})
			return []any{q, mask, attr}, err
		}, []any{someQID, p9.AttrMask{Mode: true, Size: true, DataVersion: true}, p9.Attr{
			Mode: 0o40755, UID: 1, GID: 2, NLink: 3, RDev: 4, Size: 5, BlockSize: 6, Blocks: 7,
			ATimeSeconds: 8, ATimeNanoSeconds: 9, MTimeSeconds: 10, MTimeNanoSeconds: 11,
			CTimeSeconds: 12, CTimeNanoSeconds: 13, BTimeSeconds: 14, BTimeNanoSeconds: 15, Gen: 16, DataVersion: 17,
		}})
	p.step(`Tsetattr fid 1 valid 0x108 mode 0644 uid 1 gid 2 size 3 atime 4 atime_nsec 5 mtime 6 mtime_nsec 7`, `Rsetattr`, func() (any, error) {
		return nil, p.root.SetAttr(p9.SetAttrMask{Size: true, MTimeNotSystemTime: true}, p9.SetAttr{
			Permissions: 0o644, UID: 1, GID: 2, Size: 3, ATimeSeconds: 4, ATimeNanoSeconds: 5, MTimeSeconds: 6, MTimeNanoSeconds: 7,
		})
	}, nil)
}

func (p *linuxPeer) entries() {
	p.step(`Tmkdir fid 1 name "d" mode 0755 gid ~0`, `Rmkdir qid 0x80.5.17`, func() (any, error) {
		return p.root.Mkdir("d", 0o755, 0, 0)
	}, someQID)
	p.step(`Tsymlink fid 1 name "new" target "old" gid ~0`, `Rsymlink qid 0x80.5.17`, func() (any, error) {
		return p.root.Symlink("old", "new", 0, 0)
	}, someQID)
	p.step(`Tmknod fid 1 name "n" mode 010644 major 1 minor 2 gid ~0`, `Rmknod qid 0x80.5.17`, func() (any, error) {
		return p.root.Mknod("n", 0o10644, 1, 2, 0, 0)
	}, someQID)
	p.step(`Tlink fid 1 newfid 2 name "l"`, `Rlink`, func() (any, error) { return nil, p.root.Link(p.dir, "l") }, nil)
	p.step(`Trename fid 1 newfid 2 name "r"`, `Rrename`, func() (any, error) { return nil, p.root.Rename(p.dir, "r") }, nil)
	p.step(`Trenameat fid 1 name "o" newfid 2 newname "n"`, `Rrenameat`, func() (any, error) { return nil, p.root.RenameAt("o", p.dir, "n") }, nil)
	p.step(`Tunlinkat fid 1 name "d" flags 0x200`, `Runlinkat`, func() (any, error) { return nil, p.root.UnlinkAt("d", 0x200) }, nil)
	p.step(`Treadlink fid 1`, `Rreadlink target "there"`, func() (any, error) { return p.root.Readlink() }, "there")
}

func (p *linuxPeer) transfer() {
	p.step(`Tlopen fid 2 flags 0x2`, `Rlopen qid 0x80.5.17 iounit 4096`, func() (any, error) {
		q, iounit, err := p.dir.Open(p9.ReadWrite)
		return []any{q, iounit}, err
	}, []any{someQID, uint32(4096)})
	entry := p9.Dirent{QID: someQID, Offset: 9, Type: 4, Name: "sub"}
	entries := wire.AppendDirent(nil, &entry)
	if len(entries) != wire.DirentSize(&entry) {
		p.Errorf("%d bytes, DirentSize %d", len(entries), wire.DirentSize(&entry))
	}
	p.step(`Treaddir fid 2 offset 1 count 100`, fmt.Sprintf("Rreaddir data %q", entries), func() (any, error) {
		return p.dir.Readdir(1, 100)
	}, p9.Dirents{entry})
	p.step(`Twrite fid 2 offset 7 data "val\n"`, `Rwrite count 4`, func() (any, error) { return p.dir.WriteAt([]byte("val\n"), 7) }, 4)
	p.step(`Tread fid 2 offset 3 count 4`, `Rread data "val\n"`, func() (any, error) {
		b := make([]byte, 4)
		_, err := p.dir.ReadAt(b, 3)
		return string(b), err
	}, "val\n")
}

func (p *linuxPeer) end() {
	// p9 forgets the fid here.
	p.step(`Tlock fid 0 type 1 flags 0x1 start 2 length 3 proc_id 4 client_id "node"`, `Rlock status 2`, func() (any, error) {
		return p.dir.Lock(4, p9.WriteLock, 1, 2, 3, "node")
	}, p9.LockStatusError)
	p.step(`Tlcreate fid 2 name "f" flags 0x1 mode 0600 gid ~0`, `Rlcreate qid 0x80.5.17 iounit 1`, func() (any, error) {
		_, q, iounit, err := p.dir.Create("f", p9.WriteOnly, 0o600, 0, 0)
		return []any{q, iounit}, err
	}, []any{someQID, uint32(1)})
	p.step(`Tfsync fid 2 datasync 0`, `Rfsync`, func() (any, error) { return nil, p.dir.FSync() }, nil)
	p.step(`Tclunk fid 2`, `Rclunk`, func() (any, error) { return nil, p.dir.Close() }, nil)
	p.step(`Tclunk fid 1`, `Rlerror ecode 17`, func() (any, error) { return p.root.Close(), nil }, linux.EEXIST)
}
