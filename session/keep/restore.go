package keep

import (
	"errors"
	"maps"
	"slices"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// lastRoot is the highest fid that the keeper needs for a moment in a new session, one
// for each way the client has attached; Linux counts up from 0.
const lastRoot uint32 = wire.NoFid - 3

// restore gets the client's fids again in a new session, and tells how many could
// not be had. The error is for another try: the transport was lost, or the server
// has a trouble that may pass. While it runs, nothing is sent and nothing comes, so
// that nobody else uses the fids.
func (k *Keeper) restore(t *redial.Talk) (stale int, err error) {
	r := restorer{Talk: t, roots: make(map[attach]redial.Root)}
	for _, num := range slices.Sorted(maps.Keys(k.byNum)) {
		f := k.byNum[num]
		if !f.stale {
			f.Held = k.holds(num, f)
			if err := r.restore(num, f); err != nil {
				return 0, err
			}
		}
		if f.stale {
			stale++
		}
	}
	k.answer(k.refuseQueued(stale > 0))
	return stale, r.done()
}

// restorer makes fids. Each attach is made once more, to walk from.
type restorer struct {
	*redial.Talk
	roots map[attach]redial.Root
}

// restore makes one fid what it was, or stale.
func (r *restorer) restore(num uint32, f *fid) error {
	root, err := r.root(f.attach)
	made := false
	if err == nil {
		_, made, err = f.Restore(r.Ask, r.Dialect, root, num)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errs.Stale):
	case !redial.IsRefusal(err), errors.Is(err, errs.Busy), errors.Is(err, errs.IO):
		return err
	}
	f.stale = true
	if made {
		err = r.clunk(num) // whatever it is by now, it is not that file
	}
	return err
}

// clunk frees a fid, if it is there at all.
func (r *restorer) clunk(num uint32) error {
	_, err := r.Ask(&wire.Msg{Type: wire.Tclunk, Fid: num})
	if redial.IsRefusal(err) {
		return nil
	}
	return err
}

// root is a fid of an attach.
func (r *restorer) root(a attach) (redial.Root, error) {
	if root, ok := r.roots[a]; ok {
		return root, nil
	}
	num := lastRoot - uint32(len(r.roots))
	reply, err := r.Ask(&wire.Msg{
		Type: wire.Tattach, Fid: num, Afid: wire.NoFid, Uname: a.uname, Aname: a.aname, NUname: a.nuname,
	})
	if err != nil {
		return redial.Root{}, err
	}
	root := redial.Root{Fid: num, QID: reply.QID}
	r.roots[a] = root
	return root, nil
}

// done gives the fids back that were only to walk from.
func (r *restorer) done() error {
	for _, root := range r.roots {
		if err := r.clunk(root.Fid); err != nil {
			return err
		}
	}
	return nil
}
