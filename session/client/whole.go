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
func (l *link) chunk(iounit uint32) int {
	n := l.msize - ioHeader
	if iounit != 0 {
		n = min(n, iounit)
	}
	return int(n)
}

// readAll opens fid, reads it to its end and releases it: a file's value, or a
// folder's stat records.
func (l *link) readAll(ctx context.Context, fid uint32) (data []byte, err error) {
	o, err := l.open(ctx, fid, wire.ORead)
	if err != nil {
		return nil, err
	}
	defer l.release(fid)
	for {
		part, err := l.readPart(ctx, fid, uint64(len(data)), o.most)
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
func (l *link) readPart(ctx context.Context, fid uint32, off uint64, count int) ([]byte, error) {
	reply, err := l.rpc(ctx, &wire.Msg{Type: wire.Tread, Fid: fid, Offset: off, Count: uint32(count)})
	if err != nil {
		return nil, err
	}
	if len(reply.Data) > count {
		return nil, errs.New(errs.Protocol, "%d bytes were asked for, and %d came", count, len(reply.Data))
	}
	return reply.Data, nil
}

func (l *link) writeFile(ctx context.Context, names []string, data []byte) error {
	if l.dialect.Numbered() && l.macro(names, len(data)) { // LING's Tswrite of 9P2000.e neither truncates nor creates
		reply, err := l.change(ctx, &wire.Msg{Type: wire.Tswrite, Fid: rootFid, Names: names, Data: data})
		switch {
		case err == nil:
			return shortWrite(reply, len(data))
		case !noMacro(err):
			return err
		}
	}
	o, err := l.openWhole(ctx, names)
	if err != nil {
		return err
	}
	if err = l.writeAll(ctx, o, data); err != nil {
		l.release(o.fid)
	} else {
		_, err = l.change(ctx, &wire.Msg{Type: wire.Tclunk, Fid: o.fid})
		l.spent(o.fid, err)
	}
	if isLost(err) { // the truncation has happened: the whole may not be done again
		err = unknown(err)
	}
	return err
}

// openWhole opens a file for a new value, or creates it.
func (l *link) openWhole(ctx context.Context, names []string) (opening, error) {
	fid, _, err := l.walk(ctx, names)
	switch {
	case errors.Is(err, errs.NotFound) && len(names) > 0:
		return l.create(ctx, names, wire.OWrite)
	case err != nil:
		return opening{}, err
	}
	return l.open(ctx, fid, wire.OWrite|wire.OTrunc)
}

// open opens fid, or releases it. One with truncation is a change.
func (l *link) open(ctx context.Context, fid uint32, mode uint8) (opening, error) {
	ask := l.rpc
	if mode&wire.OTrunc != 0 {
		ask = l.change
	}
	reply, err := ask(ctx, &wire.Msg{Type: wire.Topen, Fid: fid, Mode: mode})
	return l.opened(fid, reply, err)
}

// create creates a file and opens it.
func (l *link) create(ctx context.Context, names []string, mode uint8) (opening, error) {
	last := len(names) - 1
	fid, _, err := l.walk(ctx, names[:last])
	if err != nil {
		return opening{}, err
	}
	reply, err := l.change(ctx, &wire.Msg{Type: wire.Tcreate, Fid: fid, Name: names[last], Perm: newMode, Mode: mode})
	return l.opened(fid, reply, err)
}

// opened is what Ropen or Rcreate say of fid; with an error fid is released.
func (l *link) opened(fid uint32, reply *wire.Msg, err error) (opening, error) {
	if err != nil {
		l.release(fid)
		return opening{}, err
	}
	return opening{fid: fid, epoch: l.epoch, qid: reply.QID, most: l.chunk(reply.Iounit)}, nil
}

func (l *link) writeAll(ctx context.Context, o opening, data []byte) error {
	for off := 0; off < len(data); {
		n, err := l.writePart(ctx, o.fid, uint64(off), data[off:min(off+o.most, len(data))])
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// writePart is one Twrite of p, which is not empty.
func (l *link) writePart(ctx context.Context, fid uint32, off uint64, p []byte) (int, error) {
	reply, err := l.change(ctx, &wire.Msg{Type: wire.Twrite, Fid: fid, Offset: off, Data: p})
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
