// Package bolt is the embedded engine: a bbolt file in the data folder, and a log
// in front of it.
//
// # Two files
//
// A transaction of bbolt writes and syncs twice. So a batch goes into the log, one
// write and one sync, and is durable then. From there it is taken into the data
// file together with others, by a transaction of bbolt's own, synced as all of them
// (a checkpoint). What the log holds beyond the data file is in memory too, so that
// a Scan sees both; the log itself is read at a start only.
//
// The log has two segments of a fixed size. While one is written, what the other
// held is taken into the data file in the background. When the one is full the other
// is written next, and must have been taken by then: else the batch waits for that.
// So the log is bounded. It is written once as a whole when it is made, so that a
// write to it needs no room. A batch that is large beside a segment, and any batch
// when there is no room for a log, goes into the data file at once, with all that
// the log holds.
//
// # Why a start finds every batch that was acknowledged, and no part of another
//
//  1. A record (log.go) begins at a block of its own and is synced before the next
//     one is written. So a power loss can harm the last record alone, which nobody
//     was told of; its checksum shows it.
//  2. A record names the batch before it (prev), and a data file the newest batch
//     that it holds (the bucket's sequence, part of the transaction). A start takes
//     the records that follow on from the data file, one on from the other. What is
//     left of an older round in a segment does not follow; nor can a value that
//     happens to lie there pretend to, since it would have to know the log's id, which
//     is random and new whenever a log is begun.
//  3. A segment is written anew only when the data file holds all of it. Records that
//     are in both are skipped by their number, so that it does not matter when in a
//     checkpoint the power is lost.
//  4. A record that is damaged later shows as well: one that was written after it is
//     there and does not follow. That is an error, not the end of the log.
//  5. Before the first record of a log, the data file durably says that there is one:
//     the record of the marks is of another format and names the log's id and size
//     (store.LogMark). With it, a log that is missing or another one is an error;
//     without it, whatever the log's file holds means nothing. Versions that know of
//     no log refuse that format. A Close takes all into the data file, and the mark
//     back; so does a start, before a new log is begun.
//
// No room for a record, or for a checkpoint that must come first, refuses the batch
// before anything is acknowledged (errs.NoSpace), and the next batch tries again. A
// start that finds no room for its checkpoint goes on with what the log holds in
// memory. Any other failure of a write or sync is final.
//
// # The data file
//
// bbolt reads its file through a memory map and trusts what it reads there. A
// damaged or truncated file makes it panic or fault; the Engine turns both into
// errors.
//
// An Engine is used as store.Engine says: Scan first, then Apply from one
// goroutine. A checkpoint runs in a goroutine of its own, and whoever else needs
// the data file waits for it.
package bolt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// FileName is the data file in the data folder.
const FileName = "meta9.db"

// mapSize is the address space that is taken at the start. Growing past it maps
// the file anew, which has to wait for open reads.
const mapSize = 1 << 30

// Options change how a folder is opened. Zero fields take the defaults.
type Options struct {
	ReadOnly bool          // for a check: the folder must be there and stays as it is
	Salvage  bool          // of a damaged log, take what comes before the damage
	MaxSize  int64         // bytes of the data file; 0: what the disk has
	Timeout  time.Duration // wait for another process to let go of the file; 1 s
	Segment  int64         // bytes of a segment of the log, a multiple of 4096; 4 MiB, less than 0: no log
}

// Engine is an open data folder.
type Engine struct {
	dir    string
	db     *bbolt.DB
	o      Options
	broken bool   // bbolt panicked while it held its writer's lock, perhaps
	failed error  // final
	lost   string // what Salvage skipped
	noLog  bool   // there was no room for one

	file   inode      // the data file's
	number uint64     // of the newest batch that is durable
	log    *logFile   // nil: none is begun
	fresh  overlay    // what the log's segment holds beyond the data file
	old    overlay    // what the other one does, or a log that a start could not take
	taking chan error // old is being taken; nil: it is not
}

var (
	_ store.Engine = (*Engine)(nil)
	_ store.Looker = (*Engine)(nil)
)

// bucket is the one that holds all keys.
var bucket = []byte("meta9")

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
		if err := makeDir(dir); err != nil {
			return nil, errs.New(errs.IO, "data folder: %v", err)
		}
		if err := makeFile(path); err != nil {
			return nil, openError(path, err)
		}
	}
	e := &Engine{dir: dir, o: o}
	if err := e.open(path); err != nil {
		return nil, openError(path, err)
	}
	if !o.ReadOnly && !e.endedWell() {
		if err := e.reread(path); err != nil {
			return nil, err
		}
	}
	if err := e.replay(); err != nil {
		_ = e.db.Close()
		return nil, openError(filepath.Join(dir, LogName), err)
	}
	return e, nil
}

func openError(path string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) || errors.Is(err, syscall.EWOULDBLOCK) {
		return errs.New(errs.Busy, "%s: in use by another process", path)
	}
	return errs.New(errs.IO, "%s: %v", path, err)
}

