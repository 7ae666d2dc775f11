package interop

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/kennylevinsen/qptools/fileserver"
	"github.com/kennylevinsen/qptools/fileserver/trees"
	"github.com/knusbaum/go9p"
	"github.com/knusbaum/go9p/fs"
	"github.com/lionkov/go9p/p/srv/ufs"
)

// peer starts a writable server of others on a loopback port, with an empty
// folder "keys" under the aname that it gives.
type peer func(t *testing.T) (addr, aname string)

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// keysDir is a real folder with "keys" in it.
func keysDir(t *testing.T) string {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func peerUfs(t *testing.T) (string, string)     { return startUfs(t, false) }
func peerUfsDotu(t *testing.T) (string, string) { return startUfs(t, true) }

func startUfs(t *testing.T, dotu bool) (addr, aname string) {
	l, dir := listen(t), keysDir(t)
	s := ufs.New()
	s.Dotu = dotu
	s.Id = "ufs"
	s.Root = dir
	s.Start(s)
	go s.StartListener(l)
	return l.Addr().String(), ""
}

func peerKnusbaum(t *testing.T) (addr, aname string) {
	l := listen(t)
	tree, root := fs.NewFS("glenda", "glenda", 0o777,
		fs.WithCreateFile(fs.CreateStaticFile), fs.WithRemoveFile(fs.RMFile), fs.IgnorePermissions())
	keys := fs.NewStaticDir(tree.NewStat("keys", "glenda", "glenda", 0o777|0x80000000))
	if err := root.AddChild(keys); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go go9p.ServeReadWriter(c, c, tree.Server())
		}
	}()
	return l.Addr().String(), ""
}

func peerQp(t *testing.T) (addr, aname string) {
	l := listen(t)
	root := trees.NewSyntheticDir("/", 0o777, "nobody", "nobody")
	if err := root.Add("keys", trees.NewSyntheticDir("keys", 0o777, "nobody", "nobody")); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go fileserver.New(c, root, nil).Serve()
		}
	}()
	return l.Addr().String(), ""
}
