package bolt

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"meta9/fs/store"
)

// MakeDir makes a data folder if it is not there, and its name and those of all folders that it had to
// make above it durable.
func MakeDir(dir string) error {
	dir = filepath.Clean(dir)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	var made []string
	for up := dir; ; up = filepath.Dir(up) {
		if _, err := os.Stat(up); err == nil || up == filepath.Dir(up) {
			break
		}
		made = append(made, up)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		if err := store.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

// makeFile makes the data file if it is not there: whole and synced under another
// name first, so that a power loss leaves a whole one or none.
func makeFile(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil // whatever it is, opening it tells
	}
	db, err := createFile(path + ".new")
	if err != nil {
		return err
	}
	return errors.Join(renameNew(path+".new", path), db.Close(), store.SyncDir(filepath.Dir(path)))
}

// openNew opens a file in the making. bbolt locks it, too, but what is left of a start
// that was cut short must be gone before bbolt looks, and what another process is making
// must not.
func openNew(name string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// renameNew gives the file its name, unless another process was faster.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return os.Remove(from)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return os.Rename(from, to) // a file system that cannot refuse
	}
	return err
}

func makeBucket(db *bbolt.DB) error {
	var there bool
	if err := db.View(func(tx *bbolt.Tx) error {
		there = tx.Bucket(bucket) != nil
		return nil
	}); err != nil || there {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(bucket)
		return err
	})
}

// identity is a bucket of its own, so that versions that know of none pass it over.
var identity, identityKey = []byte("identity"), []byte("id")

// readID is the folder's identity, if it has one.
func readID(db *bbolt.DB) (id [16]byte, has bool, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(identity); b != nil {
			has = copy(id[:], b.Get(identityKey)) == len(id)
		}
		return nil
	})
	return id, has, err
}

// makeID makes one.
func makeID(tx *bbolt.Tx) (id [16]byte, err error) {
	_, _ = rand.Read(id[:]) // never fails
	b, err := tx.CreateBucketIfNotExists(identity)
	if err != nil {
		return id, err
	}
	return id, b.Put(identityKey, id[:])
}