func (e *Engine) open(path string) (err error) {
	var file *os.File
	defer func() {
		if e.db == nil && file != nil {
			unlock(file)
		}
	}()
	defer guard(&err)()
	e.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			file = f
			return f, err
		},
		Timeout:         e.o.Timeout,
		ReadOnly:        e.o.ReadOnly,
		MaxSize:         int(e.o.MaxSize),
		FreelistType:    bbolt.FreelistMapType,
		PreLoadFreelist: true,
		InitialMmapSize: mapSize,
		NoStatistics:    true,
	})
	if err != nil || e.o.ReadOnly {
		return err
	}
	if e.file, err = inodeOf(file); err != nil {
		return err
	}
	return errors.Join(makeBucket(e.db), syncDir(filepath.Dir(path)))
}

// endedWell says whether the process before this one has taken its log back, as a Close
// does that had no failure. One without a log leaves no sign.
func (e *Engine) endedWell() (well bool) {
	if _, err := os.Stat(filepath.Join(e.dir, LogName)); err != nil {
		return false
	}
	var err error
	defer guard(&err)()
	err = e.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return nil
		}
		_, _, has := store.CutMark(b.Get(store.MarksKey()))
		well = !has
		return nil
	})
	return well && err == nil
}

// reread opens the data file again with what the disk has of it. The lock is given up
// for that moment; who takes it then is told to Open's caller as ever.
func (e *Engine) reread(path string) error {
	if err := e.db.Close(); err != nil {
		return openError(path, err)
	}
	e.db = nil
	for _, file := range []string{path, filepath.Join(e.dir, LogName)} {
		if err := distrust(file); err != nil {
			return openError(file, err)
		}
	}
	if err := e.open(path); err != nil {
		return openError(path, err)
	}
	return nil
}

// unlock lets go of a file in which bbolt panicked. Its memory map stays, and would
// keep the lock.
func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}

// Scan calls fn for every key in order. Damage to the file's own structure is an
// error; in a file that is open for a check, also such as gets in nobody's way
// until the file is written.
func (e *Engine) Scan(fn func(key, value []byte) error) (err error) {
	e.await()
	if err := warm(e.db.Path()); err != nil {
		return err
	}
	defer guard(&err)()
	return e.db.View(func(tx *bbolt.Tx) error {
		if err := checkPages(tx, e.db.Info().PageSize); err != nil {
			return err
		}
		if err := e.scan(tx.Bucket(bucket), fn); err != nil {
			return err
		}
		if e.db.IsReadOnly() {
			return checkTree(tx)
		}
		return nil
	})
}

// warm reads the file through once. bbolt maps it for random access, so that a
// scan of a file that is not in memory would fetch it page by page; and what the
// disk cannot read is an error here, not a fault.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return errors.Join(err, f.Close())
}

// Number is that of the newest batch, for every VM.
func (e *Engine) Number(string) uint64 { return e.number }

// ID is the folder's own, random and the same for as long as the folder is there. It is
// made if an earlier version has made the folder; call it before the first Apply.
// errs.NoSpace: there is no room for that.
func (e *Engine) ID() (id [16]byte, err error) {
	defer guard(&err)()
	id, err = makeID(e.db)
	switch {
	case err != nil && outOfRoom(err):
		return id, errs.New(errs.NoSpace, "%v", err)
	case err != nil:
		return id, errs.New(errs.IO, "%v", err)
	}
	return id, nil
}

// Lost says what Options.Salvage has skipped of the log; "": nothing.
func (e *Engine) Lost() string { return e.lost }

// Apply makes all groups durable at once: in the log, or in the data file.
func (e *Engine) Apply(groups []store.Group) []error {
	if len(groups) == 0 {
		return nil
	}
	err := e.apply(groups)
	if err == nil {
		e.number = groups[0].Number
		return nil
	}
	if !errors.Is(err, errs.NoSpace) {
		e.failed = err
	}
	return store.AllFailed(groups, err)
}

// Look says whether the paths still lead to the files that are open. What is written
// to a file that was deleted or replaced is gone with this process.
func (e *Engine) Look() error {
	if err := look(e.db.Path(), e.file); err != nil || e.log == nil {
		return err
	}
	return look(e.log.file.Name(), e.log.inode)
}

func look(path string, open inode) error {
	now, err := statInode(unix.AT_FDCWD, path, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errs.New(errs.IO, "%s was deleted or moved away", filepath.Base(path)) // guests need not know where
	case err == nil && now != open:
		return errs.New(errs.IO, "%s was replaced by another file", filepath.Base(path))
	}
	return nil // any other error says nothing about the file
}

// inode is which file a file is, of all that are there.
type inode struct {
	major, minor uint32 // of the device
	number       uint64
}

func inodeOf(f *os.File) (inode, error) { return statInode(int(f.Fd()), "", unix.AT_EMPTY_PATH) }

