package linear

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
	"meta9/tests/httpunix"
)

// guestTool is a guest's client of the metadata protocol, version 2.
type guestTool struct {
	worker
	conn *mdata.Client
	peer int // the meta9d that answered last; conn dials again by itself
}

func (c *guestTool) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

func (c *guestTool) step() {
	ctx := context.Background()
	if c.conn == nil {
		gen, ok := c.connect(func() (err error) {
			c.conn, err = mdata.Dial(ctx, c.socket(c.vm, "mdata.sock"))
			return err
		}, c.close)
		if !ok {
			c.conn = nil
			return
		}
		c.peer = gen
	}
	key := c.key()
	in := c.in(read, key)
	switch n := c.IntN(10); {
	case n == 0:
		in.kind = forget
	case n < 4:
		in.kind, in.value = put, c.value()
	}
	if in.kind != read && c.one(60) {
		c.abandon(in)
		return
	}
	call := c.h.now()
	var out output
	var err error
	switch in.kind {
	case forget:
		err = c.conn.Delete(ctx, keyName(key))
	case put:
		err = c.conn.Put(ctx, keyName(key), []byte(in.value))
	default:
		var b []byte
		b, err = c.conn.Get(ctx, keyName(key))
		out.value = string(b)
	}
	if in.kind != read && c.gen() != c.peer { // the Client may have sent it twice
		c.h.add(call, c.h.now(), in, output{how: maybe})
	}
	switch {
	case err == nil:
		c.h.add(call, c.h.now(), in, out)
		c.peer = c.gen()
		return
	case in.kind == read && errors.Is(err, errs.NotFound):
		c.h.add(call, c.h.now(), in, output{how: absent})
		return
	case in.kind != read:
		c.h.addOpen(call, c.gen(), in)
	}
	c.close()
	c.conn = nil
}

// abandon sends a request and hangs up.
func (c *guestTool) abandon(in input) {
	gen := c.gen()
	conn, err := net.Dial("unix", c.socket(c.vm, "mdata.sock"))
	if err != nil {
		return
	}
	defer conn.Close()
	if c.gen() != gen {
		return
	}
	c.drops.Add(1)
	code, payload := mdata.Delete, []byte(keyName(in.key))
	if in.kind == put {
		code = mdata.Put
		text := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
		payload = []byte(text(keyName(in.key)) + " " + text(in.value))
	}
	call := c.h.now()
	conn.Write(mdata.AppendFrame(nil, []byte("abcdef01"), code, payload))
	c.h.addOpen(call, gen, in)
}

// monitor is a client of meta9d's own QMP.
type monitor struct {
	worker
	conn net.Conn
	r    *bufio.Reader
	peer int // the meta9d that conn leads to
}

func (c *monitor) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// reply is QMP's, without events.
type reply struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
	Event  string
	QMP    json.RawMessage
}

func (c *monitor) dial() (err error) {
	if c.conn, err = net.Dial("unix", c.qmp); err != nil {
		return err
	}
	c.r = bufio.NewReader(c.conn)
	if _, err := c.next(); err != nil {
		c.conn.Close()
		return err
	}
	_, err = c.execute("qmp_capabilities", nil)
	return err
}

// next is the next message that is no event.
func (c *monitor) next() (r reply, err error) {
	for {
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			return r, err
		}
		r = reply{}
		if err := json.Unmarshal(line, &r); err != nil {
			return r, err
		}
		if r.Event == "" {
			return r, nil
		}
	}
}

func (c *monitor) send(command string, args map[string]any) error {
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.conn.Write(append(b, '\n'))
	return err
}

func (c *monitor) execute(command string, args map[string]any) (reply, error) {
	if err := c.send(command, args); err != nil {
		return reply{}, err
	}
	return c.next()
}

func (c *monitor) step() {
	if c.conn == nil {
		gen, ok := c.connect(c.dial, c.close)
		if !ok {
			c.conn = nil
			return
		}
		c.peer = gen
	}
	key := c.key()
	args := map[string]any{"uuid": uuid(c.vm), "key": keyName(key)}
	in, command := c.in(read, key), "metadata-get"
	switch n := c.IntN(10); {
	case n == 0:
		in.kind, command = remove, "metadata-delete"
	case n < 4:
		in.kind, command = put, "metadata-put"
		in.value = c.value()
		args["value"] = in.value
	}
	call := c.h.now()
	if in.kind != read && c.one(60) { // nobody waits for the answer
		c.drops.Add(1)
		c.send(command, args)
		c.h.addOpen(call, c.peer, in)
		c.close()
		c.conn = nil
		return
	}
	r, err := c.execute(command, args)
	ret := c.h.now()
	switch {
	case err != nil:
		if in.kind != read {
			c.h.addOpen(call, c.peer, in)
		}
		c.close()
		c.conn = nil
	case r.Error != nil && bytes.Contains([]byte(r.Error.Desc), []byte("not found")):
		c.h.add(call, ret, in, output{how: absent})
	case r.Error != nil:
		c.t.Errorf("%s: %s: %+v", c.who, command, *r.Error)
	case in.kind == read:
		var v struct{ Value string }
		if err := json.Unmarshal(r.Return, &v); err != nil {
			c.t.Errorf("%s: %v", c.who, err)
		}
		c.h.add(call, ret, in, output{value: v.Value})
	default:
		c.h.add(call, ret, in, output{})
	}
}

// reader reads a whole VM by vminfod's HTTP API.
type reader struct {
	worker
	http *http.Client
}

func newReader(w worker) *reader {
	return &reader{w, httpunix.Client(filepath.Join(w.srv.Run(), "vminfo.sock"))}
}

func (*guestTool) settle() {}

func (*monitor) settle() {}

func (*reader) settle() {}

func (c *reader) close() { c.http.CloseIdleConnections() }

func (c *reader) step() {
	time.Sleep(time.Millisecond) // others shall have their turn
	c.look(snap)
}

// look reads the VM once.
func (c *reader) look(k kind) {
	call := c.h.now()
	resp, err := c.http.Get("http://localhost/vms/" + uuid(c.vm))
	if err != nil { // meta9d is being killed, or starts
		c.connect(func() error {
			resp, err := c.http.Get("http://localhost/ping")
			if err == nil {
				resp.Body.Close()
			}
			return err
		}, func() {})
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	if resp.StatusCode != http.StatusOK {
		c.t.Errorf("%s: %s: %.200s", c.who, resp.Status, b)
		return
	}
	c.snapshot(k, call, c.h.now(), b)
}
