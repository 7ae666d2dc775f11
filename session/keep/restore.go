package keep

import (
	"errors"
	"maps"
	"slices"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// lastRoot is the highest of the fids that the keeper uses during a restore, one for each
// attach of the client's. Linux counts its own up from 0.
const lastRoot uint32 = wire.NoFid - 3

// restore restores the client's fids in a new session. stale is how many could not be
// restored. After an error the Conn tries again: the transport was lost, or the server has
// failed in a way that may pass. While it runs no other request is sent, so that nothing
// else uses the fids.
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
	return stale, r.clunkRoots()
}

// restorer restores fids. It attaches once for each attach of the client's, to walk from
// there.
type restorer struct {
	*redial.Talk
	roots map[attach]redial.Root
}

// restore restores one fid, or marks it as stale.
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
		err = r.clunk(num) // it may be another file by now
	}
	return err
}

// clunk clunks a fid, which need not exist.
func (r *restorer) clunk(num uint32) error {
	_, err := r.Ask(&wire.Msg{Type: wire.Tclunk, Fid: num})
	if redial.IsRefusal(err) {
		return nil
	}
	return err
}

// root is a fid for an attach.
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

// clunkRoots clunks the fids of the attaches.
func (r *restorer) clunkRoots() error {
	for _, root := range r.roots {
		if err := r.clunk(root.Fid); err != nil {
			return err
		}
	}
	return nil
}
