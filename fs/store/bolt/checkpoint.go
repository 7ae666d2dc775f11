package bolt

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// overlay is what batches that are in the log have made of keys, in place of what
// the data file has.
type overlay struct {
	ops    map[string]value
	number uint64 // of the newest batch
}

// value is a key's: head and tail, or deleted if head is nil.
type value struct {
	head []byte
	tail string
}

func (o *overlay) set(key, head []byte, tail string) {
	if o.ops == nil {
		o.ops = make(map[string]value)
	}
	o.ops[string(key)] = value{head, tail}
}

// add takes in a batch. The ops' bytes are the store's again afterwards, but for
// the tails.
func (o *overlay) add(groups []store.Group) {
	size := 0
	for i := range groups {
		for j := range groups[i].Ops {
			size += len(groups[i].Ops[j].Value)
		}
	}
	heads := make([]byte, 0, size)
	for i := range groups {
		for j := range groups[i].Ops {
			op := &groups[i].Ops[j]
			if op.Value == nil {
				o.set(op.Key, nil, "")
				continue
			}
			from := len(heads)
			heads = append(heads, op.Value...)
			o.set(op.Key, heads[from:len(heads):len(heads)], op.Tail)
		}
	}
	o.number = groups[0].Number
}

// put writes all of it into the data file, in the order of the keys.
func (o *overlay) put(w *writer) error {
	if o.number == 0 {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(o.ops)) {
		v := o.ops[key]
		if err := w.put([]byte(key), v.head, v.tail); err != nil {
			return err
		}
	}
	return w.SetSequence(o.number)
}

// mark sees to it that the record of the marks names the log, or none where log is
// nil. It is the last that a transaction does, since any other may write that record.
// begun is false when there is no sound record that could name a log.
func mark(w *writer, log *logFile) (begun bool, err error) {
	now := w.Get(store.MarksKey())
	if now == nil {
		return false, nil
	}
	next, _, _ := store.CutMark(now)
	if log != nil {
		m := store.LogMark{ID: log.id, Size: segments * log.segment}
		if next, err = store.WithMark(next, m); err != nil {
			return false, nil
		}
	}
	if bytes.Equal(now, next) {
		return true, nil
	}
	return true, w.put(store.MarksKey(), next, "")
}

// markable says whether the data file can name a log after these groups.
func markable(groups []store.Group) bool {
	for i := range groups {
		for j := range groups[i].Ops {
			op := &groups[i].Ops[j]
			if !bytes.Equal(op.Key, store.MarksKey()) {
				continue
			}
			if _, err := store.WithMark(slices.Concat(op.Value, []byte(op.Tail)), store.LogMark{}); err != nil {
				return false
			}
		}
	}
	return true
}

// take begins to take old into the data file, in the background.
func (e *Engine) take() {
	if e.old.number == 0 {
		return
	}
	taking := make(chan error, 1)
	e.taking = taking
	go func() { taking <- e.checkpoint(e.log) }()
}

// checkpoint takes old into the data file.
func (e *Engine) checkpoint(log *logFile) error {
	return e.commit(func(w *writer) error {
		if err := e.old.put(w); err != nil {
			return err
		}
		_, err := mark(w, log)
		return err
	})
}

// poll sees whether old was taken meanwhile.
func (e *Engine) poll() {
	select {
	case err := <-e.taking: // never ready where it is nil
		e.taken(err)
	default:
	}
}

// await waits until old is taken, or could not be.
func (e *Engine) await() {
	if e.taking != nil {
		e.taken(<-e.taking)
	}
}

func (e *Engine) taken(err error) {
	e.taking = nil
	switch {
	case err == nil:
		e.old = overlay{}
	case !errors.Is(err, errs.NoSpace):
		e.failed = err
	}
}

// finish takes all that the log holds into the data file, and the log's mark back.
func (e *Engine) finish() error {
	err := e.commit(func(w *writer) error {
		if err := e.putLogged(w); err != nil {
			return err
		}
		_, err := mark(w, nil)
		return err
	})
	if err == nil {
		e.old, e.fresh = overlay{}, overlay{}
	}
	return err
}

// putLogged writes what the log holds, the older first.
func (e *Engine) putLogged(w *writer) error {
	if err := e.old.put(w); err != nil {
		return err
	}
	return e.fresh.put(w)
}

// newLog makes a log that is not begun yet, or nil when there is no room for one.
func (e *Engine) newLog() *logFile {
	if e.o.Segment < 0 || e.noLog {
		return nil
	}
	f, err := createLog(e.dir, e.o.Segment)
	if err != nil {
		e.noLog = true // until the next start
		return nil
	}
	log := &logFile{file: f, segment: e.o.Segment, acked: openAcked(e.dir)}
	if log.inode, err = inodeOf(f); err != nil {
		_ = log.close()
		return nil
	}
	_, _ = rand.Read(log.id[:]) // never fails
	return log
}

