package interop

import (
	"context"
	"net"
	"path"
	"strings"
	"sync/atomic"
	"time"

	p9p "github.com/docker/go-p9p"
)

// dockerClient is docker/go-p9p's Session: 9P2000, msize 65536. Its API is the
// messages; fids are the caller's to choose.
type dockerClient struct {
	ctx    context.Context
	cancel context.CancelFunc
	conn   net.Conn
	s      p9p.Session
	fid    atomic.Uint32
}

const dockerRoot p9p.Fid = 1

func dialDocker(network, addr, aname string) (client, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := &dockerClient{conn: conn}
	c.ctx, c.cancel = context.WithTimeout(context.Background(), time.Minute)
	c.fid.Store(uint32(dockerRoot))
	if c.s, err = p9p.NewSession(c.ctx, conn); err == nil {
		_, err = c.s.Attach(c.ctx, dockerRoot, p9p.NOFID, "nobody", aname)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// walk gives a new fid on a path.
func (c *dockerClient) walk(p string) (p9p.Fid, error) {
	var names []string
	if p != "" && p != "." {
		names = strings.Split(p, "/")
	}
	fid := p9p.Fid(c.fid.Add(1))
	qids, err := c.s.Walk(c.ctx, dockerRoot, fid, names...)
	if err == nil && len(qids) != len(names) {
		err = p9p.ErrNotfound
	}
	return fid, err
}

// open walks and opens; the caller clunks.
func (c *dockerClient) open(p string, mode p9p.Flag) (p9p.Fid, error) {
	fid, err := c.walk(p)
	if err != nil {
		return 0, err
	}
	if _, _, err = c.s.Open(c.ctx, fid, mode); err != nil {
		c.s.Clunk(c.ctx, fid)
	}
	return fid, err
}

func (c *dockerClient) list(dir string) ([]string, error) {
	fid, err := c.open(dir, p9p.OREAD)
	if err != nil {
		return nil, err
	}
	defer c.s.Clunk(c.ctx, fid)
	data, err := c.readAll(fid)
	if err != nil {
		return nil, err
	}
	var names []string
	for rd := strings.NewReader(data); rd.Len() > 0; {
		var d p9p.Dir
		if err := p9p.DecodeDir(p9p.NewCodec(), rd, &d); err != nil {
			return names, err
		}
		names = append(names, d.Name)
	}
	return names, nil
}

func (c *dockerClient) readAll(fid p9p.Fid) (string, error) {
	var all []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := c.s.Read(c.ctx, fid, buf, int64(len(all)))
		if n == 0 { // at the end it gives io.EOF as well
			if len(all) > 0 || err != nil && err.Error() == "EOF" {
				err = nil
			}
			return string(all), err
		}
		if err != nil {
			return string(all), err
		}
		all = append(all, buf[:n]...)
	}
}

func (c *dockerClient) read(p string) (string, error) {
	fid, err := c.open(p, p9p.OREAD)
	if err != nil {
		return "", err
	}
	defer c.s.Clunk(c.ctx, fid)
	return c.readAll(fid)
}

// writeAll writes and clunks.
func (c *dockerClient) writeAll(fid p9p.Fid, value string) error {
	off := 0
	for _, piece := range pieces(value, 32<<10) {
		if _, err := c.s.Write(c.ctx, fid, []byte(piece), int64(off)); err != nil {
			c.s.Clunk(c.ctx, fid)
			return err
		}
		off += len(piece)
	}
	return c.s.Clunk(c.ctx, fid)
}

func (c *dockerClient) write(p, value string) error {
	fid, err := c.open(p, p9p.OWRITE|p9p.OTRUNC)
	if err != nil {
		return err
	}
	return c.writeAll(fid, value)
}

// make creates a file; the fid that stood on its folder is the file's then.
func (c *dockerClient) make(p string, perm uint32) (p9p.Fid, error) {
	fid, err := c.walk(path.Dir(p))
	if err != nil {
		return 0, err
	}
	if _, _, err = c.s.Create(c.ctx, fid, path.Base(p), perm, p9p.OWRITE); err != nil {
		c.s.Clunk(c.ctx, fid)
	}
	return fid, err
}

func (c *dockerClient) create(p, value string) error {
	fid, err := c.make(p, 0o600)
	if err != nil {
		return err
	}
	return c.writeAll(fid, value)
}

func (c *dockerClient) remove(p string) error {
	fid, err := c.walk(p)
	if err != nil {
		return err
	}
	return c.s.Remove(c.ctx, fid)
}

// change is a stat record that asks for no change. Its times are seconds since
// 1970 in 32 bits on the wire, so that ~0 is a date in 2106.
func (c *dockerClient) change() p9p.Dir {
	never := time.Unix(1<<32-1, 0)
	all := ^uint32(0)
	return p9p.Dir{
		Type: ^uint16(0), Dev: all, Qid: p9p.Qid{Type: ^p9p.QType(0), Version: all, Path: ^uint64(0)},
		Mode: all, AccessTime: never, ModTime: never, Length: ^uint64(0),
	}
}

func (c *dockerClient) wstat(p string, d p9p.Dir) error {
	fid, err := c.walk(p)
	if err != nil {
		return err
	}
	defer c.s.Clunk(c.ctx, fid)
	return c.s.WStat(c.ctx, fid, d)
}

func (c *dockerClient) rename(p, name string) error {
	d := c.change()
	d.Name = name
	return c.wstat(p, d)
}

func (c *dockerClient) stat(p string) (info, error) {
	fid, err := c.walk(p)
	if err != nil {
		return info{}, err
	}
	defer c.s.Clunk(c.ctx, fid)
	d, err := c.s.Stat(c.ctx, fid)
	return info{d.Name, d.Length, d.Mode&p9p.DMDIR != 0}, err
}

func (c *dockerClient) truncate(p string, length uint64) error {
	d := c.change()
	d.Length = length
	return c.wstat(p, d)
}

func (c *dockerClient) appendTo(p string, pieces ...string) error {
	fid, err := c.make(p, p9p.DMAPPEND|0o600)
	if err != nil {
		return err
	}
	defer c.s.Clunk(c.ctx, fid)
	for _, piece := range pieces {
		if _, err := c.s.Write(c.ctx, fid, []byte(piece), 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *dockerClient) close() {
	c.cancel()
	c.conn.Close()
}
