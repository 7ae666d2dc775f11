package keep

import (
	"errors"
	"maps"
	"slices"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

// Numbers of fids that the keeper needs for a moment in a new session; Linux counts
// up from 0.
const (
	authFid uint32 = 0xfffffffd - iota
	rootFid        // and those below it
)

// restore gets the client's fids again in a new session, and tells how many could
// not be had. The error is for another try: the transport was lost, or the server
// has a trouble that may pass. While it runs, nothing is sent and nothing comes, so
// that nobody else uses the fids.
func (k *Keeper) restore(t *greet.Talk) (stale int, err error) {
	r := restorer{Talk: t, roots: make(map[attach]uint32)}
	for _, num := range slices.Sorted(maps.Keys(k.byNum)) {
		f := k.byNum[num]
		if !f.stale {
			if err := r.restore(num, f); err != nil {
				return 0, err
			}
		}
		if f.stale {
			stale++
		}
	}
	k.mu.Lock()
	k.stale = stale > 0
	k.mu.Unlock()
	return stale, r.done()
}

// restorer makes fids. Each attach is made once more, to walk from.
type restorer struct {
	*greet.Talk
	roots map[attach]uint32
}

// restore makes one fid what it was, or stale.
func (r *restorer) restore(num uint32, f *fid) error {
	if f.open && r.Dialect.Sessions() && f.qid.Version == 0 && f.qid.Type&p9.TypeDir == 0 {
		f.stale = true // a stream (qid.version 0: docs/tree.md), whose place in it nobody knows now
		return nil
	}
	qid, err := r.place(num, f)
	if err == nil && qid.Path == f.qid.Path && f.open {
		qid, err = r.reopen(num, f)
	}
	switch {
	case err != nil && !greet.IsRefusal(err):
		return err
	case errors.Is(err, errs.Busy), errors.Is(err, errs.IO):
		return err
	case err == nil && qid.Path == f.qid.Path:
		return nil
	}
	f.stale = true
	return r.clunk(num) // whatever it is by now, it is not that file
}

// clunk frees a fid, if it is there at all.
func (r *restorer) clunk(num uint32) error {
	_, err := r.Ask(&wire.Msg{Type: wire.Tclunk, Fid: num})
	if greet.IsRefusal(err) {
		return nil
	}
	return err
}

// place makes num the place that f was.
func (r *restorer) place(num uint32, f *fid) (p9.QID, error) {
	if len(f.path) == 0 {
		return r.attach(num, f.attach)
	}
	from, err := r.root(f.attach)
	if err != nil {
		return p9.QID{}, err
	}
	var qid p9.QID
	for names := f.path; len(names) > 0; {
		some := names[:min(len(names), wire.MaxWalk)]
		names = names[len(some):]
		reply, err := r.Ask(&wire.Msg{Type: wire.Twalk, Fid: from, Newfid: num, Names: some})
		switch {
		case err != nil:
			return qid, err
		case len(reply.QIDs) < len(some):
			return qid, &greet.Refusal{Text: errs.NotFound.Text(), Kind: errs.NotFound}
		}
		qid, from = reply.QIDs[len(some)-1], num
	}
	return qid, nil
}

func (r *restorer) attach(num uint32, a attach) (p9.QID, error) {
	reply, err := r.Ask(&wire.Msg{
		Type: wire.Tattach, Fid: num, Afid: wire.NoFid, Uname: a.uname, Aname: a.aname, NUname: a.nuname,
	})
	if err != nil {
		return p9.QID{}, err
	}
	return reply.QID, nil
}

// root is a fid of an attach.
func (r *restorer) root(a attach) (uint32, error) {
	if num, ok := r.roots[a]; ok {
		return num, nil
	}
	num := rootFid - uint32(len(r.roots))
	if _, err := r.attach(num, a); err != nil {
		return num, err
	}
	r.roots[a] = num
	return num, nil
}

// reopen opens the file that num is, as it was open.
func (r *restorer) reopen(num uint32, f *fid) (p9.QID, error) {
	m := wire.Msg{Type: wire.Topen, Fid: num, Mode: uint8(f.flags)}
	if f.linux {
		m = wire.Msg{Type: wire.Tlopen, Fid: num}
		m.L.Flags = f.flags
	}
	reply, err := r.Ask(&m)
	if err != nil {
		return p9.QID{}, err
	}
	return reply.QID, nil
}

// done gives the fids back that were only to walk from.
func (r *restorer) done() error {
	for _, num := range r.roots {
		if err := r.clunk(num); err != nil {
			return err
		}
	}
	return nil
}
