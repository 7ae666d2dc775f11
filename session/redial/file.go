package redial

import (
	"errors"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/wire"
)

// Ask sends a request and returns its reply; a server's error is a *Refusal.
type Ask func(m *wire.Msg) (*wire.Msg, error)

// Root is the fid of an attach.
type Root struct {
	Fid uint32
	QID p9.QID
}

// Walk walks from root to a new fid, with as many Twalks as names needs. made: fid may
// exist now, also after an error. errs.NotFound: a walk ended before its last name, and qid
// is what the names led to so far.
func Walk(ask Ask, root Root, fid uint32, names []string) (qid p9.QID, made bool, err error) {
	qid = root.QID
	for from := root.Fid; !made || len(names) > 0; from = fid {
		some := names[:min(len(names), wire.MaxWalk)]
		reply, err := ask(&wire.Msg{Type: wire.Twalk, Fid: from, Newfid: fid, Names: some})
		if err != nil {
			return qid, made, err
		}
		made = true // LING's server makes the fid even where the walk ended early
		n := len(reply.QIDs)
		if n > len(some) {
			return qid, made, errs.New(errs.Protocol, "%d qids for %d names", n, len(some))
		}
		if n > 0 {
			qid = reply.QIDs[n-1]
		}
		if n < len(some) {
			return qid, made, errs.NotFound
		}
		names = names[len(some):]
	}
	return qid, made, nil
}

// File is what must be known of a fid to restore it in a new session.
type File struct {
	Path   []string // names from the attach on
	QID    p9.QID
	Open   bool
	Linux  bool   // opened by Tlopen or Tlcreate
	Flags  uint32 // open(2)'s, or a 9P2000 mode; without truncation and creation
	Locked bool   // a lock may be held by it
	Held   bool   // it has truncated its file, and nothing was written since
}

// Lost is errs.Stale when an open file cannot be restored in a new session of a dialect;
// its text says why. The file is a stream (qid.version 0 in dialects with sessions, as
// events and ctl have), whose place is lost with the session; or it had a lock, which
// another client may have had since; or a truncation that was held and not committed.
func (f *File) Lost(d wire.Dialect) error {
	switch {
	case !f.Open:
		return nil
	case f.Held:
		return errs.New(errs.Stale, "the session was lost, and with it the truncation")
	case f.Locked:
		return errs.New(errs.Stale, "the session was lost, and with it the lock")
	case d.Sessions() && f.QID.Version == 0 && f.QID.Type&p9.TypeDir == 0:
		return errs.New(errs.Stale, "the session was lost")
	}
	return nil
}

// Restore walks fid to the file in a new session of a dialect, below root, and opens it
// again as it was, without truncation or creation, if it is the same file (qid.path).
// opened is the reply to the open. made: fid may exist now, also after an error. The error
// is errs.Stale, for good, where the file is Lost, is gone, or another file has its name. A
// *Refusal of another kind is the server's error; any other error is the transport's.
func (f *File) Restore(ask Ask, d wire.Dialect, root Root, fid uint32) (opened *wire.Msg, made bool, err error) {
	if err := f.Lost(d); err != nil {
		return nil, false, err
	}
	qid, made, err := Walk(ask, root, fid, f.Path)
	if err == nil && qid.Path == f.QID.Path && f.Open {
		if opened, err = ask(f.openRequest(fid)); err == nil {
			qid = opened.QID
		}
	}
	switch {
	case errors.Is(err, errs.NotFound):
		err = errs.Stale
	case err == nil && qid.Path != f.QID.Path:
		err = errs.New(errs.Stale, "another file has the name now")
	}
	return opened, made, err
}

// openRequest is the request that opens fid as the file was open.
func (f *File) openRequest(fid uint32) *wire.Msg {
	if !f.Linux {
		return &wire.Msg{Type: wire.Topen, Fid: fid, Mode: uint8(f.Flags)}
	}
	m := &wire.Msg{Type: wire.Tlopen, Fid: fid}
	m.L.Flags = f.Flags
	return m
}
