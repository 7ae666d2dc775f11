package server

import (
	"encoding/json"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/mdbridge/qmp"
)

// conn is one client's connection.
type conn struct {
	srv  *Server
	nc   net.Conn
	in   *counted
	dec  *qmp.Decoder
	root *fs.Ref // only the reading goroutine uses it and view
	view *fs.View

	mu         sync.Mutex // held while writing
	out        []byte
	events     *eventReader  // nil during the negotiation
	closed     bool          // nothing more is written
	readerDone chan struct{} // closed when the reading goroutine ends
	writerDone chan struct{} // closed when the writing goroutine ends; nil: there is none
}

func (s *Server) newConn(nc net.Conn) *conn {
	in := &counted{Reader: nc, account: s.cfg.Budget.Admin()}
	dec := qmp.NewDecoder(in, s.cfg.Limit)
	in.held = dec.Held
	return &conn{srv: s, nc: nc, in: in, dec: dec, readerDone: make(chan struct{})}
}

// serve is the reading goroutine.
func (c *conn) serve() {
	defer c.end()
	c.view = c.srv.cfg.Tree.View(fs.Principal{Admin: true, Bridge: author})
	defer c.view.Close()
	var err error
	if c.root, err = c.view.Attach("", ""); err != nil {
		c.srv.cfg.Log.Error().Err(err).Msg("qmp: the tree has no root")
		return
	}
	if c.write(qmp.AppendGreeting(nil, c.srv.version.json())) != nil {
		return
	}
	for c.next() == nil {
	}
}

// end closes the connection and waits for the goroutine that writes events.
func (c *conn) end() {
	close(c.readerDone)
	_ = c.nc.Close()
	if c.writerDone != nil {
		<-c.writerDone
	}
}

// next reads one command and answers it. The error ends the connection.
func (c *conn) next() error {
	defer c.in.done()
	text, err := c.dec.Next()
	var syntax *qmp.SyntaxError
	switch {
	case err == nil:
		return c.answer(c.execute(text))
	case errors.As(err, &syntax):
		return c.answer(reply{err: generic("%s", syntax.Desc)})
	case err == qmp.ErrTooLarge:
		_ = c.answer(reply{err: generic("%v: %d bytes", err, c.srv.cfg.Limit)})
	case errors.Is(err, errs.Again):
		_ = c.answer(reply{err: generic("%v", err)})
	}
	return err
}

// reply is the answer to a command.
type reply struct {
	ret   any // becomes JSON; nil: an empty object
	err   *qmp.Error
	id    json.RawMessage // nil: there was none, or it could not be read
	sync  bool            // a sentinel goes before it
	after func()          // called when it was sent; may be nil
}

// answer writes a reply, after the events that were there before it.
func (c *conn) answer(r reply) error {
	var b []byte
	if r.sync {
		b = append(b, sentinel)
	}
	ret, err := marshal(r.ret)
	switch {
	case r.err != nil:
		b = qmp.AppendError(b, r.err, r.id)
	case err != nil:
		b = qmp.AppendError(b, generic("%v", err), r.id)
	default:
		b = qmp.AppendReturn(b, ret, r.id)
	}
	if err := c.write(b); err != nil {
		return err
	}
	if r.after != nil {
		r.after()
	}
	return nil
}

// sentinel is the byte before the answer to guest-sync-delimited.
const sentinel = 0xFF

// marshal is what a command returned; an empty object if that is nothing (section
// 2.4.1).
func marshal(v any) ([]byte, error) {
	if v == nil {
		return []byte("{}"), nil
	}
	return qmp.Marshal(v)
}

// write sends the events that are there, and then b: a client gets the event of its own
// change before the answer, as from a QEMU.
func (c *conn) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if c.events != nil {
		c.out, _ = c.events.append(c.out[:0], c.srv.cfg.Now())
		b = append(c.out, b...)
	}
	_, err := c.nc.Write(b)
	return err
}

// negotiated begins the command mode. t was made before the answer was sent, so that the
// client gets the events of all that it does after the answer.
func (c *conn) negotiated(t *eventReader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = t
	c.writerDone = make(chan struct{})
	go c.writeEvents()
}

// writeEvents writes events when they come, and events that were held back when they are
// due.
func (c *conn) writeEvents() {
	defer close(c.writerDone)
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	timer := time.NewTimer(time.Hour) // news says when
	defer timer.Stop()
	for {
		due, cancel := c.writeNews(wake)
		if due > 0 {
			timer.Reset(due)
		}
		select {
		case <-woken:
		case <-timer.C:
		case <-c.readerDone:
			cancel()
			return
		}
		cancel()
	}
}

