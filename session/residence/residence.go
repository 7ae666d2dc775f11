// Package residence keeps sessions over a planned restart of the daemon: in one file,
// which is written when it stops and read, once, when it starts.
//
// # Why no session is resumed twice, or as it was at another time
//
// A session that is restored must be as its client left it, or the client's fids would
// stand for other files than it thinks. So the file says which data folder it belongs
// to, and which was the newest batch that the folder had then (Home): where the folder
// has another one now, somebody has served it since. It is deleted, durably, after all
// is restored and before the first client is served: deleted earlier, a start that is
// killed loses the sessions; later, the start after it finds them as they were before.
//
// A file that cannot be used is never deleted. It gets another name (setAside), and the
// daemon says why. It holds the keys of the sessions, and whoever has one can take the
// session over: it is only its owner's to read (mode 0600), and a file that others could
// have read or written is not used.
//
// # The form
//
//	magic               "meta9 residence 1\n"
//	records             size[4] kind[1] body's CRC32C[4] head's CRC32C[4] body[size]
//
// Numbers are little-endian; the head's checksum is over the nine bytes before it. A
// record whose body is damaged costs that record; one whose head is, the rest of the
// file. The kinds, in this order:
//
//	h  Home, as JSON
//	t  the tail of a ring of events: what open event files have not read (store.Tail)
//	s  a session: uvarint length of the JSON, a State as JSON without its kept replies,
//	   and these: uvarint number, uvarint length, the frame
//	e  the end: uvarint count of the records before it
//
// What is handed over to a new program in the same process (HandOver) has, before the end,
//
//	x  bytes of the caller's
//	c  a connection: as s, with a connForm for the State
//
// A Home, a file and a Server belong to one caller at a time.
package residence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"syscall"
	"time"

	tree "meta9/fs"
	"meta9/fs/store"
	"meta9/session"
)

// FileName is the file's name in the data folder.
const FileName = "residence"

// Home is what a residence belongs to: a data folder, at one moment.
type Home struct {
	Folder [16]byte // the folder's identity
	Number uint64   // of its newest batch
}

// Report says what was restored from a file or a journal, and what was not.
type Report struct {
	Found    bool   // there was one
	Sessions int    // how many were restored
	Receipts int    // of a journal: requests under way that were done
	Doubtful int    // of a journal: requests under way that get an error
	Lost     int    // sessions and rings' tails that could not be restored; all that follows a damaged head counts as one
	Why      string // of the first that was lost, or of the whole file; "" if all is well
	Refused  bool   // nothing of it was looked at: it is not this folder's, or not to be trusted
	Aside    string // the name that the file has now, if it could not be used as a whole
}

// Add counts what became of another file as well. Why and Aside stay.
func (r *Report) Add(o Report) {
	r.Sessions, r.Lost = r.Sessions+o.Sessions, r.Lost+o.Lost
	r.Receipts, r.Doubtful = r.Receipts+o.Receipts, r.Doubtful+o.Doubtful
}

// Save writes into dir the sessions of a frozen server, and the events that their readers
// have not read yet. The store must have been stopped. It returns how many sessions are in
// the file, and how many are lost because they are too large. Without sessions there is no
// file. After an error there is no file either, and all are lost.
func Save(dir string, home Home, srv *session.Server, t *tree.Tree) (kept, lost int, err error) {
	path := filepath.Join(dir, FileName)
	readers := make(map[uint64]uint64)
	for st := range srv.States() {
		st.Readers(readers)
		kept++
	}
	if kept == 0 {
		return 0, 0, nil
	}
	err = writeFile(path, func(w *writer) error {
		if lost, err = w.sessions(home, t, readers, srv.States()); err != nil {
			return err
		}
		return w.end()
	})
	return kept - lost, lost, err
}

