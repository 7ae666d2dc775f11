//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/client"
)

// looks is how often a set is read again because it has changed meanwhile, before that
// counts as a failure.
const looks = 5

// errMoving is why a set could not be read.
var errMoving = errors.New("the keys change faster than they can be read")

// value is what a key has; absent: there is no such key.
type value struct {
	data   []byte
	absent bool
}

// read gives the values of all files of r as they were at one moment: those that were the
// same before all were read and after. An open file's value does not change while it is
// read, so that one file needs no second look.
func read(ctx context.Context, c *client.Client, r *Recipe) ([]value, error) {
	for range looks {
		before, err := versions(ctx, c, r)
		if err != nil {
			return nil, err
		}
		values := make([]value, len(r.Files))
		for i := range r.Files {
			if values[i], err = valueOf(ctx, c, &r.Files[i]); err != nil {
				break
			}
		}
		switch {
		case errors.Is(err, errs.Stale): // the session was lost, or the key replaced
			continue
		case err != nil:
			return nil, err
		case len(r.Files) == 1 && values[0].absent == (before[0] == p9.QID{}):
			return values, nil
		}
		after, err := versions(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if slices.Equal(before, after) && agrees(values, before) {
			return values, nil
		}
	}
	return nil, errMoving
}

// versions are the qids of r's keys; that of one that is not there is zero.
func versions(ctx context.Context, c *client.Client, r *Recipe) ([]p9.QID, error) {
	qids := make([]p9.QID, len(r.Files))
	for i := range r.Files {
		f := &r.Files[i]
		info, err := c.Stat(ctx, f.Key)
		switch {
		case errors.Is(err, errs.NotFound):
			if _, err := c.Stat(ctx, path.Dir(f.Key)); err != nil { // all of it is away: that says nothing of the key
				return nil, err
			}
		case err != nil:
			return nil, err
		case info.IsDir():
			return nil, fmt.Errorf("%s: %w", f.Key, errs.IsDir)
		case info.Length > uint64(f.Most):
			return nil, f.tooLong()
		default:
			qids[i] = info.QID
		}
	}
	return qids, nil
}

// agrees tells whether those values are absent whose qids are.
func agrees(values []value, qids []p9.QID) bool {
	for i := range values {
		if values[i].absent != (qids[i] == p9.QID{}) {
			return false
		}
	}
	return true
}

// valueOf reads the value of f's key, and no more than may be.
func valueOf(ctx context.Context, c *client.Client, f *File) (value, error) {
	data, err := c.ReadAtMost(ctx, f.Key, f.Most)
	switch {
	case errors.Is(err, errs.NotFound):
		return value{absent: true}, nil
	case errors.Is(err, errs.TooLarge):
		return value{}, f.tooLong()
	}
	return value{data: data}, err
}

func (f *File) tooLong() error {
	return fmt.Errorf("%s: longer than %d bytes, which is max_size of the recipe", f.Key, f.Most)
}

// owned is who is to have f, as the system's users are now.
func (f *File) owned() (o owned, err error) {
	o = owned{uid: os.Geteuid(), gid: os.Getegid(), mode: f.Mode}
	if f.Owner != "" {
		if n, err := strconv.ParseUint(f.Owner, 10, 32); err == nil {
			o.uid = int(n)
			if u, err := user.LookupId(f.Owner); err == nil { // a number may be nobody's
				o.gid, _ = strconv.Atoi(u.Gid)
			}
		} else {
			u, err := user.Lookup(f.Owner)
			if err != nil {
				return o, fmt.Errorf("%s: no user %s", f.Path, f.Owner)
			}
			o.uid, _ = strconv.Atoi(u.Uid)
			o.gid, _ = strconv.Atoi(u.Gid)
		}
	}
	if f.Group != "" {
		if n, err := strconv.ParseUint(f.Group, 10, 32); err == nil {
			o.gid = int(n)
		} else {
			g, err := user.LookupGroup(f.Group)
			if err != nil {
				return o, fmt.Errorf("%s: no group %s", f.Path, f.Group)
			}
			o.gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return o, nil
}

// change is what is to be done about one file.
type change struct {
	*place
	file   *File
	staged bool // the new file is there, beside the old one
	gone   bool // the file is to go
}

// plan finds out what differs from values, and writes new files beside their places.
// Whatever it gives is to be closed, also with an error.
func plan(r *Recipe, values []value) (changes []change, err error) {
	for i := range r.Files {
		f := &r.Files[i]
		if values[i].absent && f.Missing == Fail {
			return changes, fmt.Errorf("%s: there is no such key, and the recipe says that there must be (missing)", f.Key)
		}
	}
	for i := range r.Files {
		f, v := &r.Files[i], values[i]
		p, err := openPlace(f.Path)
		if err != nil {
			return changes, err
		}
		changes = append(changes, change{place: p, file: f})
		c := &changes[len(changes)-1]
		if v.absent {
			c.gone = f.Missing == Remove && !p.absent()
			continue
		}
		o, err := f.owned()
		if err != nil {
			return changes, err
		}
		if p.upToDate(v.data, o) {
			continue
		}
		if err := p.stage(v.data, o); err != nil {
			return changes, err
		}
		c.staged = true
	}
	return changes, nil
}

// finish lets go of changes, and of what was not put in place.
func finish(changes []change) {
	for i := range changes {
		if changes[i].staged {
			changes[i].drop()
		}
		changes[i].Close()
	}
}

// apply makes the files of r what values are, and runs what is to be run. changed are the
// paths that have, which may be some of them also where there is an error.
func (a *Agent) apply(ctx context.Context, r *Recipe, values []value) (changed []string, err error) {
	changes, err := plan(r, values)
	defer func() { finish(changes) }()
	if err != nil {
		return nil, err
	}
	var todo []string
	for i := range changes {
		if c := &changes[i]; c.staged || c.gone {
			todo = append(todo, c.path)
		}
	}
	pending := a.readMark(r)
	if len(todo) == 0 && len(pending) == 0 {
		return nil, nil
	}
	env := append(slices.Clone(a.opt.Env), "META9_RECIPE="+r.Name)
	if len(todo) > 0 && r.Check != "" {
		if err := a.check(ctx, r, changes, env); err != nil {
			return nil, err
		}
	}
	if len(todo) > 0 && r.Command != "" {
		if pending, err = a.addToMark(r, pending, todo); err != nil {
			return nil, err
		}
	}
	for i := range changes {
		c := &changes[i]
		switch {
		case c.gone:
			err = c.remove()
		case c.staged:
			err = c.commit()
		default:
			continue
		}
		if err != nil {
			return changed, err
		}
		c.staged = false
		changed = append(changed, c.path)
	}
	if r.Command == "" {
		return changed, nil
	}
	if err := shell(ctx, "command", r.Timeout, r.Command, nil, nil, append(env, "META9_CHANGED="+strings.Join(pending, "\n"))); err != nil {
		return changed, err
	}
	return changed, a.removeMark(r)
}

// openFiles is where a process finds what it has open, each by its number, as Linux has
// it: opened there, a file is read from its beginning each time. Elsewhere (/dev/fd) all
// share one offset, if it is there at all.
var openFiles = "/proc/self/fd"

// check runs r's check over the files as they are to be; an argument is "" for one that is
// not to be there. It gets what the agent has open, and never a path in the recipe's folders:
// who owns one of these could put there, meanwhile, a symbolic link to a file that only
// root may read, and what a check complains of it is in the log.
func (a *Agent) check(ctx context.Context, r *Recipe, changes []change, env []string) error {
	_, err := os.Stat(openFiles)
	copied := err != nil
	private := filepath.Join(a.opt.State, r.Name+".check") // the state folder is the agent's alone
	if copied {
		defer func() { _ = os.RemoveAll(private) }()
		if err := errors.Join(os.RemoveAll(private), os.Mkdir(private, 0o700)); err != nil {
			return err
		}
	}
	args := make([]string, len(changes))
	var files []*os.File
	for i := range changes {
		c := &changes[i]
		if c.seen == nil && !c.gone && !c.absent() {
			if err := c.keep(); err != nil {
				return err
			}
		}
		switch {
		case c.seen == nil:
		case copied:
			args[i] = filepath.Join(private, strconv.Itoa(i+1))
			if err := copyTo(args[i], c.seen); err != nil {
				return err
			}
		default:
			args[i] = filepath.Join(openFiles, strconv.Itoa(3+len(files)))
			files = append(files, c.seen)
		}
	}
	return shell(ctx, "check", r.Timeout, r.Check, args, files, env)
}

// copyTo makes a file of what f has, with its permissions.
func copyTo(path string, f *os.File) error {
	i, err := f.Stat()
	if err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(f, 0, i.Size()))
	return errors.Join(err, to.Chmod(i.Mode().Perm()), to.Close())
}

// mark is the path of a recipe's mark. The file is there while files were changed and the
// recipe's command has not succeeded since; it has the paths of these files, a line each.
func (a *Agent) mark(r *Recipe) string { return filepath.Join(a.opt.State, r.Name+".changed") }

// readMark returns the paths in the mark: those for which r's command must still run.
func (a *Agent) readMark(r *Recipe) []string {
	text, err := os.ReadFile(a.mark(r))
	if err != nil || r.Command == "" {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// addToMark adds paths to the mark, which has pending, durably, and returns all that are
// in it.
func (a *Agent) addToMark(r *Recipe, pending, paths []string) ([]string, error) {
	for _, path := range paths {
		if !slices.Contains(pending, path) {
			pending = append(pending, path)
		}
	}
	p, err := openPlace(a.mark(r))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	err = p.stage([]byte(strings.Join(pending, "\n")+"\n"), owned{os.Geteuid(), os.Getegid(), 0o600})
	if err == nil {
		err = p.commit()
	}
	return pending, err
}

// removeMark removes the mark, not durably: if a loss of power brings it back, the command
// runs once more than needed.
func (a *Agent) removeMark(r *Recipe) error {
	err := os.Remove(a.mark(r))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
