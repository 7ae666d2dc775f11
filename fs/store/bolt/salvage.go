package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"meta9/fs/store"
)

// salvage makes a new data file of what is whole in a damaged one, which it sets aside.
// It leaves a file alone whose structure is sound: damaged records are the store's.
func (e *Engine) salvage() error {
	info, err := e.data.Stat()
	if err != nil {
		return err
	}
	r, err := newReader(e.data, info.Size())
	if err != nil {
		return fmt.Errorf("%w; nothing can be salvaged, restore a backup", err)
	}
	r.all, r.anySum = true, true
	nothing := func(_, _ []byte) error { return nil }
	if err := errors.Join(r.readRoot(), r.walk(nothing)); err != nil || len(r.found) == 0 && r.lost() == 0 {
		return err
	}
	damage := r.report()
	kept, err := rebuild(r, e.path+".new")
	if err == nil && kept == 0 {
		err = errors.Join(damage, errors.New("nothing can be salvaged, restore a backup"), os.Remove(e.path+".new"))
	}
	if err != nil {
		return err
	}
	if err := errors.Join(setAside(e.path), os.Rename(e.path+".new", e.path), store.SyncDir(filepath.Dir(e.path))); err != nil {
		return err
	}
	e.remarks = append(e.remarks, fmt.Sprintf("%s: %v; the %d records that were whole are in a new file, the old one is %s.damaged", e.path, damage, kept, FileName))
	_ = e.data.Close()
	e.data, err = openLocked(e.path, false, e.o.Timeout)
	return err
}

// rebuild writes all that is whole to a new data file, and says how many records it is:
// what the tree leads to, and what it does not lead to any more, but would if a page
// above were whole.
func rebuild(r *reader, name string) (kept uint64, err error) {
	db, err := createFile(name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const most = 4 << 20 // bytes in one transaction
	var w writer
	size := 0
	commit := func() error {
		if err := errors.Join(w.SetSequence(r.main.sequence), w.putSum()); err != nil {
			return err
		}
		size = 0
		return w.Tx().Commit()
	}
	put := func(key, value []byte) error {
		if w.Bucket == nil || size > most {
			if w.Bucket != nil {
				if err := commit(); err != nil {
					return err
				}
			}
			tx, err := db.Begin(true)
			if err != nil {
				return err
			}
			w.Bucket = tx.Bucket(bucket)
		}
		size += len(value)
		return w.put(key, bytes.Clone(value), "")
	}
	defer func() {
		if w.Bucket != nil && err != nil {
			_ = w.Tx().Rollback()
		}
	}()
	r.found, r.more = nil, 0
	if err := r.walk(put); err != nil {
		return 0, err
	}
	if err := r.strays(func(key, value []byte) error {
		if !store.Whole(key, value) || w.Bucket != nil && w.Get(key) != nil {
			return nil
		}
		return put(key, value)
	}); err != nil || w.Bucket == nil {
		return 0, err
	}
	return w.count, commit()
}

// strays gives the elements of all whole leaves that walk has not given and that are
// not free. Without a list of free pages there are none, since old ones are among them.
func (r *reader) strays(fn func(key, value []byte) error) error {
	if !r.freeRead {
		return nil
	}
	for id := uint64(firstPage); id < r.pages; id++ {
		if r.given.has(id) || r.free.has(id) {
			continue
		}
		p, err := r.page(id, 0)
		if err != nil || p.kind != leafPage || p.check(nil, nil) != nil {
			continue
		}
		for i := range p.count {
			flags, key, value := p.leaf(i)
			if flags != 0 {
				continue
			}
			if err := fn(key, value); err != nil {
				return err
			}
		}
		id += p.takes(r.pageSize) - 1
	}
	return nil
}

// createFile makes a data file without any keys, and with an identity of its own. It is
// locked.
func createFile(name string) (*bbolt.DB, error) {
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{OpenFile: openNew, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = makeBucket(db)
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err := makeID(tx)
			return err
		})
	}
	if err = errors.Join(err, db.Sync()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}
