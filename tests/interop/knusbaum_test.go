package interop

import (
	"errors"
	"io"
	"net"

	knusbaum "github.com/knusbaum/go9p/client"
	"github.com/knusbaum/go9p/proto"
)

// knusbaumClient is knusbaum/go9p's client: 9P2000, msize 65536, Tversion with
// tag 0. It clunks behind the caller's back, keeps a fid on every path that was
// ever stat'ed, takes a walk that stopped half way for a whole one, and sends
// the second chunk of a large write to the offset of the first.
type knusbaumClient struct {
	conn net.Conn
	c    *knusbaum.Client
}

func dialKnusbaum(network, addr, aname string) (client, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c, err := knusbaum.NewClient(conn, "glenda", aname)
	return &knusbaumClient{conn, c}, err
}

func (c *knusbaumClient) list(dir string) ([]string, error) {
	stats, err := c.c.Readdir(dir)
	var names []string
	for _, s := range stats {
		names = append(names, s.Name)
	}
	return names, err
}

func (c *knusbaumClient) read(path string) (string, error) {
	f, err := c.c.Open(path, proto.Oread)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func (c *knusbaumClient) write(path, value string) error {
	f, err := c.c.Open(path, proto.Owrite|proto.Otrunc)
	if err != nil {
		return err
	}
	defer f.Close()
	off := int64(0)
	for _, piece := range pieces(value, 32<<10) {
		if _, err := f.WriteAt([]byte(piece), off); err != nil {
			return err
		}
		off += int64(len(piece))
	}
	return nil
}

func (c *knusbaumClient) create(path, value string) error {
	f, err := c.c.Create(path, 0o600)
	if err != nil {
		return err
	}
	f.Close() // its File cannot be written, see kinds
	return c.write(path, value)
}

func (c *knusbaumClient) remove(path string) error { return c.c.Remove(path) }

// change is a stat record that asks for no change.
func (c *knusbaumClient) change() *proto.Stat {
	all := ^uint32(0)
	return &proto.Stat{
		Type: ^uint16(0), Dev: all, Qid: proto.Qid{Qtype: ^uint8(0), Vers: all, Uid: ^uint64(0)},
		Mode: all, Atime: all, Mtime: all, Length: ^uint64(0),
	}
}

func (c *knusbaumClient) rename(path, name string) error {
	s := c.change()
	s.Name = name
	return c.c.WStat(path, s)
}

func (c *knusbaumClient) stat(path string) (info, error) {
	s, err := c.c.Stat(path)
	if err != nil {
		return info{}, err
	}
	return info{s.Name, s.Length, s.Mode&proto.DMDIR != 0}, nil
}

func (c *knusbaumClient) truncate(path string, length uint64) error {
	s := c.change()
	s.Length = length
	return c.c.WStat(path, s)
}

func (c *knusbaumClient) appendTo(string, ...string) error {
	return errors.New("cannot, see kinds")
}

func (c *knusbaumClient) close() { c.conn.Close() }
