package session

import (
	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
)

// LockState is a lock of a parked session's fid (9P2000.L.e). In this process a parked
// session keeps its locks; a State carries them to another one. Restore takes them
// there, so that nobody gets them in between where all sessions are restored before
// anybody is served. Where a lock cannot be had, somebody else has it and relies on it:
// the fid must not go on as if it were locked, and answers errs.Stale.
type LockState struct {
	From   uint64 `json:"from"` // the first byte
	To     uint64 `json:"to"`   // the last; ~0 is to the end
	Write  bool   `json:"write,omitempty"`
	Client []byte `json:"client,omitempty"` // client_id and proc_id, as they were given: any bytes
	PID    uint32 `json:"pid"`
}

// lockStates are the locks of a fid.
func (f *fid) lockStates() (list []LockState) {
	if f.locks == nil {
		return nil
	}
	f.locks.mu.Lock()
	defer f.locks.mu.Unlock()
	file := f.locks.files[f.ref.QID().Path]
	if file == nil {
		return nil
	}
	for _, l := range file.held {
		if l.fid == f {
			list = append(list, LockState{From: l.from, To: l.to, Write: l.write, Client: []byte(l.client), PID: l.pid})
		}
	}
	return list
}

// relock takes the locks that a fid of n had. errs.Invalid: these are none.
func (s *Server) relock(n *session, f *fid, states []LockState) error {
	for _, st := range states {
		if st.From > st.To || len(st.Client) > maxClientID || f.handle == nil {
			return errs.New(errs.Invalid, "fid %d has a lock that is none", f.num)
		}
		if f.stale() {
			continue
		}
		f.locks = &s.locks
		l := lock{span: span{st.From, st.To}, write: st.Write, fid: f, sess: n, client: string(st.Client), pid: st.PID}
		if s.locks.set(f.ref.QID().Path, l, lockRange) != p9.LockStatusOK {
			f.condemn()
		}
	}
	return nil
}

// condemn ends what a fid has; it answers errs.Stale until it is clunked.
func (f *fid) condemn() {
	f.drop()
	f.handle = staleHandle(f.flags)
}

// stale tells whether the fid was open and could not be restored.
func (f *fid) stale() bool {
	_, is := f.handle.(staleHandle)
	return is
}

// staleHandle is an open file that could not be restored; it keeps how it was open.
type staleHandle fs.Flags

func (staleHandle) Read([]byte, uint64) (int, error)                   { return 0, errs.Stale }
func (staleHandle) Stat(*fs.Stat) error                                { return errs.Stale }
func (staleHandle) SetStat(_ fs.Change, _ fs.Author, done func(error)) { done(errs.Stale) }
func (staleHandle) Sync(_ fs.Author, done func(error))                 { done(errs.Stale) }
func (staleHandle) Clunk(_ fs.Author, done func(error))                { done(nil) }
func (staleHandle) Drop()                                              {}
func (staleHandle) Write(_ []byte, _ uint64, _ fs.Author, done func(int, error)) {
	done(0, errs.Stale)
}

func (h staleHandle) State() fs.HandleState {
	return fs.HandleState{Flags: fs.Flags(h)}
}
