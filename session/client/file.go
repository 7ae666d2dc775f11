package client

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// closeTime is how long File.Close waits for its answer.
const closeTime = 5 * time.Second

// File is an open file. Any number of goroutines may use it.
//
// It outlives the transport. When the server has kept the session the File is as it was.
// Otherwise it is opened again by its path, without truncation or creation and only if the
// same file (qid.path) is there. It fails with errs.Stale for good when that is not
// possible: the file is gone; it is a stream whose bytes come only once (qid.version 0, as
// events and ctl have); or it was truncated and nothing was written since.
type File struct {
	c    *Client
	path string

	lock   chan struct{} // guards what follows: a mutex whose wait ends with a context
	file   redial.File   // how it is restored
	open   opening
	failed error // why it cannot be used any more
}

// opening is an open fid in the sessions of one epoch.
type opening struct {
	fid   uint32
	epoch uint64
	qid   p9.QID
	most  int // bytes in one read or write
}

// Open opens a file for reading.
func (c *Client) Open(ctx context.Context, path string) (*File, error) {
	return c.OpenFile(ctx, path, os.O_RDONLY)
}

// OpenFile opens a file with os.O_RDONLY, O_WRONLY or O_RDWR, and O_TRUNC and O_CREATE
// (mode 0600). Other flags are errs.Invalid.
func (c *Client) OpenFile(ctx context.Context, path string, flag int) (*File, error) {
	f := &File{c: c, path: path, file: redial.File{Path: splitPath(path)}, lock: make(chan struct{}, 1)}
	mode, err := openMode(flag)
	if err == nil {
		err = c.do(ctx, func(s *session) error { return f.start(ctx, s, mode, flag&os.O_CREATE != 0) })
	}
	if err != nil {
		return nil, wrap("open", path, err)
	}
	return f, nil
}

// openMode is Topen's mode for the flags of package os.
func openMode(flag int) (mode uint8, err error) {
	if flag&^(os.O_WRONLY|os.O_RDWR|os.O_TRUNC|os.O_CREATE) != 0 {
		return 0, errs.New(errs.Invalid, "no such way to open a file in 9P2000")
	}
	switch {
	case flag&os.O_RDWR != 0:
		mode = wire.ORdWr
	case flag&os.O_WRONLY != 0:
		mode = wire.OWrite
	}
	if flag&os.O_TRUNC != 0 {
		mode |= wire.OTrunc
	}
	return mode, nil
}

// start opens f for the first time.
func (f *File) start(ctx context.Context, s *session, mode uint8, create bool) error {
	names := f.file.Path
	fid, _, err := s.walk(ctx, names)
	switch {
	case create && errors.Is(err, errs.NotFound) && len(names) > 0:
		mode &^= wire.OTrunc
		f.open, err = s.create(ctx, names, mode)
	case err == nil:
		f.open, err = s.open(ctx, fid, mode)
	}
	f.file.QID, f.file.Open, f.file.Flags = f.open.qid, true, uint32(mode&^wire.OTrunc)
	f.file.Held = mode&wire.OTrunc != 0
	return err
}

// use is the open fid in s. It opens the file again if s has another epoch.
func (f *File) use(ctx context.Context, s *session) (opening, error) {
	select {
	case f.lock <- struct{}{}:
		defer func() { <-f.lock }()
	case <-ctx.Done():
		return opening{}, context.Cause(ctx)
	}
	if f.failed == nil && f.open.epoch != s.epoch {
		err := f.restore(ctx, s)
		switch {
		case errors.Is(err, errs.Stale):
			f.failed = err
		case err != nil:
			return opening{}, err
		}
	}
	return f.open, f.failed
}

// restore opens f again in s; errs.Stale: it never can.
func (f *File) restore(ctx context.Context, s *session) error {
	if err := f.file.Lost(s.dialect); err != nil {
		return err
	}
	fid := s.fids.alloc()
	reply, made, err := f.file.Restore(s.ask(ctx), s.dialect, s.root, fid)
	if err != nil {
		if made { // otherwise rpc has released fid
			s.release(fid)
		}
		return err
	}
	s.fids.put(f.open.fid) // its fid went with its epoch
	f.open = s.opening(fid, reply)
	return nil
}

// do runs op with what is open, as Client.do does.
func (f *File) do(ctx context.Context, op func(s *session, o opening) error) error {
	return f.c.do(ctx, func(s *session) error {
		o, err := f.use(ctx, s)
		if err != nil {
			return err
		}
		return op(s, o)
	})
}

// ReadAt is one Tread: at most len(p) bytes from off on, maybe fewer; io.EOF at the
// end. A read that waits, as of events, is flushed when ctx ends. The bytes of a
// stream may be asked for again at the same offset.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, wrap("read", f.path, errs.Invalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	err = f.do(ctx, func(s *session, o opening) error {
		data, err := s.readPart(ctx, o.fid, uint64(off), min(len(p), o.most))
		n = copy(p, data)
		return err
	})
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, wrap("read", f.path, err)
}

// ReadAtMost reads the whole value of a file, as Client.ReadFile does, but no more than most
// bytes of it: of a longer one, or of a server that gives more and more, it is errs.TooLarge.
func (c *Client) ReadAtMost(ctx context.Context, path string, most int64) (data []byte, err error) {
	f, err := c.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, min(most+1, 64<<10))
	for {
		n, err := f.ReadAt(ctx, buf, int64(len(data)))
		data = append(data, buf[:n]...)
		switch {
		case int64(len(data)) > most:
			return nil, wrap("read", path, errs.New(errs.TooLarge, "longer than %d bytes", most))
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

// WriteAt writes p at off and tells how many bytes the server has answered for. A
// Twrite is one splice that a reader sees whole or not at all; more bytes than a
// message takes go in several. With ErrUnknown the bytes after n are in doubt.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, wrap("write", f.path, errs.Invalid)
	}
	for n < len(p) && err == nil {
		err = f.do(ctx, func(s *session, o opening) error {
			written, err := s.writePart(ctx, o.fid, uint64(off)+uint64(n), p[n:n+min(len(p)-n, o.most)])
			n += written
			return err
		})
	}
	if n > 0 {
		f.lock <- struct{}{}
		f.file.Held = false
		<-f.lock
	}
	return n, wrap("write", f.path, err)
}

// Close ends the File. It waits for the server's answer, at most 5 s, only where that
// makes a truncation durable: the File was opened with O_TRUNC, and nothing was written.
func (f *File) Close() error {
	f.lock <- struct{}{}
	defer func() { <-f.lock }()
	over := f.failed
	f.failed = ErrClosed
	switch {
	case errors.Is(over, ErrClosed):
		return wrap("close", f.path, ErrClosed)
	case f.file.Held && over == nil:
		return wrap("close", f.path, f.clunk())
	}
	f.c.release(stray{f.open.fid, f.open.epoch})
	return nil
}

// clunk ends a File with a held truncation; lock is held.
func (f *File) clunk() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return f.c.do(ctx, func(s *session) error {
		if s.epoch != f.open.epoch {
			return errs.New(errs.Stale, "the session was lost, and with it the truncation")
		}
		_, err := s.change(ctx, &wire.Msg{Type: wire.Tclunk, Fid: f.open.fid})
		s.endFid(f.open.fid, err)
		return err
	})
}