// leftLog is a log that an earlier process has left, as it was read.
type leftLog struct {
	path   string
	file   []byte
	broken bool // not all of it was whole
}

// replay reads what a log holds that an earlier process has left.
func (e *Engine) replay() error {
	r, err := e.reader()
	if err != nil {
		return openError(e.path, err)
	}
	e.number = r.main.sequence
	marks, err := r.lookup(store.MarksKey())
	if err != nil && !r.all { // else Scan says so
		return openError(e.path, withAdvice(err))
	}
	path := filepath.Join(e.dir, LogName)
	_, m, has := store.CutMark(marks)
	if !has {
		if err := e.checkUnused(path); err != nil {
			return openError(path, err)
		}
		return nil
	}
	file, err := readFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = errors.New("not there, and it holds what was acknowledged last")
	case err == nil && int64(len(file)) != m.Size:
		err = fmt.Errorf("has %d bytes, %d are right", len(file), m.Size)
	}
	var records []record
	if err == nil {
		records, err = readLog(file, m.ID, e.number)
	}
	for _, r := range records {
		if err := r.ops(func(key, v []byte) { e.old.set(key, v, "") }); err != nil {
			return openError(path, err)
		}
		e.old.number = r.number
	}
	newest := max(e.number, e.old.number)
	if err == nil {
		err = checkAcked(e.dir, m.ID, newest)
	}
	if err != nil {
		if !e.o.Salvage {
			return openError(path, withAdvice(err))
		}
		e.remarks = append(e.remarks, fmt.Sprintf("%s: %v; started with what it holds before", path, err))
	}
	e.number = newest
	e.left = &leftLog{path, file, err != nil}
	return nil
}

// checkUnused looks at the file of a log that the data file does not name. What its
// segments begin with is in the data file: newer batches show that the data file's last
// transactions are gone, as damage of a meta page makes it.
func (e *Engine) checkUnused(path string) error {
	number, err := newestStart(path)
	if err != nil || number <= e.number {
		return err
	}
	err = fmt.Errorf("holds batch %d, and %s ends with batch %d: what came after that is missing there", number, FileName, e.number)
	if e.o.Salvage {
		e.remarks = append(e.remarks, fmt.Sprintf("%s: %v; started without it", path, err))
		return setAside(path)
	}
	return fmt.Errorf("%w. If %s was put back from a backup, remove %s; else restore a backup, or start with --salvage", err, FileName, LogName)
}

// takeLeft takes a log that was read into the data file. Without room for that it stays,
// and is written once more as it is: what was read may have been in memory alone, if
// the disk had failed before.
func (e *Engine) takeLeft() error {
	l := e.left
	if l == nil {
		return nil
	}
	err := e.finish()
	switch {
	case err == nil && l.broken:
		e.left = nil
		return setAside(l.path)
	case !errors.Is(err, errs.NoSpace):
		e.left = nil
		return err
	case l.broken:
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(l.file, 0); err == nil {
		err = f.Sync()
	}
	e.left = nil
	return errors.Join(err, f.Close())
}

// setAside gives a damaged file another name, under which whoever can may look at it.
func setAside(path string) error {
	err := os.Rename(path, path+".damaged")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(err, store.SyncDir(filepath.Dir(path)))
}

// scan goes through the data file and what lies over it, in the order of the keys.
func (e *Engine) scan(r *reader, fn func(key, value []byte) error) error {
	over := make(map[string]value, len(e.old.ops)+len(e.fresh.ops))
	maps.Copy(over, e.old.ops)
	maps.Copy(over, e.fresh.ops)
	keys := slices.Sorted(maps.Keys(over))
	give := func(key []byte, v value) error {
		if v.head == nil {
			return nil
		}
		whole := slices.Concat(v.head, []byte(v.tail))
		if bytes.Equal(key, store.MarksKey()) {
			whole, _, _ = store.CutMark(whole)
		}
		return fn(key, whole)
	}
	if err := r.walk(func(k, v []byte) error {
		for len(keys) > 0 && keys[0] < string(k) {
			if err := give([]byte(keys[0]), over[keys[0]]); err != nil {
				return err
			}
			keys = keys[1:]
		}
		if len(keys) > 0 && keys[0] == string(k) {
			v := over[keys[0]]
			keys = keys[1:]
			return give(k, v)
		}
		if bytes.Equal(k, store.MarksKey()) {
			v, _, _ = store.CutMark(v)
		}
		return fn(k, v)
	}); err != nil {
		return err
	}
	for _, k := range keys {
		if err := give([]byte(k), over[k]); err != nil {
			return err
		}
	}
	return nil
}
