package session

import (
	"errors"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// handler does what one T-message asks. nil: it has appended its reply or
// entered a request that will; else the error is the reply. m lives as long as
// the call, and the monitor is held all along unless the handler says that it
// gives it up.
type handler func(c *conn, m *wire.Msg) error

// handlers has every T-message of every dialect; wire.Decode has refused what the
// connection's dialect lacks.
var handlers = [256]handler{
	wire.Tversion: tversion,
	wire.Tauth:    tauth,
	wire.Tattach:  tattach,
	wire.Tflush:   tflush,
	wire.Twalk:    ofFile(twalk),
	wire.Topen:    ofFile(topen),
	wire.Tcreate:  ofFile(tcreate),
	wire.Tread:    tread,
	wire.Twrite:   twrite,
	wire.Tclunk:   tclunk,
	wire.Tremove:  tremove,
	wire.Tstat:    ofFile(tstat),
	wire.Twstat:   ofFile(twstat),
	wire.Tsession: tsession,
	wire.Tsread:   ofFile(tsread),
	wire.Tswrite:  ofFile(tswrite),
	wire.Tresume:  tresume,

	wire.Tlopen:       ofFile(tlopen),
	wire.Tlcreate:     ofFile(tlcreate),
	wire.Tgetattr:     ofFile(tgetattr),
	wire.Tsetattr:     ofFile(tsetattr),
	wire.Treaddir:     treaddir,
	wire.Tstatfs:      ofFile(tstatfs),
	wire.Tfsync:       ofFile(tfsync),
	wire.Tlock:        tlock,
	wire.Tgetlock:     tgetlock,
	wire.Trename:      ofFile(trename),
	wire.Trenameat:    ofFile(trenameat),
	wire.Tunlinkat:    ofFile(tunlinkat),
	wire.Tmkdir:       ofFile(tmkdir),
	wire.Tlink:        ofFile(refuseLink),
	wire.Tsymlink:     ofFile(refuseLink),
	wire.Tmknod:       ofFile(refuseLink),
	wire.Treadlink:    ofFile(tunsupported),
	wire.Txattrwalk:   ofFile(tunsupported),
	wire.Txattrcreate: ofFile(tunsupported),
}

// ofFile makes a handler of a function that gets the message's fid too, which is a file or
// folder.
func ofFile(do func(c *conn, f *fid, m *wire.Msg) error) handler {
	return func(c *conn, m *wire.Msg) error {
		f, err := c.sess.file(m.Fid)
		if err != nil {
			return err
		}
		return do(c, f, m)
	}
}

// errTag closes a connection: an error reply under the tag would be its second.
var errTag = errors.New("a tag was used again before its reply")

// handle does one frame, or refuses it with an error. The error that it returns ends
// the connection.
func (c *conn) handle(frame []byte, refuse error) error {
	m, err := c.decode(frame)
	if len(c.waiting) > 0 && m.Type != wire.Tversion && c.waiting[m.Tag] != nil {
		return errTag
	}
	if c.srv.trace.Load() != nil {
		c.traceRequest(m)
	}
	c.seq++
	if c.resuming && m.Type != wire.Tresume && m.Type != wire.Tversion {
		c.refuse(m.Tag, errs.New(errs.Invalid, "Tresume comes right after Rsession"))
		return nil
	}
	c.countRequest(m)
	if err == nil {
		err = refuse
	}
	if err == nil {
		err = c.mayTell(m)
	}
	if err == nil {
		err = c.dispatch(m)
	}
	if mayComeAgain(err) {
		err = c.postpone(m, err)
	}
	if err != nil {
		c.refuse(m.Tag, err)
	}
	c.now = asked{}
	m.Data = nil // it would keep the frame's buffer, for which nobody pays any more
	return nil
}

// refuseFrame does one frame that the VM's account has no room for. It counts like any.
func (c *conn) refuseFrame() error {
	err := c.in.sc.refusal
	var m wire.Msg
	m.Type, m.Tag = c.in.skipFrame()
	if c.waiting[m.Tag] != nil {
		return errTag
	}
	c.seq++
	c.countRequest(&m)
	c.refuse(m.Tag, err)
	c.now = asked{}
	return nil
}

func (c *conn) decode(frame []byte) (*wire.Msg, error) {
	sc := c.in.sc
	if wire.DecodeRead(&sc.read, frame, c.dialect) {
		return &sc.read, nil
	}
	return &sc.msg, wire.Decode(&sc.msg, frame, c.dialect)
}

func (c *conn) dispatch(m *wire.Msg) error {
	h := handlers[m.Type]
	if h == nil {
		return errs.New(errs.Unsupported, "%s is no request", m.Type)
	}
	err := h(c, m)
	c.sess.asked(m)
	return err
}

// tversion begins a session: the old one's changes are awaited, its fids and key
// go (version(5)). It gives the monitor up meanwhile.
func tversion(c *conn, m *wire.Msg) error {
	if m.Msize < wire.MinMsize {
		return errs.New(errs.Invalid, "msize %d, %d is the least", m.Msize, wire.MinMsize)
	}
	tag, msize, asked := m.Tag, m.Msize, m.Version
	if c.resuming {
		c.adopt()
	}
	c.cancelReads()
	c.settle()
	c.srv.parkOrEnd(c.sess, false)
	c.dialect = wire.Negotiate(asked)
	c.msize = min(msize, c.srv.cfg.Limits.Msize)
	who := c.stays()
	if !c.sess.who.Nobody() && who.Nobody() {
		c.expectIdentity()
	}
	c.rebill(who)
	c.begins(c.srv.newSession(who))
	c.sess.dialect, c.sess.foreign = c.dialect, c.foreign()
	c.first = c.seq + 1
	c.answerVersion(tag)
	return nil
}

// tflush is always answered by Rflush, after which nothing follows for the old
// tag (flush(5)): Linux drops the whole mount otherwise. A blocking read is
// cancelled; a change ends, its reply goes out and then Rflush. A tag that does not
// wait has its reply in the buffer already, or never was.
func tflush(c *conn, m *wire.Msg) error {
	old := c.waiting[m.Oldtag]
	if old == nil {
		if c.dialect.Numbered() {
			c.sess.endPauses(m.Oldtag)
		}
		c.empty(wire.Rflush, m.Tag)
		return nil
	}
	if old.cancel != nil {
		old.cancel()
		delete(c.waiting, old.tag)
		c.empty(wire.Rflush, m.Tag)
		return nil
	}
	r := &request{tag: m.Tag}
	c.enter(r)
	c.flushes++
	old.flushes = append(old.flushes, r)
	return nil
}
