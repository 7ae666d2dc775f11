package client

import (
	"context"
	"errors"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// ioHeader is what a Twrite has beside its data, in bytes, and a little more, as
// everybody reserves (IOHDRSZ of fcall.h).
const ioHeader = 24

// chunk is how many bytes one read or write may carry; iounit is Ropen's.
func (s *session) chunk(iounit uint32) int {
	n := s.msize - ioHeader
	if iounit != 0 {
		n = min(n, iounit)
	}
	return int(n)
}

// readAll opens fid, reads it to its end and releases it: a file's value, or a
// folder's stat records.
func (s *session) readAll(ctx context.Context, fid uint32) (data []byte, err error) {
	o, err := s.open(ctx, fid, wire.ORead)
	if err != nil {
		return nil, err
	}
	defer s.release(fid)
	for {
		part, err := s.readPart(ctx, fid, uint64(len(data)), o.most)
		switch {
		case err != nil:
			return nil, err
		case len(part) == 0:
			return data, nil
		case len(data)+len(part) > maxWhole:
			return nil, errs.New(errs.TooLarge, "longer than %d bytes", maxWhole)
		}
		data = append(data, part...)
	}
}

// readPart is one Tread. The data are the caller's.
func (s *session) readPart(ctx context.Context, fid uint32, off uint64, count int) ([]byte, error) {
	reply, err := s.rpc(ctx, &wire.Msg{Type: wire.Tread, Fid: fid, Offset: off, Count: uint32(count)})
	if err != nil {
		return nil, err
	}
	if len(reply.Data) > count {
		return nil, errs.New(errs.Protocol, "%d bytes were asked for, and %d came", count, len(reply.Data))
	}
	return reply.Data, nil
}

func (s *session) writeFile(ctx context.Context, names []string, data []byte) error {
	if s.dialect.Numbered() && s.macro(names, len(data)) { // in 9P2000.e, LING's Tswrite neither truncates nor creates
		reply, err := s.change(ctx, &wire.Msg{Type: wire.Tswrite, Fid: rootFid, Names: names, Data: data})
		switch {
		case err == nil:
			return shortWrite(reply, len(data))
		case !noMacro(err):
			return err
		}
	}
	o, err := s.openWhole(ctx, names)
	if err != nil {
		return err
	}
	if err = s.writeAll(ctx, o, data); err != nil {
		s.release(o.fid)
	} else {
		_, err = s.change(ctx, &wire.Msg{Type: wire.Tclunk, Fid: o.fid})
		s.endFid(o.fid, err)
	}
	if isLost(err) { // the truncation has happened, so all of it may not be done again
		err = unknown(err)
	}
	return err
}

// openWhole opens a file for a new value, or creates it.
func (s *session) openWhole(ctx context.Context, names []string) (opening, error) {
	fid, _, err := s.walk(ctx, names)
	switch {
	case errors.Is(err, errs.NotFound) && len(names) > 0:
		return s.create(ctx, names, wire.OWrite)
	case err != nil:
		return opening{}, err
	}
	return s.open(ctx, fid, wire.OWrite|wire.OTrunc)
}

// open opens fid, or releases it. One with truncation is a change.
func (s *session) open(ctx context.Context, fid uint32, mode uint8) (opening, error) {
	ask := s.rpc
	if mode&wire.OTrunc != 0 {
		ask = s.change
	}
	reply, err := ask(ctx, &wire.Msg{Type: wire.Topen, Fid: fid, Mode: mode})
	return s.opened(fid, reply, err)
}

// create creates a file and opens it.
func (s *session) create(ctx context.Context, names []string, mode uint8) (opening, error) {
	last := len(names) - 1
	fid, _, err := s.walk(ctx, names[:last])
	if err != nil {
		return opening{}, err
	}
	reply, err := s.change(ctx, &wire.Msg{Type: wire.Tcreate, Fid: fid, Name: names[last], Perm: newMode, Mode: mode})
	return s.opened(fid, reply, err)
}

// opened is the opening by an Ropen or Rcreate; after an error fid is released.
func (s *session) opened(fid uint32, reply *wire.Msg, err error) (opening, error) {
	if err != nil {
		s.release(fid)
		return opening{}, err
	}
	return s.opening(fid, reply), nil
}

// opening is the opening by a reply to an open or a create.
func (s *session) opening(fid uint32, reply *wire.Msg) opening {
	return opening{fid: fid, epoch: s.epoch, qid: reply.QID, most: s.chunk(reply.Iounit)}
}

func (s *session) writeAll(ctx context.Context, o opening, data []byte) error {
	for off := 0; off < len(data); {
		n, err := s.writePart(ctx, o.fid, uint64(off), data[off:min(off+o.most, len(data))])
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// writePart is one Twrite of p, which is not empty.
func (s *session) writePart(ctx context.Context, fid uint32, off uint64, p []byte) (int, error) {
	reply, err := s.change(ctx, &wire.Msg{Type: wire.Twrite, Fid: fid, Offset: off, Data: p})
	if err != nil {
		return 0, err
	}
	return len(p), shortWrite(reply, len(p))
}

// shortWrite refuses a reply that says that other than n bytes were written: a
// value is whole or an error.
func shortWrite(reply *wire.Msg, n int) error {
	if int64(reply.Count) != int64(n) {
		return errs.New(errs.IO, "%d bytes were to be written, and %d were", n, reply.Count)
	}
	return nil
}
