package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// greetTime is how long a server may take from the first byte to the attach, at
// most.
const greetTime = 10 * time.Second

// session is what a Client shows to be known again by the next server loop.
type session struct {
	key   [wire.KeyLen]byte // all zero: no session
	begun bool              // the server has it
}

// greeting is the talk that makes a transport a link: Tversion, Tsession where
// there is one, else Tauth and Tattach. Nothing else is on the line meanwhile, so
// each message waits for its reply.
type greeting struct {
	*link
	opt  *Options
	keep *session
}

// greet makes conn a link. resumed: the server has the fids as they were. The
// connection is closed on error.
func greet(ctx context.Context, conn net.Conn, opt *Options, keep *session, f *fids) (l *link, resumed bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetTime, errSilent)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	g := greeting{link: newLink(conn, f), opt: opt, keep: keep}
	if err = g.version(); err == nil {
		resumed, err = g.begin()
	}
	if err == nil && !resumed {
		err = g.attach()
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, false, err
	}
	g.keyed = keep.begun
	return g.link, resumed, nil
}

// errSilent is why a greeting ends that took too long.
var errSilent = errors.New("the server is silent")

// version agrees on a dialect: 9P2000.e, or what the server has instead. A server
// that knows no suffix answers "unknown", or an error, and is asked again.
func (g *greeting) version() error {
	for _, offer := range []wire.Dialect{wire.E, wire.Plain} {
		g.dialect, g.msize = wire.None, wire.MaxMsize
		reply, err := g.ask(&wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: g.opt.msize(), Version: offer.String()})
		switch {
		case isAnswer(err):
			continue
		case err != nil:
			return err
		case reply.Version == offer.String():
			return g.agree(offer, reply.Msize)
		case reply.Version == wire.Plain.String():
			return g.agree(wire.Plain, reply.Msize)
		}
	}
	return errs.New(errs.Unsupported, "the server speaks neither %s nor %s", wire.E, wire.Plain)
}

// agree takes the server's choice.
func (g *greeting) agree(d wire.Dialect, msize uint32) error {
	if asked := g.opt.msize(); msize < wire.MinMsize || msize > asked {
		return errs.New(errs.Protocol, "the server's msize is %d, at least %d is needed and %d was asked for", msize, wire.MinMsize, asked)
	}
	g.dialect, g.msize = d, msize
	return nil
}

// begin asks for the session. With a new key that announces it: a server that
// knows who is there refuses, and keeps the key. A key from MUMBLE is only asked
// for when the session was lost, since Tauth sets it, and since a key in vain is
// what a guesser sends.
func (g *greeting) begin() (resumed bool, err error) {
	known := g.keep.begun
	if !g.dialect.Sessions() || g.keep.key == [wire.KeyLen]byte{} || (g.opt.Mumble != "" && !known) {
		return false, nil
	}
	_, err = g.ask(&wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: g.keep.key})
	switch {
	case err == nil:
		return known, nil
	case errors.Is(err, errs.CannotRecover):
		g.keep.begun = true
		return false, nil
	case errors.Is(err, errs.Busy), errors.Is(err, errs.IO):
		return false, err // the session is still there: the next try may get it
	case isAnswer(err):
		g.keep.begun = false
		return false, nil
	}
	return false, err
}

// attach authenticates, if there is something to do it with, and attaches. A
// server that wants no authentication refuses it, and is tried without.
func (g *greeting) attach() error {
	refused := g.authenticate()
	if refused != nil && !isAnswer(refused) {
		return refused
	}
	_, err := g.ask(&wire.Msg{Type: wire.Tattach, Fid: rootFid, Afid: wire.NoFid, Uname: g.opt.User, Aname: g.opt.Aname})
	if err != nil && refused != nil {
		return fmt.Errorf("%w (%w)", refused, err)
	}
	return err
}

// authenticate writes the MUMBLE message, if there is one, to an auth fid. The
// authentication belongs to the connection, so that the fid is no longer needed.
func (g *greeting) authenticate() error {
	if g.opt.Mumble == "" {
		return nil
	}
	afid := g.fids.get()
	defer g.fids.put(afid)
	if _, err := g.ask(&wire.Msg{Type: wire.Tauth, Afid: afid, Uname: g.opt.User, Aname: g.opt.Aname}); err != nil {
		return err
	}
	_, err := g.ask(&wire.Msg{Type: wire.Twrite, Fid: afid, Data: []byte(g.opt.Mumble)})
	g.keep.begun = err == nil
	if _, late := g.ask(&wire.Msg{Type: wire.Tclunk, Fid: afid}); err == nil {
		err = late
	}
	return err
}

// ask sends m and reads its reply, before there are a reader and a writer.
func (g *greeting) ask(m *wire.Msg) (*wire.Msg, error) {
	frame, err := wire.Append(nil, m, g.dialect)
	if err != nil {
		return nil, err
	}
	if _, err := g.conn.Write(frame); err != nil {
		return nil, err
	}
	if frame, err = g.next(); err != nil {
		return nil, err
	}
	reply := new(wire.Msg)
	if err := wire.Decode(reply, frame, g.dialect); err != nil {
		return nil, err
	}
	switch {
	case reply.Tag != m.Tag:
		return nil, errs.New(errs.Protocol, "the server answered %s under tag %d", m.Type, reply.Tag)
	case reply.Type == wire.Rerror:
		return nil, answered(reply)
	case reply.Type != m.Type+1:
		return nil, errs.New(errs.Protocol, "the server answered %s with %s", m.Type, reply.Type)
	}
	return reply, nil
}