// sessions writes the home, the tails of rings and the sessions, and returns how many were
// too large.
func (w *writer) sessions(home Home, t *tree.Tree, readers map[uint64]uint64, all iter.Seq[session.State]) (lost int, err error) {
	if err := w.home(home); err != nil {
		return 0, err
	}
	if err := t.Tails(readers, w.tail); err != nil {
		return 0, err
	}
	for st := range all {
		switch err := w.session(st); {
		case err == errTooLarge:
			lost++
		case err != nil:
			return lost, err
		}
	}
	return lost, nil
}

// Load restores what Save has written. Then it calls restored, in any case, and after that
// deletes the file. Call it before the first connection is served. An error means that the
// file is still there; then nobody may be served, because the next start would restore the
// sessions a second time.
func Load(dir string, home Home, srv *session.Server, t *tree.Tree, restored func(*Report) error) (r Report, err error) {
	path := filepath.Join(dir, FileName)
	switch _, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return r, restored(&r)
	case err != nil:
		return r, err
	}
	r.Found = true
	if err := r.readFile(path, home, func(rec any) error { return r.restore(rec, srv, t) }); err != nil {
		r.lost(err)
	}
	if err := restored(&r); err != nil {
		return r, err
	}
	if r.Why != "" {
		r.Aside, err = setAside(path)
		return r, err
	}
	if err := os.Remove(path); err != nil {
		return r, err
	}
	return r, store.SyncDir(dir)
}

func (r *Report) lost(why error) {
	if r.Lost++; r.Why == "" {
		r.Why = why.Error()
	}
}

// setAside renames the file to a name that contains the time and is not in use.
func setAside(path string) (string, error) {
	name := path + ".aside-" + time.Now().UTC().Format("20060102T150405")
	to := name
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s-%d", name, i)
	}
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	return to, store.SyncDir(filepath.Dir(path))
}

// open opens the file, and checks that it may be used.
func open(path string) (*os.File, error) {
	// O_NONBLOCK: if it is a fifo, open would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.New("it is a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	if err := usable(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// usable says why the file may not be used.
func usable(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("user %d owns it, not meta9d's user %d", st.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("its mode is %#o: others may have read or changed it", info.Mode().Perm())
	}
	return nil
}

// writeFile writes the file under a temporary name, syncs it, and then renames it.
func writeFile(path string, write func(*writer) error) (err error) {
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(name) // err is what the caller needs to know
		}
	}()
	w := newWriter(f)
	err = write(w)
	if err == nil {
		err = w.out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	return store.SyncDir(filepath.Dir(path))
}

// readFile is read, of a file by its path.
func (r *Report) readFile(path string, home Home, take func(rec any) error) error {
	r.Refused = true // until read says that it is not
	f, err := open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return r.read(f, info.Size(), home, take)
}

// read gives the records of a file of size bytes, in order, to take, and counts those that
// are lost: that are damaged, or that take refuses. A nil error says that the file has its
// end, and belongs to this home.
func (r *Report) read(from io.Reader, size int64, home Home, take func(rec any) error) error {
	in, err := newReader(from, size)
	if err == nil {
		err = in.home(home)
	}
	if r.Refused = err != nil; r.Refused {
		return err
	}
	return in.each(take, r.lost)
}

// homeForm is Home as JSON.
type homeForm struct {
	Folder  []byte `json:"folder"`
	Number  uint64 `json:"number"`
	Written string `json:"written"` // for a person who looks into the file
}

func (h *Home) form() ([]byte, error) {
	return json.Marshal(homeForm{h.Folder[:], h.Number, time.Now().UTC().Format(time.RFC3339)})
}

// check compares a Home that was written with this one, and returns what is different.
func (h *Home) check(text []byte) error {
	var was homeForm
	if err := json.Unmarshal(text, &was); err != nil {
		return fmt.Errorf("what it belongs to is not readable: %w", err)
	}
	switch {
	case string(was.Folder) != string(h.Folder[:]):
		return errors.New("it belongs to another data folder")
	case was.Number != h.Number:
		return fmt.Errorf("it is of change %d of the data folder, which has %d now: it was served or put back since", was.Number, h.Number)
	}
	return nil
}
