package interop

import (
	"fmt"
	"net"
	"path"
	"strings"

	"github.com/kennylevinsen/qp"
	qpclient "github.com/kennylevinsen/qptools/client"
	"github.com/kennylevinsen/qptools/utils"
)

// qpClient is kennylevinsen/qptools' Client over qp's codec: 9P2000, msize
// 131072. Its WriteAt panics where the last chunk is shorter than the others,
// and qp's OTRUNC is 0x50, which is truncation and removal on close.
type qpClient struct {
	conn net.Conn
	c    *qpclient.Client
	root qpclient.Fid
}

func dialQp(network, addr, aname string) (client, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := &qpClient{conn: conn, c: qpclient.New(conn)}
	go c.c.Serve()
	_, version, err := c.c.Version(qpclient.DefaultMessageSize, qp.Version)
	if err == nil && version != qp.Version {
		err = fmt.Errorf("was granted %s", version)
	}
	if err == nil {
		c.root, _, err = c.c.Attach(nil, "nobody", aname)
	}
	return c, err
}

func (c *qpClient) walk(p string) (qpclient.Fid, error) {
	var names []string
	if p != "" && p != "." {
		names = strings.Split(p, "/")
	}
	fid, _, err := c.root.Walk(names)
	if err == nil && fid == nil {
		err = qpclient.ErrNoSuchFile
	}
	return fid, err
}

func (c *qpClient) open(p string, mode qp.OpenMode) (*qpclient.WrappedFid, error) {
	fid, err := c.walk(p)
	if err != nil {
		return nil, err
	}
	if _, _, err := fid.Open(mode); err != nil {
		fid.Clunk()
		return nil, err
	}
	return qpclient.WrapFid(fid), nil
}

func (c *qpClient) read(p string) (string, error) {
	f, err := c.open(p, qp.OREAD)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := f.ReadAll()
	return string(b), err
}

func (c *qpClient) list(dir string) ([]string, error) {
	b, err := c.read(dir)
	if err != nil {
		return nil, err
	}
	stats, err := utils.Readdir([]byte(b))
	var names []string
	for _, s := range stats {
		names = append(names, s.Name)
	}
	return names, err
}

// oTrunc is open(5)'s.
const oTrunc qp.OpenMode = 0x10

func (c *qpClient) write(p, value string) error {
	f, err := c.open(p, qp.OWRITE|oTrunc)
	if err != nil {
		return err
	}
	return c.put(f, value)
}

// put writes all of value and clunks.
func (c *qpClient) put(f *qpclient.WrappedFid, value string) error {
	for _, piece := range pieces(value, 32<<10) {
		if _, err := f.Write([]byte(piece)); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

func (c *qpClient) make(p string, perm qp.FileMode) (*qpclient.WrappedFid, error) {
	fid, err := c.walk(path.Dir(p))
	if err != nil {
		return nil, err
	}
	if _, _, err := fid.Create(path.Base(p), perm, qp.OWRITE); err != nil {
		fid.Clunk()
		return nil, err
	}
	return qpclient.WrapFid(fid), nil
}

func (c *qpClient) create(p, value string) error {
	f, err := c.make(p, 0o600)
	if err != nil {
		return err
	}
	return c.put(f, value)
}

func (c *qpClient) remove(p string) error {
	fid, err := c.walk(p)
	if err != nil {
		return err
	}
	return fid.Remove()
}

// wstat sends a record as qptools' SimpleClient makes it: the qid is zero.
func (c *qpClient) wstat(p string, change func(*qp.Stat)) error {
	fid, err := c.walk(p)
	if err != nil {
		return err
	}
	defer fid.Clunk()
	all := ^uint32(0)
	s := qp.Stat{Type: ^uint16(0), Dev: all, Mode: qp.FileMode(all), Atime: all, Mtime: all, Length: ^uint64(0)}
	change(&s)
	return fid.WriteStat(s)
}

func (c *qpClient) rename(p, name string) error {
	return c.wstat(p, func(s *qp.Stat) { s.Name = name })
}

func (c *qpClient) stat(p string) (info, error) {
	fid, err := c.walk(p)
	if err != nil {
		return info{}, err
	}
	defer fid.Clunk()
	s, err := fid.Stat()
	return info{s.Name, s.Length, s.Mode&qp.DMDIR != 0}, err
}

func (c *qpClient) truncate(p string, length uint64) error {
	return c.wstat(p, func(s *qp.Stat) { s.Length = length })
}

func (c *qpClient) appendTo(p string, pieces ...string) error {
	f, err := c.make(p, qp.DMAPPEND|0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, piece := range pieces {
		if _, err := f.WriteOnce(0, []byte(piece)); err != nil {
			return err
		}
	}
	return nil
}

func (c *qpClient) close() {
	c.c.Stop()
	c.conn.Close()
}
