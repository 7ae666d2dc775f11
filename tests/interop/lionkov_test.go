package interop

import (
	"errors"
	"io"

	"github.com/lionkov/go9p/p"
	"github.com/lionkov/go9p/p/clnt"
)

// lionkovClient is lionkov/go9p's client, the only one in Go that speaks
// 9P2000.u; msize 8240.
type lionkovClient struct{ c *clnt.Clnt }

func dialLionkov(network, addr, aname string) (client, error) {
	c, err := clnt.Mount(network, addr, aname, 8192, p.OsUsers.Uid2User(0))
	if err != nil {
		return nil, err
	}
	if !c.Dotu {
		c.Unmount()
		return nil, errors.New("9P2000.u was asked for and not granted")
	}
	return &lionkovClient{c}, nil
}

func (c *lionkovClient) list(dir string) ([]string, error) {
	f, err := c.c.FOpen(dir, p.OREAD)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dirs, err := f.Readdir(0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	var names []string
	for _, d := range dirs {
		names = append(names, d.Name)
	}
	return names, err
}

func (c *lionkovClient) read(path string) (string, error) {
	f, err := c.c.FOpen(path, p.OREAD)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// put writes all of value from offset 0 and closes.
func (c *lionkovClient) put(f *clnt.File, value string) error {
	_, err := f.Writen([]byte(value), 0)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (c *lionkovClient) write(path, value string) error {
	f, err := c.c.FOpen(path, p.OWRITE|p.OTRUNC)
	if err != nil {
		return err
	}
	return c.put(f, value)
}

func (c *lionkovClient) create(path, value string) error {
	f, err := c.c.FCreate(path, 0o600, p.OWRITE)
	if err != nil {
		return err
	}
	return c.put(f, value)
}

func (c *lionkovClient) remove(path string) error { return c.c.FRemove(path) }

func (c *lionkovClient) wstat(path string, change func(*p.Dir)) error {
	fid, err := c.c.FWalk(path)
	if err != nil {
		return err
	}
	defer c.c.Clunk(fid)
	d := p.NewWstatDir()
	change(d)
	return c.c.Wstat(fid, d)
}

func (c *lionkovClient) rename(path, name string) error {
	return c.wstat(path, func(d *p.Dir) { d.Name = name })
}

func (c *lionkovClient) stat(path string) (info, error) {
	d, err := c.c.FStat(path)
	if err != nil {
		return info{}, err
	}
	return info{d.Name, d.Length, d.Mode&p.DMDIR != 0}, nil
}

func (c *lionkovClient) truncate(path string, length uint64) error {
	return c.wstat(path, func(d *p.Dir) { d.Length = length })
}

// oAppend is 9P2000.u's open mode for appending.
const oAppend = 0x80

func (c *lionkovClient) appendTo(path string, pieces ...string) error {
	if err := c.create(path, ""); err != nil {
		return err
	}
	f, err := c.c.FOpen(path, p.OWRITE|oAppend)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, piece := range pieces {
		if _, err := f.WriteAt([]byte(piece), 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *lionkovClient) close() { c.c.Unmount() }
