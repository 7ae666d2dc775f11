// Package macro does with a whole file at once what a 9P client does with walk,
// open, read or write, and clunk: what Tsread and Tswrite of 9P2000.e ask for, and
// the bridges. No fid and no Handle is made, so there is nothing to clean up.
//
// It has no state and no locks. A Ref belongs to its View's goroutine, as in
// package fs; the done functions of Put and Delete run in the store's committer,
// and fs.View.Settle is due before the answer, as for any change.
package macro

import (
	"meta9/fs"
	"meta9/fs/errs"
)

// MaxNames is how many names one call takes (9P's MAXWELEM).
const MaxNames = 16

// Find walks from r by the names, as Twalk does; ".." leads up, no further than
// to where r was attached. Errors: NotFound, NotDir, NameTooLong, and
// Invalid for too many names.
func Find(r *fs.Ref, names []string) (*fs.Ref, error) {
	if err := checkNames(names); err != nil {
		return nil, err
	}
	for _, name := range names {
		next, err := r.Walk(name)
		if err != nil {
			return nil, err
		}
		r = next
	}
	return r, nil
}

// Get appends the whole file to b. A file that is replaced meanwhile is there all
// the time: names lead to one or the other. Errors: as Find, IsDir for a folder,
// Permission for a file that has no whole, such as events, and TooBig when it has
// over max bytes: never a part of it.
func Get(b []byte, r *fs.Ref, names []string, max int) ([]byte, error) {
	last := len(names) - 1
	if last < 0 || names[last] == ".." {
		n, err := find(r, names)
		if err != nil {
			return b, err
		}
		return fs.AppendValue(b, n, max)
	}
	if err := checkNames(names); err != nil {
		return b, err
	}
	dir, err := find(r, names[:last])
	if err != nil {
		return b, err
	}
	return fs.AppendFile(b, dir, names[last], max)
}

// Put makes data the whole value of the file, which it creates if there is none;
// readers see the old value or the new one. Errors: as Find; in a folder where no
// file is created those of fs.Missing; and what the store refuses. Without data the value is empty. On a
// ctl the end of data ends the line. data may be used again when Put returns;
// done(nil) means that it is durable.
func Put(r *fs.Ref, names []string, data []byte, done func(error)) {
	if len(names) == 0 {
		// A whole value depends on nothing that was there before, so that it goes to
		// what has replaced the file as well.
		if now := r.Current(); now != nil {
			r = now
		}
		put(r.Node(), data, r.By(), done)
		return
	}
	if err := checkNames(names); err != nil {
		done(err)
		return
	}
	last := len(names) - 1
	dir, err := find(r, names[:last])
	if err != nil {
		done(err)
		return
	}
	p, ok := dir.(fs.Putter)
	switch name := names[last]; {
	case name == "..":
		done(errs.IsDir)
	case ok:
		p.Put(name, data, r.By(), done)
	default:
		putIn(dir, name, data, r.By(), done)
	}
}

// IsKey tells whether Put is one change of one key.
func IsKey(r *fs.Ref, names []string) bool {
	at, err := Find(r, names[:max(0, len(names)-1)])
	return err == nil && at.Keys()
}

// putIn is Put in a folder where no file is created.
func putIn(dir fs.Node, name string, data []byte, by fs.Author, done func(error)) {
	n, err := fs.Walk(dir, name)
	switch {
	case errs.KindOf(err) == errs.NotFound && dir.Stat(new(fs.Stat)) == nil: // else the folder's VM has gone meanwhile
		done(fs.Missing(dir, fs.OpCreate))
	case err != nil:
		done(err)
	default:
		put(n, data, by, done)
	}
}

func put(n fs.Node, data []byte, by fs.Author, done func(error)) {
	w, ok := n.(fs.Writer)
	if !ok {
		done(fs.Missing(n, fs.OpWrite))
		return
	}
	w.PutValue(data, by, done)
}

// Delete removes the file that has the name when the removal is committed, whether
// or not it was replaced meanwhile; a folder is IsDir.
func Delete(r *fs.Ref, names []string, done func(error)) {
	at, err := Find(r, names)
	switch {
	case err != nil:
		done(err)
	case at.IsDir():
		done(errs.IsDir)
	default:
		at.Remove(done)
	}
}

// List calls fn for every entry of the folder, until fn returns false. st is only
// valid during the call. Errors: as Find; NotDir for a file.
func List(r *fs.Ref, names []string, fn func(st *fs.Stat) bool) error {
	n, err := find(r, names)
	if err != nil {
		return err
	}
	f, ok := n.(fs.Folder)
	if !ok {
		return fs.Missing(n, fs.OpWalk)
	}
	return f.List(0, func(_ uint64, st *fs.Stat) bool { return fn(st) })
}

func checkNames(names []string) error {
	if len(names) > MaxNames {
		return errs.New(errs.Invalid, "%d names, and %d is the most", len(names), MaxNames)
	}
	return nil
}

// find is Find without Refs: it keeps the nodes that it came through on the stack.
func find(r *fs.Ref, names []string) (fs.Node, error) {
	if err := checkNames(names); err != nil {
		return nil, err
	}
	var above [MaxNames]fs.Node
	depth, at := 0, r.Node()
	for _, name := range names {
		_, dir := at.(fs.Folder)
		switch {
		case name != "..":
			n, err := fs.Walk(at, name)
			if err != nil {
				return nil, err
			}
			above[depth], at = at, n
			depth++
		case !dir:
			return nil, errs.NotDir
		case depth > 0:
			depth--
			at = above[depth]
		default:
			up, err := r.Walk(name)
			if err != nil {
				return nil, err
			}
			r, at = up, up.Node()
		}
	}
	return at, nil
}
