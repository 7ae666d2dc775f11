package interop

import (
	"errors"
	"io"
	"net"
	"path"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/fsimpl/localfs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// p9Client is hugelgupf/p9's client: 9P2000.L, asked for as 9P2000.L.Google.N. It
// walks a name at a time, and sends Tfsync without its datasync.
type p9Client struct {
	c    *p9.Client
	root p9.File
}

func dialP9(network, addr, aname string) (client, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c, err := p9.NewClient(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	root, err := c.Attach(aname)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &p9Client{c, root}, nil
}

// at is the file at a path.
func (c *p9Client) at(name string) (p9.File, error) {
	_, f, err := c.root.Walk(strings.FieldsFunc(name, func(r rune) bool { return r == '/' }))
	return f, err
}

// with does something to the file at a path, opened with flags.
func (c *p9Client) with(name string, flags p9.OpenFlags, do func(p9.File) error) error {
	f, err := c.at(name)
	if err != nil {
		return err
	}
	_, _, err = f.Open(flags)
	if err == nil {
		err = do(f)
	}
	return errors.Join(err, f.Close())
}

func (c *p9Client) list(dir string) (names []string, err error) {
	err = c.with(dir, p9.ReadOnly, func(f p9.File) error {
		for after := uint64(0); ; {
			entries, err := f.Readdir(after, 100) // a few at a time
			if err != nil || len(entries) == 0 {
				return err
			}
			for _, e := range entries {
				names = append(names, e.Name)
				after = e.Offset
			}
		}
	})
	return names, err
}

func (c *p9Client) read(name string) (value string, err error) {
	err = c.with(name, p9.ReadOnly, func(f p9.File) error {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		value = string(b)
		return err
	})
	return value, err
}

// oTruncLinux and oAppend are Linux's O_TRUNC and O_APPEND.
const (
	oTruncLinux  p9.OpenFlags = 0o1000
	oAppendLinux p9.OpenFlags = 0o2000
)

func (c *p9Client) write(name, value string) error {
	return c.with(name, p9.WriteOnly|oTruncLinux, func(f p9.File) error { return writeAll(f, value) })
}

func writeAll(f p9.File, value string) error {
	if value == "" {
		return nil
	}
	_, err := f.WriteAt([]byte(value), 0)
	return err
}

func (c *p9Client) create(name, value string) error {
	dir, err := c.at(path.Dir(name))
	if err != nil {
		return err
	}
	f, _, _, err := dir.Create(path.Base(name), p9.WriteOnly, 0o644, p9.NoUID, p9.NoGID)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	return errors.Join(writeAll(f, value), f.FSync(), f.Close())
}

// inDir does something with the folder that a path is in.
func (c *p9Client) inDir(name string, do func(dir p9.File, base string) error) error {
	dir, err := c.at(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(do(dir, path.Base(name)), dir.Close())
}

func (c *p9Client) remove(name string) error {
	return c.inDir(name, func(dir p9.File, base string) error { return dir.UnlinkAt(base, 0) })
}

func (c *p9Client) rename(name, to string) error {
	return c.inDir(name, func(dir p9.File, base string) error { return dir.RenameAt(base, dir, to) })
}

func (c *p9Client) stat(name string) (info, error) {
	f, err := c.at(name)
	if err != nil {
		return info{}, err
	}
	_, _, a, err := f.GetAttr(p9.AttrMaskAll)
	return info{path.Base(name), a.Size, a.Mode.IsDir()}, errors.Join(err, f.Close())
}

func (c *p9Client) truncate(name string, length uint64) error {
	f, err := c.at(name)
	if err != nil {
		return err
	}
	return errors.Join(f.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{Size: length}), f.Close())
}

func (c *p9Client) appendTo(name string, pieces ...string) error {
	if err := c.create(name, ""); err != nil {
		return err
	}
	return c.with(name, p9.WriteOnly|oAppendLinux, func(f p9.File) error {
		for _, piece := range pieces {
			if _, err := f.WriteAt([]byte(piece), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *p9Client) close() { c.c.Close() }

// peerLocal is p9's own server over a real folder.
func peerLocal(t *testing.T) (addr, aname string) {
	l := listen(t)
	s := p9.NewServer(localfs.Attacher(keysDir(t)))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.Handle(c, c)
		}
	}()
	return l.Addr().String(), ""
}

// TestP9Linux is what only a client of 9P2000.L can ask for. Not locks: this one
// sends every Tlock with fid 0.
func TestP9Linux(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{})
	srv.NewVM(testenv.UUID(1), oneLine(samplePayload(1)))
	c, err := dialP9("unix", srv.VM(testenv.UUID(1)), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	keys, err := c.(*p9Client).at("keys")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := keys.StatFS(); err != nil || s.Blocks*uint64(s.BlockSize) != 16<<20 || s.Files != 4096 || s.NameLength != 255 {
		t.Errorf("statfs: %+v, %v", s, err)
	}
	for what, got := range map[string]error{
		"mkdir EPERM":   second(keys.Mkdir("d", 0o755, 0, 0)),
		"symlink EPERM": second(keys.Symlink("color", "l", 0, 0)),
		"mknod EPERM":   second(keys.Mknod("p", 0o10644, 0, 0, 0, 0)),
		"link EPERM":    keys.Link(keys, "l"),
		"rmdir ENOTDIR": keys.UnlinkAt("color", 0x200),
		"unlink ENOENT": keys.UnlinkAt("none", 0),
	} {
		want := map[string]linux.Errno{
			"EPERM": linux.EPERM, "ENOTDIR": linux.ENOTDIR, "ENOENT": linux.ENOENT,
		}[strings.Fields(what)[1]]
		if !errors.Is(got, want) {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func second[T any](_ T, err error) error { return err }
