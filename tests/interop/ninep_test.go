package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path"
	"strings"

	ninep "github.com/Harvey-OS/ninep/protocol"
)

// ninepClient is Harvey-OS/ninep's client: 9P2000, Tversion with tag 1. Its API
// is the messages.
type ninepClient struct {
	conn *deaf
	c    *ninep.Client
	root ninep.FID
}

// deaf is a connection that never ends for its reader: at the end of its input
// ninep's client dereferences nil and takes the process with it.
type deaf struct{ net.Conn }

func (d *deaf) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if err != nil {
		select {}
	}
	return n, nil
}

func dialNinep(network, addr, aname string) (client, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	d := &deaf{conn}
	c, err := ninep.NewClient(func(c *ninep.Client) error {
		c.FromNet, c.ToNet = d, d
		c.Msize = 8192
		c.Trace = func(string, ...any) {} // it calls Trace without looking
		return nil
	})
	if err != nil {
		return nil, err
	}
	n := &ninepClient{conn: d, c: c, root: c.GetFID()}
	msize, version, err := c.CallTversion(8192, "9P2000")
	if err == nil && (version != "9P2000" || msize != 8192) {
		err = fmt.Errorf("asked for 9P2000 and 8192, was granted %s and %d", version, msize)
	}
	if err == nil {
		_, err = c.CallTattach(n.root, ninep.NOFID, "harvey", aname)
	}
	return n, err
}

func (c *ninepClient) walk(p string) (ninep.FID, error) {
	var names []string
	if p != "" && p != "." {
		names = strings.Split(p, "/")
	}
	fid := c.c.GetFID()
	qids, err := c.c.CallTwalk(c.root, fid, names)
	if err == nil && len(qids) != len(names) {
		err = fmt.Errorf("walked %d of %q", len(qids), names)
	}
	return fid, err
}

func (c *ninepClient) open(p string, mode ninep.Mode) (ninep.FID, error) {
	fid, err := c.walk(p)
	if err != nil {
		return 0, err
	}
	if _, _, err = c.c.CallTopen(fid, mode); err != nil {
		c.c.CallTclunk(fid)
	}
	return fid, err
}

func (c *ninepClient) read(p string) (string, error) {
	fid, err := c.open(p, ninep.OREAD)
	if err != nil {
		return "", err
	}
	defer c.c.CallTclunk(fid)
	var all []byte
	for {
		b, err := c.c.CallTread(fid, ninep.Offset(len(all)), 4096)
		if err != nil || len(b) == 0 {
			return string(all), err
		}
		all = append(all, b...)
	}
}

func (c *ninepClient) list(dir string) ([]string, error) {
	data, err := c.read(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for b := bytes.NewBufferString(data); b.Len() > 0; {
		d, err := ninep.Unmarshaldir(b)
		if err != nil && err != io.EOF {
			return names, err
		}
		names = append(names, d.Name)
	}
	return names, nil
}

// put writes pieces and clunks; each goes to the end of the one before.
func (c *ninepClient) put(fid ninep.FID, value string) error {
	off := 0
	for _, piece := range pieces(value, 4096) {
		n, err := c.c.CallTwrite(fid, ninep.Offset(off), []byte(piece))
		if err == nil && int(n) != len(piece) {
			err = io.ErrShortWrite
		}
		if err != nil {
			c.c.CallTclunk(fid)
			return err
		}
		off += len(piece)
	}
	return c.c.CallTclunk(fid)
}

func (c *ninepClient) write(p, value string) error {
	fid, err := c.open(p, ninep.OWRITE|ninep.OTRUNC)
	if err != nil {
		return err
	}
	return c.put(fid, value)
}

func (c *ninepClient) make(p string, perm ninep.Perm) (ninep.FID, error) {
	fid, err := c.walk(path.Dir(p))
	if err != nil {
		return 0, err
	}
	if _, _, err = c.c.CallTcreate(fid, path.Base(p), perm, ninep.OWRITE); err != nil {
		c.c.CallTclunk(fid)
	}
	return fid, err
}

func (c *ninepClient) create(p, value string) error {
	fid, err := c.make(p, 0o600)
	if err != nil {
		return err
	}
	return c.put(fid, value)
}

func (c *ninepClient) remove(p string) error {
	fid, err := c.walk(p)
	if err != nil {
		return err
	}
	return c.c.CallTremove(fid)
}

func (c *ninepClient) stat(p string) (info, error) {
	fid, err := c.walk(p)
	if err != nil {
		return info{}, err
	}
	defer c.c.CallTclunk(fid)
	b, err := c.c.CallTstat(fid)
	if err != nil {
		return info{}, err
	}
	d, err := ninep.Unmarshaldir(bytes.NewBuffer(b))
	return info{d.Name, d.Length, d.Mode&ninep.DMDIR != 0}, err
}

func (c *ninepClient) wstat(p string, change func(*ninep.Dir)) error {
	fid, err := c.walk(p)
	if err != nil {
		return err
	}
	defer c.c.CallTclunk(fid)
	all := ^uint32(0)
	d := ninep.Dir{
		Type: ^uint16(0), Dev: all, QID: ninep.QID{Type: ^uint8(0), Version: all, Path: ^uint64(0)},
		Mode: all, Atime: all, Mtime: all, Length: ^uint64(0),
	}
	change(&d)
	var b bytes.Buffer
	ninep.Marshaldir(&b, d)
	return c.c.CallTwstat(fid, b.Bytes())
}

func (c *ninepClient) rename(p, name string) error {
	return c.wstat(p, func(d *ninep.Dir) { d.Name = name })
}

func (c *ninepClient) truncate(p string, length uint64) error {
	return c.wstat(p, func(d *ninep.Dir) { d.Length = length })
}

func (c *ninepClient) appendTo(p string, pieces ...string) error {
	fid, err := c.make(p, ninep.DMAPPEND|0o600)
	if err != nil {
		return err
	}
	defer c.c.CallTclunk(fid)
	for _, piece := range pieces {
		if _, err := c.c.CallTwrite(fid, 0, []byte(piece)); err != nil {
			return err
		}
	}
	return nil
}

func (c *ninepClient) close() { c.conn.Close() }
