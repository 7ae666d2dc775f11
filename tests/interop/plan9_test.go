package interop

import (
	"io"

	"9fans.net/go/plan9"
	plan9client "9fans.net/go/plan9/client"
)

// plan9Client is 9fans.net/go/plan9/client, Plan 9's own client in Go: 9P2000,
// msize 131072.
type plan9Client struct {
	conn *plan9client.Conn
	fs   *plan9client.Fsys
}

func dialPlan9(network, addr, aname string) (client, error) {
	conn, err := plan9client.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	fs, err := conn.Attach(nil, "root", aname)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &plan9Client{conn, fs}, nil
}

func (c *plan9Client) list(dir string) ([]string, error) {
	f, err := c.fs.Open(dir, plan9.OREAD)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dirs, err := f.Dirreadall()
	var names []string
	for _, d := range dirs {
		names = append(names, d.Name)
	}
	return names, err
}

func (c *plan9Client) read(path string) (string, error) {
	f, err := c.fs.Open(path, plan9.OREAD)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func (c *plan9Client) write(path, value string) error {
	f, err := c.fs.Open(path, plan9.OWRITE|plan9.OTRUNC)
	if err != nil {
		return err
	}
	return writeClose(f, value)
}

func (c *plan9Client) create(path, value string) error {
	f, err := c.fs.Create(path, plan9.OWRITE, 0o600)
	if err != nil {
		return err
	}
	return writeClose(f, value)
}

// writeClose writes a value and closes; the first error counts.
func writeClose(f io.WriteCloser, value string) error {
	_, err := f.Write([]byte(value))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (c *plan9Client) remove(path string) error { return c.fs.Remove(path) }

// change is a stat record that asks for no change.
func (c *plan9Client) change() *plan9.Dir {
	var d plan9.Dir
	d.Null()
	return &d
}

func (c *plan9Client) rename(path, name string) error {
	d := c.change()
	d.Name = name
	return c.fs.Wstat(path, d)
}

func (c *plan9Client) stat(path string) (info, error) {
	d, err := c.fs.Stat(path)
	if err != nil {
		return info{}, err
	}
	return info{d.Name, d.Length, d.Mode&plan9.DMDIR != 0}, nil
}

func (c *plan9Client) truncate(path string, length uint64) error {
	d := c.change()
	d.Length = length
	return c.fs.Wstat(path, d)
}

func (c *plan9Client) appendTo(path string, pieces ...string) error {
	f, err := c.fs.Create(path, plan9.OWRITE, plan9.DMAPPEND|0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range pieces {
		if _, err := f.WriteAt([]byte(p), 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *plan9Client) close() { c.conn.Close() }
