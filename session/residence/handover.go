package residence

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"

	tree "meta9/fs"
	"meta9/fs/store"
	"meta9/session"
)

// HandOver writes into f what Save writes of parked sessions, and all open connections of
// a server whose HandOver has returned. fd gives the descriptor under which the next
// program will have a connection. extras are records of the caller's own.
func HandOver(f *os.File, home Home, srv *session.Server, t *tree.Tree, fd func(net.Conn) (int, error), extras iter.Seq[[]byte]) (lost int, err error) {
	readers := make(map[uint64]uint64)
	for st := range srv.Parked() {
		st.Readers(readers)
	}
	for _, h := range srv.Handed() {
		h.Session.Readers(readers)
	}
	w := newWriter(f)
	if lost, err = w.sessions(home, t, readers, srv.Parked()); err != nil {
		return lost, err
	}
	for b := range extras {
		if err := w.record(kindExtra, b); err != nil {
			return lost, err
		}
	}
	for nc, h := range srv.Handed() {
		n, err := fd(nc)
		if err != nil {
			continue // it was closed
		}
		switch err := w.conn(n, h); {
		case err == errTooLarge:
			lost++
			_ = nc.Close() // the next program does not get it
		case err != nil:
			return lost, err
		}
	}
	if err := w.end(); err != nil {
		return lost, err
	}
	return lost, w.out.Flush()
}

// TakeOver restores what HandOver has written. extra gets the caller's records. conn makes
// a connection from a descriptor; an error of conn loses that connection. serve gets each
// restored connection, with its function run, which starts it; call run only after
// TakeOver has returned.
func TakeOver(f *os.File, home Home, srv *session.Server, t *tree.Tree, extra func([]byte) error, conn func(fd int, h *session.Handed) (net.Conn, error), serve func(nc net.Conn, h *session.Handed, run func(ended func()))) (r Report, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return r, err
	}
	take := func(rec any) error {
		switch rec := rec.(type) {
		case []byte:
			return extra(rec)
		case *connForm:
			nc, err := conn(rec.FD, &rec.Handed)
			if err != nil {
				return fmt.Errorf("a connection: %w", err)
			}
			run, err := srv.Adopt(nc, rec.Handed)
			if err != nil {
				return fmt.Errorf("a connection: %w", err)
			}
			serve(nc, &rec.Handed, run)
			return nil
		}
		return r.restore(rec, srv, t)
	}
	err = r.read(f, size, home, take)
	return r, err
}

// errStrange is the error for a record of a kind that is none of this file's.
var errStrange = errors.New("a record does not belong here")

// restore restores one record that a file may have.
func (r *Report) restore(rec any, srv *session.Server, t *tree.Tree) error {
	switch rec := rec.(type) {
	case *store.Tail:
		return t.Store().RestoreTail(*rec)
	case *session.State:
		if err := srv.Restore(*rec); err != nil {
			return err
		}
		r.Sessions++
		return nil
	}
	return errStrange
}