// statInode asks for no times, as stat(2) would. From Linux 6.13 on a file whose times
// were looked at has its next write stamped to the nanosecond, which changes its inode
// each time: an fdatasync after each write took 60 us more of 140, on ext4.
func statInode(dir int, path string, flags int) (inode, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(dir, path, flags, unix.STATX_INO, &st)
		if err == nil {
			return inode{st.Dev_major, st.Dev_minor, st.Ino}, nil
		}
		if err != unix.EINTR {
			return inode{}, os.NewSyscallError("statx", err)
		}
	}
}

func (e *Engine) apply(groups []store.Group) error {
	if e.poll(); e.failed != nil {
		return e.failed
	}
	if err := e.Look(); err != nil {
		return err
	}
	size, err := sizeOf(groups)
	if err != nil {
		return errs.New(errs.IO, "data file: %v", err)
	}
	if e.log == nil || size > e.log.segment/2 || !markable(groups) {
		return e.direct(groups)
	}
	if !e.log.fits(size) {
		if e.await(); e.failed != nil || e.old.number > 0 {
			return e.direct(groups)
		}
		e.old, e.fresh = e.fresh, overlay{}
		e.log.next()
		e.take()
	}
	wrote, err := e.log.append(groups, groups[0].Number, e.number)
	switch {
	case err == nil:
		e.fresh.add(groups)
		return nil
	case isAny(err, noRoom[:]) && (!wrote || e.log.retract() == nil):
		return errs.New(errs.NoSpace, "the data folder's disk is full: %s", e.said(err))
	}
	return errs.New(errs.IO, "log: %s", e.said(err))
}

// said is what err says, but for where the data folder is: guests are told it, and need
// not know.
func (e *Engine) said(err error) string {
	return strings.ReplaceAll(err.Error(), filepath.Dir(e.db.Path())+string(filepath.Separator), "")
}

// direct makes the groups durable in the data file, in one transaction with all that
// the log holds, and begins a log if there is none. What the groups delete need
// not find room first.
func (e *Engine) direct(groups []store.Group) error {
	if e.await(); e.failed != nil {
		return e.failed
	}
	log := e.log
	if log == nil {
		log = e.newLog()
	}
	begun := false
	err := e.commit(func(b *bbolt.Bucket) (err error) {
		if err := e.putLogged(b); err != nil {
			return err
		}
		for i := range groups {
			for j := range groups[i].Ops {
				op := &groups[i].Ops[j]
				if err := put(b, op.Key, op.Value, op.Tail); err != nil {
					return err
				}
			}
		}
		if begun, err = mark(b, log); err != nil {
			return err
		}
		return b.SetSequence(groups[0].Number)
	})
	if log != nil && (err == nil && !begun || err != nil && e.log == nil) {
		_ = log.file.Close()
		log = nil
	}
	if err != nil {
		return err
	}
	e.old, e.fresh = overlay{}, overlay{}
	if e.log = log; log != nil {
		log.next()
	}
	return nil
}

// commit is a transaction of the data file. The error is NoSpace if the file is as it
// was, else IO and final.
func (e *Engine) commit(fn func(b *bbolt.Bucket) error) error {
	var attempt int
	err := e.update(func(tx *bbolt.Tx) error {
		attempt = tx.ID()
		return fn(tx.Bucket(bucket))
	})
	switch {
	case err == nil:
		return nil
	case outOfRoom(err) && !e.broken && e.before(attempt):
		return errs.New(errs.NoSpace, "the data folder's disk is full: %s", e.said(err))
	}
	return errs.New(errs.IO, "data file: %s", e.said(err))
}

// update is Update, in which a panic is an error after which bbolt must not be
// touched: it may still hold its lock.
func (e *Engine) update(fn func(tx *bbolt.Tx) error) (err error) {
	e.broken = true
	defer guard(&err)()
	err = e.db.Update(fn)
	e.broken = false
	return err
}

// put writes one key; a nil value deletes it.
func put(b *bbolt.Bucket, key, value []byte, tail string) error {
	var err error
	switch {
	case value == nil:
		err = b.Delete(key)
	case tail == "":
		err = b.Put(key, value)
	default:
		whole := make([]byte, 0, len(value)+len(tail))
		err = b.Put(key, append(append(whole, value...), tail...))
	}
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	return nil
}

// before is true when the file still stands before that transaction.
func (e *Engine) before(attempt int) (is bool) {
	var err error
	defer guard(&err)()
	err = e.db.View(func(tx *bbolt.Tx) error {
		is = tx.ID() < attempt
		return nil
	})
	return is && err == nil
}

// Close takes all that the log holds into the data file, so that any version can
// open it, and lets go of both. Without room for that the log keeps what it has.
func (e *Engine) Close() error {
	e.await()
	var err error
	if (e.log != nil || e.old.number > 0) && e.failed == nil && !e.broken && !e.o.ReadOnly {
		if err = e.finish(); errors.Is(err, errs.NoSpace) {
			err = nil
		}
	}
	if e.log != nil {
		err = errors.Join(err, e.log.file.Close())
	}
	if e.broken {
		return err
	}
	return errors.Join(err, e.db.Close())
}
