package backup

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// folder is a file system that lacks what others have: second names, as FAT, or a rename
// that replaces nothing, as NFS.
type folder struct {
	fs.LoopbackNode
	links, noReplace bool
}

func (f *folder) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &folder{fs.LoopbackNode{RootData: child.(*fs.LoopbackNode).RootData}, f.links, f.noReplace}
}

func (f *folder) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if !f.links {
		return nil, syscall.EPERM
	}
	return f.LoopbackNode.Link(ctx, target, name, out)
}

func (f *folder) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags != 0 && !f.noReplace {
		return syscall.EINVAL
	}
	return f.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

// mount mounts one for the length of the test.
func mount(t *testing.T, f *folder) (dir string) {
	t.Helper()
	f.RootData = &fs.LoopbackRoot{Path: t.TempDir(), RootNode: f}
	dir = t.TempDir()
	server, err := fs.Mount(dir, f, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "meta9-test"}})
	if err != nil {
		t.Fatalf("a FUSE file system, which root can mount where /dev/fuse is: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFolders: a backup can be written to file systems of every kind, and made data there;
// what has the name already stays.
func TestFolders(t *testing.T) {
	meta9 := testenv.Binary(t, "meta9")
	d := testenv.Start(t, daemon.Options{})
	d.NewVM(testenv.UUID(1), `{"uuid":"`+testenv.UUID(1)+`","customer_metadata":{"a":"b"}}`)
	for name, f := range map[string]*folder{"FAT": {noReplace: true}, "NFS": {links: true}} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t, f)
			file, data := filepath.Join(dir, "backup"), filepath.Join(dir, "data")
			run(t, meta9, "--addr", "unix:"+d.Admin(), "backup", file)
			run(t, meta9, "backup", "--check", file)
			if out, err := exec.Command(meta9, "--addr", "unix:"+d.Admin(), "backup", file).CombinedOutput(); err == nil || !strings.Contains(string(out), "is there already") {
				t.Errorf("once more: %v\n%s", err, out)
			}
			run(t, d.Bin, "--restore", file, "--data", data)
			run(t, d.Bin, "--check", "--data", data)
			for folder, want := range map[string]string{dir: "backup data", data: "meta9.db"} {
				list, err := os.ReadDir(folder)
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for _, e := range list {
					names = append(names, e.Name())
				}
				if got := strings.Join(names, " "); got != want {
					t.Errorf("%s has %s, want %s", folder, got, want)
				}
			}
		})
	}
}