// writeNews writes the events that are there, and has wake called when there are more.
// due is the time until an event that is held back must be written; 0: none is.
func (c *conn) writeNews(wake func()) (due time.Duration, cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.srv.cfg.Now()
	c.out, due = c.events.append(c.out[:0], now)
	if len(c.out) > 0 && !c.closed {
		if _, err := c.nc.Write(c.out); err != nil {
			_ = c.nc.Close() // the reading goroutine then ends
		}
	}
	if cap(c.out) > keptBuffer {
		c.out = nil
	}
	cancel, ready := c.events.ring.Wait(c.events.rev, wake)
	if ready {
		wake()
	}
	return due, cancel
}

// keptBuffer is how large a buffer an idle connection may keep.
const keptBuffer = 64 << 10

// shutdown writes SHUTDOWN and closes the connection. A write that is stuck, this one or
// an earlier one, ends after lastWriteTime.
func (c *conn) shutdown() {
	_ = c.nc.SetWriteDeadline(time.Now().Add(lastWriteTime))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events != nil && !c.closed {
		b, _ := c.events.append(nil, c.srv.cfg.Now()) // tell may not have come to it yet
		b = c.events.limit.flush(b)                   // events that are held back
		_, _ = c.nc.Write(c.srv.appendShutdown(b))
	}
	c.closed = true
	_ = c.nc.Close()
}

// request is the members of a command (section 2.3).
type request struct {
	execute   string
	arguments map[string]json.RawMessage
	id        json.RawMessage
}

// execute runs one command. Nothing has an effect before all is checked (section
// 5).
func (c *conn) execute(text []byte) reply {
	req, err := parse(text)
	r := reply{err: err, id: req.id}
	if err != nil {
		return r
	}
	cmd, err := c.lookup(req.execute)
	if err != nil {
		r.err = err
		return r
	}
	args, err := cmd.args.check("", req.arguments)
	if err != nil {
		r.err = err
		return r
	}
	var failed error
	if fresh := c.srv.cfg.Fresh; fresh != nil && tellsOfVMs[cmd.name] {
		failed = fresh()
	}
	if failed == nil {
		failed = cmd.run(c, args, &r)
	}
	if failed != nil {
		r.err = failure(failed)
	}
	c.view.Settle()
	c.srv.cfg.Log.Debug().Str("command", cmd.name).Err(asError(r.err)).Msg("qmp")
	return r
}

// asError is nil for a nil *qmp.Error: as an error that would not be nil.
func asError(e *qmp.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// lookup finds a command, as the state of the negotiation allows (section 4). The
// texts are QEMU's (monitor/qmp.c).
func (c *conn) lookup(name string) (*command, *qmp.Error) {
	// Only this goroutine writes tells.
	switch negotiating := c.events == nil; {
	case negotiating && name != qmp.Capabilities:
		return nil, &qmp.Error{Class: qmp.CommandNotFound, Desc: "Expecting capabilities negotiation with '" + qmp.Capabilities + "'"}
	case !negotiating && name == qmp.Capabilities:
		return nil, &qmp.Error{Class: qmp.CommandNotFound, Desc: "Capabilities negotiation is already complete, command ignored"}
	}
	cmd := c.srv.commands[name]
	if cmd == nil {
		return nil, &qmp.Error{Class: qmp.CommandNotFound, Desc: "The command " + name + " has not been found"}
	}
	return cmd, nil
}

// parse takes a command apart. Its errors are QEMU's (qapi/qmp-dispatch.c); the id
// is given back with them where there is one.
func parse(text []byte) (request, *qmp.Error) {
	if text[0] != '{' {
		return request{}, generic("QMP input must be a JSON object")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return request{}, generic("JSON parse error, %v", err)
	}
	req := request{id: members["id"]}
	// Sorted, so that of two things that are wrong it is always the same one.
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch value := members[name]; name {
		case "id":
		case "execute":
			if value[0] != '"' || json.Unmarshal(value, &req.execute) != nil {
				return req, generic("QMP input member 'execute' must be a string")
			}
		case "arguments":
			if value[0] != '{' || json.Unmarshal(value, &req.arguments) != nil {
				return req, generic("QMP input member 'arguments' must be an object")
			}
		default:
			return req, generic("QMP input member '%s' is unexpected", name)
		}
	}
	if _, ok := members["execute"]; !ok {
		return req, generic("QMP input lacks member 'execute'")
	}
	return req, nil
}
