package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// mapSize is the address space in bytes that is taken at the start: growing past it maps
// the file anew, which has to wait for open reads. Where there is not so much (ulimit
// -v), and as much again for all else that grows, the map grows with the file. Of 32 bits
// an eighth is taken.
func mapSize() int {
	const size = 1 << (27 + 3*(^uint(0)>>63))
	m, err := unix.Mmap(-1, 0, 2*size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return 0
	}
	_ = unix.Munmap(m)
	return size
}

// Options change how a folder is opened. Zero fields take the defaults.
type Options struct {
	ReadOnly bool          // for a check: the folder must be there and stays as it is
	Salvage  bool          // of a damaged log, take what comes before the damage
	MaxSize  int64         // bytes of the data file; 0: what the disk has
	Timeout  time.Duration // wait for another process to let go of the file; 1 s
	Segment  int64         // bytes of a segment of the log, a multiple of 4096; 4 MiB, less than 0: no log
}

// Open opens the data folder, and makes it (modes 0700, files 0600) if it is not
// there. errs.Busy: another process has it open; any other error is IO and says
// what is wrong with which file.
func Open(dir string, o Options) (*Engine, error) {
	path := filepath.Join(dir, FileName)
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Segment == 0 {
		o.Segment = defaultSegment
	}
	if !o.ReadOnly {
		if err := MakeDir(dir); err != nil {
			return nil, errs.New(errs.IO, "data folder: %v", err)
		}
		if err := makeFile(path); err != nil {
			return nil, openError(path, err)
		}
	}
	e := &Engine{dir: dir, path: path, o: o}
	if err := e.open(); err != nil {
		e.letGo()
		return nil, openError(path, err)
	}
	if err := e.replay(); err != nil {
		e.letGo()
		return nil, err
	}
	return e, nil
}

func openError(path string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) || errors.Is(err, syscall.EWOULDBLOCK) {
		return errs.New(errs.Busy, "%s: in use by another process", path)
	}
	return errs.New(errs.IO, "%s: %v", path, err)
}

// open locks the data file, and looks at what bbolt reads of it when it opens it: what
// it writes waits for the first Scan, which looks at the rest.
func (e *Engine) open() (err error) {
	if e.data, err = openLocked(e.path, e.o.ReadOnly, e.o.Timeout); err != nil {
		return err
	}
	if e.o.ReadOnly {
		_, err := e.reader()
		return err
	}
	if !e.endedWell() {
		for _, file := range []string{e.path, filepath.Join(e.dir, LogName)} {
			if err := distrust(file); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
		}
	}
	if e.o.Salvage {
		if err := e.salvage(); err != nil {
			return err
		}
	}
	r, err := e.reader()
	if err != nil {
		return err
	}
	if err := r.checkFree(); err != nil {
		return err
	}
	if r.torn != nil {
		e.remarks = append(e.remarks, fmt.Sprintf("%s: %v", e.path, r.torn))
	}
	if err := e.openDB(); err != nil {
		return err
	}
	if e.file, err = inodeOf(e.data); err != nil {
		return err
	}
	return errors.Join(makeBucket(e.db), store.SyncDir(filepath.Dir(e.path)))
}

// endedWell says whether the process before this one has taken its log back, as a Close
// does that had no failure. One without a log leaves no sign.
func (e *Engine) endedWell() bool {
	if _, err := os.Stat(filepath.Join(e.dir, LogName)); err != nil {
		return false
	}
	r, err := e.reader()
	if err != nil {
		return false
	}
	marks, err := r.lookup(store.MarksKey())
	_, _, has := store.CutMark(marks)
	return err == nil && !has
}

// openDB hands the file to bbolt.
func (e *Engine) openDB() (err error) {
	defer guard(&err)()
	e.db, err = bbolt.Open(e.path, 0o600, &bbolt.Options{
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return e.data, nil },
		Timeout:         e.o.Timeout,
		MaxSize:         int(e.o.MaxSize),
		FreelistType:    bbolt.FreelistMapType,
		PreLoadFreelist: true,
		InitialMmapSize: mapSize(),
		NoStatistics:    true,
	})
	return err
}

// reader is one of the data file as it is now.
func (e *Engine) reader() (*reader, error) {
	info, err := e.data.Stat()
	if err != nil {
		return nil, err
	}
	r, err := newReader(e.data, info.Size())
	if err != nil {
		return nil, withAdvice(err)
	}
	r.all, r.anySum = e.o.ReadOnly, e.o.Salvage
	return r, r.readRoot()
}

// withAdvice says what there is to do about damage.
func withAdvice(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; restore a backup, or start with --salvage, which keeps all that is whole", err)
}

// openLocked opens the data file and locks it, as bbolt does.
func openLocked(path string, shared bool, timeout time.Duration) (*os.File, error) {
	flag, how := os.O_RDWR, syscall.LOCK_EX
	if shared {
		flag, how = os.O_RDONLY, syscall.LOCK_SH
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	const pause = 50 * time.Millisecond
	for end := time.Now().Add(timeout); ; time.Sleep(pause) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != syscall.EWOULDBLOCK || !time.Now().Add(pause).Before(end) {
			_ = f.Close()
			return nil, err
		}
	}
}

// letGo closes the file and unlocks it, also where bbolt has panicked: its memory map
// stays then, and would keep the lock.
func (e *Engine) letGo() {
	switch {
	case e.db != nil:
		_ = e.db.Close()
	case e.data != nil:
		_ = syscall.Flock(int(e.data.Fd()), syscall.LOCK_UN)
		_ = e.data.Close()
	}
}
