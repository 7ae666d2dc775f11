package durability

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// disk is a file system in this process whose writes and syncs can fail as those of a
// disk do: the kernel has taken the bytes into its memory by then, and keeps them there.
type disk struct {
	mu   sync.Mutex
	loss func(name string, off int64) bool   // a write that never gets to the disk
	sync func(name string) syscall.Errno     // what a sync says
	make func(name string) (e syscall.Errno) // what making a file says
}

func (d *disk) set(loss func(string, int64) bool, sync, create func(string) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loss, d.sync, d.make = loss, sync, create
}

// node is a file or a folder of it.
type node struct {
	fs.LoopbackNode
	disk *disk
}

// diskFile is an open file.
type diskFile struct {
	fs.FileHandle
	node *node
}

// kept has the kernel keep what it has in memory of a file when it is opened again, as
// it does for a disk of its own.
func (n *node) kept(h fs.FileHandle, flags uint32) (fs.FileHandle, uint32) {
	return &diskFile{h, n}, flags | fuse.FOPEN_KEEP_CACHE
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, flags, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	h, flags = n.kept(h, flags)
	return h, flags, 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.disk.mu.Lock()
	may := n.disk.make
	n.disk.mu.Unlock()
	if may != nil {
		if errno := may(name); errno != 0 {
			return nil, nil, 0, errno
		}
	}
	in, h, flags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	h, flags = in.Operations().(*node).kept(h, flags)
	return in, h, flags, 0
}

func (f *diskFile) name() string { return filepath.Base(f.node.Path(nil)) }

func (f *diskFile) Read(ctx context.Context, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return f.FileHandle.(fs.FileReader).Read(ctx, b, off)
}

func (f *diskFile) Write(ctx context.Context, b []byte, off int64) (uint32, syscall.Errno) {
	f.node.disk.mu.Lock()
	loss := f.node.disk.loss
	f.node.disk.mu.Unlock()
	if loss != nil && loss(f.name(), off) {
		return uint32(len(b)), 0
	}
	return f.FileHandle.(fs.FileWriter).Write(ctx, b, off)
}

func (f *diskFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	f.node.disk.mu.Lock()
	fail := f.node.disk.sync
	f.node.disk.mu.Unlock()
	if fail != nil {
		if errno := fail(f.name()); errno != 0 {
			return errno
		}
	}
	return f.FileHandle.(fs.FileFsyncer).Fsync(ctx, flags)
}

func (f *diskFile) Flush(context.Context) syscall.Errno { return 0 }

func (f *diskFile) Release(ctx context.Context) syscall.Errno {
	return f.FileHandle.(fs.FileReleaser).Release(ctx)
}

// WrapChild makes what is below a folder a node of the same disk.
func (n *node) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{fs.LoopbackNode{RootData: child.(*fs.LoopbackNode).RootData}, n.disk}
}

