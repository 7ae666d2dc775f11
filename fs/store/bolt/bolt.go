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
//     there and does not follow. That is an error, not the end of the log. For the newest
//     one a file of its own, which is never synced, says that it was acknowledged
//     (acked.go); after a loss of power that file may say less, and never more.
//  5. Before the first record of a log, the data file durably says that there is one:
//     the record of the marks is of another format and names the log's id and size
//     (store.LogMark). With it, a log that is missing or another one is an error;
//     without it, whatever the log's file holds is in the data file. Versions that know
//     of no log refuse that format. A Close takes all into the data file, and the mark
//     back; so does a start, before a new log is begun.
//  6. A batch that went past the log leaves a record without a body, before it is
//     acknowledged. So the log's file has the number of the newest batch, or nearly, and
//     shows when the data file lacks it: that is damage of the page that makes a
//     transaction of bbolt's the newest, which bbolt answers with the one before.
//
// No room for a record, or for a checkpoint that must come first, refuses the batch
// before anything is acknowledged (errs.NoSpace), and the next batch tries again. A
// start that finds no room for its checkpoint goes on with what the log holds in
// memory. Any other failure of a write or sync is final.
//
// # The data file
//
// bbolt reads its file through a memory map and trusts what it reads there: a page
// that leads to itself holds it for ever, and a free page that is in use is written
// over. So the reader (pages.go) goes through the whole file before bbolt writes to it
// for the first time, in the pass of the first Scan: every page is used once or free,
// is of the kind that the page above it expects, and has its elements one behind the
// other, and its keys in their order and between those of its neighbours. What is
// whole and yet old, since the disk lost a write, does not agree with the sum over all
// keys and values (sum.go), which every transaction writes. A damaged file is refused;
// Options.Salvage makes a new one of what is whole (salvage.go). A check never hands
// the file to bbolt.
//
// A file that is damaged while it is open makes bbolt panic or fault; the Engine turns
// both into errors.
//
// An Engine is used as store.Engine says: Scan first, then Apply from one
// goroutine. A checkpoint runs in a goroutine of its own, and whoever else needs
// the data file waits for it.
package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// FileName is the data file in the data folder.
const FileName = "meta9.db"

// Engine is an open data folder.
type Engine struct {
	dir     string
	path    string
	data    *os.File  // the data file, which is locked
	db      *bbolt.DB // nil: it is open for a check
	o       Options
	broken  bool     // bbolt panicked while it held its writer's lock, perhaps
	failed  error    // final
	checked bool     // all of the data file was looked at and found sound
	remarks []string // for the operator
	noLog   bool     // there was no room for one

	file   inode      // the data file's
	tally  tally      // what its keys and values come to
	number uint64     // of the newest batch that is durable
	left   *leftLog   // what an earlier process has left, until it is taken
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

// Scan calls fn for every key in order. It looks at the whole structure of the data
// file, and damage there is an error: the first that is found, or, in a file that is
// open for a check, all, with fn called for what is whole. What an earlier process has
// left in the log is taken into the data file after the first Scan that finds none.
func (e *Engine) Scan(fn func(key, value []byte) error) error {
	e.await()
	r, err := e.reader()
	if err != nil {
		return err
	}
	r.warm(int(e.data.Fd()))
	var told error
	err = e.scan(r, func(key, value []byte) error {
		told = fn(key, value)
		return told
	})
	if told != nil {
		return told
	}
	if err == nil && e.o.ReadOnly {
		err = errors.Join(withAdvice(r.report()), r.torn)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", FileName, err)
	}
	if e.checked || e.o.ReadOnly {
		return nil
	}
	e.checked, e.tally = true, r.keyed
	return e.takeLeft()
}

// Number is that of the newest batch, for every VM.
func (e *Engine) Number(string) uint64 { return e.number }

// ID is the folder's own, random and the same for as long as the folder is there. It is
// made if an earlier version has made the folder; call it after Scan, and before the
// first Apply.
// errs.NoSpace: there is no room for that.
func (e *Engine) ID() (id [16]byte, err error) {
	defer guard(&err)()
	id, has, err := readID(e.db)
	if err != nil {
		return id, errs.New(errs.IO, "%v", err)
	}
	if has {
		return id, nil
	}
	err = e.commit(func(w *writer) (err error) {
		id, err = makeID(w.Tx())
		return err
	})
	return id, err
}

// Remarks are what the operator should know of the start: what Options.Salvage did, and
// what a loss of power has left.
func (e *Engine) Remarks() []string { return e.remarks }

// Apply makes all groups durable at once: in the log, or in the data file.
func (e *Engine) Apply(groups []store.Group) []error {
	if len(groups) == 0 {
		return nil
	}
	err := e.apply(groups)
	if err == nil {
		e.number = groups[0].Number
		if e.log != nil {
			e.log.note(e.number)
		}
		return nil
	}
	if !errors.Is(err, errs.NoSpace) {
		e.failed = err
	}
	return store.AllFailed(groups, err)
}

func (e *Engine) apply(groups []store.Group) error {
	if e.poll(); e.failed != nil {
		return e.failed
	}
	if e.o.ReadOnly {
		return errs.New(errs.IO, "data file: open for a check only")
	}
	if err := e.Look(); err != nil {
		return err
	}
	if !e.checked {
		if err := e.Scan(func(_, _ []byte) error { return nil }); err != nil {
			return errs.New(errs.IO, "data file: %s", e.said(err))
		}
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
	return strings.ReplaceAll(err.Error(), e.dir+string(filepath.Separator), "")
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
	err := e.commit(func(w *writer) (err error) {
		if err := e.putLogged(w); err != nil {
			return err
		}
		for i := range groups {
			for j := range groups[i].Ops {
				op := &groups[i].Ops[j]
				if err := w.put(op.Key, op.Value, op.Tail); err != nil {
					return err
				}
			}
		}
		if begun, err = mark(w, log); err != nil {
			return err
		}
		return w.SetSequence(groups[0].Number)
	})
	if log != nil && (err == nil && !begun || err != nil && e.log == nil) {
		_ = log.close()
		log = nil
	}
	if err != nil {
		return err
	}
	e.old, e.fresh = overlay{}, overlay{}
	if e.log = log; log == nil {
		return nil
	}
	log.next()
	wrote, err := log.append(nil, groups[0].Number, groups[0].Number)
	if err != nil && (!isAny(err, noRoom[:]) || wrote && log.retract() != nil) {
		return errs.New(errs.IO, "log: %s", e.said(err))
	}
	return nil
}

// commit is a transaction of the data file. The error is NoSpace if the file is as it
// was, else IO and final.
func (e *Engine) commit(fn func(w *writer) error) error {
	var attempt int
	var w writer
	err := e.update(func(tx *bbolt.Tx) error {
		attempt = tx.ID()
		w = writer{tx.Bucket(bucket), e.tally}
		if err := fn(&w); err != nil {
			return err
		}
		return w.putSum()
	})
	switch {
	case err == nil:
		e.tally = w.tally
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
	if (e.log != nil || e.old.number > 0) && e.failed == nil && !e.broken && e.checked {
		if err = e.finish(); errors.Is(err, errs.NoSpace) {
			err = nil
		}
	}
	if e.log != nil {
		err = errors.Join(err, e.log.close())
	}
	switch {
	case e.broken:
		return err
	case e.db == nil:
		return errors.Join(err, e.data.Close())
	}
	return errors.Join(err, e.db.Close())
}
