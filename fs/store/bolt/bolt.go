// Package bolt is the embedded engine: one bbolt file in the data folder. Every
// Apply is one transaction, synced before it returns.
//
// bbolt reads its file through a memory map and trusts what it reads there. A
// damaged or truncated file makes it panic or fault; the Engine turns both into
// errors.
//
// An Engine is used as store.Engine says: Scan first, then Apply from one
// goroutine. bbolt has the locks.
package bolt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// FileName is the file in the data folder.
const FileName = "meta9.db"

// mapSize is the address space that is taken at the start. Growing past it maps
// the file anew, which has to wait for open reads.
const mapSize = 1 << 30

// Options change how a file is opened. Zero fields take the defaults.
type Options struct {
	ReadOnly bool          // for a check: the folder must be there and stays as it is
	MaxSize  int64         // bytes of the file; 0: what the disk has
	Timeout  time.Duration // wait for another process to let go of the file; 1 s
}

// Engine is an open file.
type Engine struct {
	db     *bbolt.DB
	broken bool // bbolt panicked while it held its writer's lock, perhaps
}

var _ store.Engine = (*Engine)(nil)

// bucket is the one that holds all keys.
var bucket = []byte("meta9")

// Open opens the file in the data folder, and makes both (modes 0600 and 0700)
// if they are not there. errs.Busy: another process has it open; any other error
// is IO and says what is wrong with the file.
func Open(dir string, o Options) (*Engine, error) {
	if !o.ReadOnly {
		if err := makeDir(dir); err != nil {
			return nil, errs.New(errs.IO, "data folder: %v", err)
		}
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	path := filepath.Join(dir, FileName)
	e := &Engine{}
	if err := e.open(path, o); err != nil {
		if errors.Is(err, berrors.ErrTimeout) {
			return nil, errs.New(errs.Busy, "%s: in use by another process", path)
		}
		return nil, errs.New(errs.IO, "%s: %v", path, err)
	}
	return e, nil
}

func (e *Engine) open(path string, o Options) (err error) {
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
		Timeout:         o.Timeout,
		ReadOnly:        o.ReadOnly,
		MaxSize:         int(o.MaxSize),
		FreelistType:    bbolt.FreelistMapType,
		PreLoadFreelist: true,
		InitialMmapSize: mapSize,
		NoStatistics:    true,
	})
	if err != nil || o.ReadOnly {
		return err
	}
	return errors.Join(e.makeBucket(), syncDir(filepath.Dir(path)))
}

// unlock lets go of a file in which bbolt panicked. Its memory map stays, and would
// keep the lock.
func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}

func (e *Engine) makeBucket() error {
	var there bool
	if err := e.db.View(func(tx *bbolt.Tx) error {
		there = tx.Bucket(bucket) != nil
		return nil
	}); err != nil || there {
		return err
	}
	return e.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(bucket)
		return err
	})
}

// makeDir makes the folder, and its name durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Scan calls fn for every key in order. Damage to the file's own structure is an
// error; in a file that is open for a check, also such as gets in nobody's way
// until the file is written.
func (e *Engine) Scan(fn func(key, value []byte) error) (err error) {
	if err := warm(e.db.Path()); err != nil {
		return err
	}
	defer guard(&err)()
	return e.db.View(func(tx *bbolt.Tx) error {
		if err := checkPages(tx, e.db.Info().PageSize); err != nil {
			return err
		}
		if b := tx.Bucket(bucket); b != nil {
			if err := b.ForEach(fn); err != nil {
				return err
			}
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

// Apply makes all groups durable in one transaction.
func (e *Engine) Apply(groups []store.Group) []error {
	var attempt int
	err := e.update(func(tx *bbolt.Tx) error {
		attempt = tx.ID()
		b := tx.Bucket(bucket)
		for i := range groups {
			if err := put(b, groups[i].Ops); err != nil {
				return err
			}
			if err := b.SetSequence(groups[i].Number); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case outOfRoom(err) && !e.broken && e.before(attempt):
		err = errs.New(errs.NoSpace, "the data folder's disk is full: %v", err)
	default:
		err = errs.New(errs.IO, "data file: %v", err)
	}
	return store.AllFailed(groups, err)
}

// Number is that of the newest transaction, for every VM: the bucket's sequence.
func (e *Engine) Number(string) (number uint64) {
	var err error
	defer guard(&err)()
	_ = e.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucket); b != nil {
			number = b.Sequence()
		}
		return nil
	})
	return number
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

func put(b *bbolt.Bucket, ops []store.Op) error {
	for i := range ops {
		var err error
		if ops[i].Value == nil {
			err = b.Delete(ops[i].Key)
		} else {
			err = b.Put(ops[i].Key, slices.Concat(ops[i].Value, []byte(ops[i].Tail)))
		}
		if err != nil {
			return fmt.Errorf("key %q: %w", ops[i].Key, err)
		}
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

// Close lets go of the file.
func (e *Engine) Close() error {
	if e.broken {
		return nil
	}
	return e.db.Close()
}