// mountDisk mounts a disk for the length of the test.
func mountDisk(t *testing.T) (*disk, string) {
	t.Helper()
	d := &disk{}
	root := &fs.LoopbackRoot{Path: t.TempDir()}
	top := &node{fs.LoopbackNode{RootData: root}, d}
	root.RootNode = top
	dir := t.TempDir()
	server, err := fs.Mount(dir, top, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "meta9-test", ExplicitDataCacheControl: true}})
	if err != nil {
		t.Fatalf("a FUSE file system, which root can mount where /dev/fuse is: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

// noLog has no room for a log, so that a commit is the data file's alone.
func noLog(name string) syscall.Errno {
	if strings.HasPrefix(name, "meta9.log") {
		return syscall.ENOSPC
	}
	return 0
}

// TestDiskFails has a disk fail at the sync of the page that makes a commit count. The
// kernel has that page in memory, and the disk does not: the next meta9d must see what
// the disk has, and not what is gone with the machine's memory.
func TestDiskFails(t *testing.T) {
	d, dir := mountDisk(t)
	d.set(nil, nil, noLog)
	srv, keys := startOn(t, dir)
	if err := keys.Swrite(0, []byte("on the disk"), "k"); err != nil {
		t.Fatal(err)
	}
	var lost atomic.Bool
	d.set(func(name string, off int64) bool {
		if name != "meta9.db" || off >= 2*4096 {
			return false
		}
		lost.Store(true)
		return true
	}, func(string) syscall.Errno {
		if lost.Load() {
			return syscall.EIO
		}
		return 0
	}, noLog)
	if err := keys.Swrite(0, []byte("in memory"), "k"); err == nil {
		t.Fatal("a write was acknowledged whose sync had failed")
	}
	srv.Kill()
	d.set(nil, nil, noLog)
	if got := readOn(t, srv); got != "on the disk" {
		t.Errorf("after the restart: %q", got)
	}
}

// TestNoRoomAtSync has a file system say at the sync that it has no room, as NFS does.
// That write is refused and not there after a kill, and the next one goes. Only where
// the page that makes a commit count may be on the disk by then is nothing more written.
func TestNoRoomAtSync(t *testing.T) {
	for _, tt := range []struct {
		file  string // whose sync fails
		make  func(name string) syscall.Errno
		nth   int64 // of the write
		final bool
	}{
		{file: "meta9.log", nth: 1},
		{file: "meta9.db", make: noLog, nth: 1},
		{file: "meta9.db", make: noLog, nth: 2, final: true},
	} {
		t.Run(fmt.Sprintf("sync %d of %s", tt.nth, tt.file), func(t *testing.T) {
			d, dir := mountDisk(t)
			d.set(nil, nil, tt.make)
			srv, keys := startOn(t, dir)
			if err := keys.Swrite(0, []byte("old"), "k"); err != nil {
				t.Fatal(err)
			}
			var syncs atomic.Int64
			d.set(nil, func(name string) syscall.Errno {
				if name == tt.file {
					if syncs.Add(1) == tt.nth {
						return syscall.ENOSPC
					}
				}
				return 0
			}, tt.make)
			err := keys.Swrite(0, []byte("refused"), "k")
			if tt.final {
				if err == nil || !strings.Contains(err.Error(), "may or may not be there") {
					t.Fatalf("the write: %v", err)
				}
				if err := keys.Swrite(0, []byte("more"), "k"); err == nil {
					t.Error("a write was acknowledged after that")
				}
				srv.Kill()
				d.set(nil, nil, tt.make)
				readOn(t, srv)
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), "No space left on device") {
				t.Fatalf("the write: %v", err)
			}
			srv.Kill()
			if got := readOn(t, srv); got != "old" {
				t.Errorf("after a kill: %q", got)
			}
			keys = srv.Conn("vms/" + testenv.UUID(0) + "/keys")
			syncs.Store(-2) // two good ones first
			for i := 0; syncs.Load() < tt.nth; i++ {
				if err := keys.Swrite(0, fmt.Append(nil, "new ", i), "k"); err != nil && !strings.HasPrefix(err.Error(), "No space left on device") {
					t.Fatalf("write %d: %v", i, err)
				}
			}
			if err := keys.Swrite(0, []byte("new"), "k"); err != nil {
				t.Errorf("after there was no room: %v", err)
			}
			if got := readOn(t, srv); got != "new" {
				t.Errorf("after another kill: %q", got)
			}
		})
	}
}

// startOn starts a meta9d with its data on that disk, and one VM.
func startOn(t *testing.T, dir string) (*testenv.Server, *raw.Conn) {
	t.Helper()
	srv := testenv.Start(t, daemon.Options{Args: []string{"--data", filepath.Join(dir, "data")}})
	srv.NewVM(testenv.UUID(0), fmt.Sprintf(`{"uuid":%q}`, testenv.UUID(0)))
	return srv, srv.Conn("vms/" + testenv.UUID(0) + "/keys")
}

// readOn starts meta9d again and reads k.
func readOn(t *testing.T, srv *testenv.Server) string {
	t.Helper()
	srv.Restart()
	c := srv.Conn("vms/" + testenv.UUID(0) + "/keys")
	defer c.Close()
	b, err := c.Sread(0, "k")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
