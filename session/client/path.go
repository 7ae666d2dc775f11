package client

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/greet"
	"meta9/session/wire"
)

// maxWhole is the longest value in bytes that ReadFile and ReadDir gather.
const maxWhole = 64 << 20

// newMode are the permissions of a file that WriteFile creates.
const newMode = 0o600

// splitPath gives the names of a path in this tree: slashes between them, one in
// front or not; ".." goes up, and at the root nowhere.
func splitPath(p string) []string {
	p = path.Clean("/" + p)
	if p == "/" {
		return nil
	}
	return strings.Split(p[1:], "/")
}

// ReadFile reads the whole value of a file. A file that never ends, as events,
// is for Open. The error's kind is errs.IsDir for a folder.
func (c *Client) ReadFile(ctx context.Context, path string) (data []byte, err error) {
	names := splitPath(path)
	err = c.do(ctx, func(l *link) (err error) {
		data, err = l.readFile(ctx, names)
		return err
	})
	return data, wrap("read", path, err)
}

// WriteFile makes data the whole value of a file, and creates it if there is none
// (0600). With one Tswrite, which is for every value that meta9d takes, a reader
// sees the old value or the new one. Elsewhere, also in 9P2000.e, whose servers do not
// agree on what Tswrite does, it is an open with truncation or a create, and a write: a value longer than the server's msize goes in several, between which a
// reader may see its beginning. When WriteFile returns nil the server has
// answered for all of it; see ErrUnknown.
func (c *Client) WriteFile(ctx context.Context, path string, data []byte) error {
	names := splitPath(path)
	return wrap("write", path, c.do(ctx, func(l *link) error { return l.writeFile(ctx, names, data) }))
}

// Stat says what is known of a file or folder.
func (c *Client) Stat(ctx context.Context, path string) (info Info, err error) {
	names := splitPath(path)
	err = c.do(ctx, func(l *link) (err error) {
		info, err = l.stat(ctx, names)
		return err
	})
	return info, wrap("stat", path, err)
}

// ReadDir lists a folder in the server's order. The error's kind is errs.NotDir
// for a file.
func (c *Client) ReadDir(ctx context.Context, path string) (list []Info, err error) {
	names := splitPath(path)
	err = c.do(ctx, func(l *link) (err error) {
		list, err = l.readDir(ctx, names)
		return err
	})
	return list, wrap("list", path, err)
}

// Remove removes a file, or a folder if the server lets it.
func (c *Client) Remove(ctx context.Context, path string) error {
	names := splitPath(path)
	return wrap("remove", path, c.do(ctx, func(l *link) error { return l.remove(ctx, names) }))
}

// Rename gives a file another name in its folder; 9P2000 knows no more. What has
// that name is replaced, if the server does so (meta9d does).
func (c *Client) Rename(ctx context.Context, path, to string) error {
	from, names := splitPath(path), splitPath(to)
	last := len(from) - 1
	if last < 0 || len(names) != len(from) || strings.Join(names[:last], "/") != strings.Join(from[:last], "/") {
		return wrap("rename", path, errs.New(errs.Invalid, "a rename to %s leaves the folder, which 9P2000 cannot do", to))
	}
	return wrap("rename", path, c.do(ctx, func(l *link) error { return l.rename(ctx, from, names[last]) }))
}

// walk makes a fid for names, to be released.
func (l *link) walk(ctx context.Context, names []string) (fid uint32, qid p9.QID, err error) {
	fid, qid.Type = l.fids.get(), p9.TypeDir
	for from := rootFid; from == rootFid || len(names) > 0; from = fid {
		step := names[:min(len(names), wire.MaxWalk)]
		reply, err := l.rpc(ctx, &wire.Msg{Type: wire.Twalk, Fid: from, Newfid: fid, Names: step})
		made := err == nil || from == fid // otherwise rpc has seen to fid
		if err == nil && len(step) > 0 {
			qid, err = lastQID(reply, step)
		}
		if err != nil {
			if made { // a clunk of what a short walk did not make is refused, and as good
				l.release(fid)
			}
			return 0, qid, err
		}
		names = names[len(step):]
	}
	return fid, qid, nil
}

// lastQID is where a Twalk by names has come to.
func lastQID(reply *wire.Msg, names []string) (p9.QID, error) {
	switch n := len(reply.QIDs); {
	case n < len(names):
		return p9.QID{}, errs.NotFound
	case n > len(names):
		return p9.QID{}, errs.New(errs.Protocol, "%d qids for %d names", n, len(names))
	}
	return reply.QIDs[len(names)-1], nil
}

// macro tells whether names can be told a macro, beside n bytes.
func (l *link) macro(names []string, n int) bool {
	size := wire.HeaderLen + 4 + 2 + 4 + n
	for _, name := range names {
		size += 2 + len(name)
	}
	return l.dialect.Sessions() && len(names) <= wire.MaxWalk && size <= int(l.msize)
}

// noMacro tells whether the server could not do as a macro what it may do
// otherwise.
func noMacro(err error) bool {
	return greet.IsRefusal(err) && (errors.Is(err, errs.TooBig) || errors.Is(err, errs.Unsupported))
}

func (l *link) readFile(ctx context.Context, names []string) ([]byte, error) {
	if l.macro(names, 0) {
		reply, err := l.rpc(ctx, &wire.Msg{Type: wire.Tsread, Fid: rootFid, Names: names})
		switch {
		case err == nil:
			return reply.Data, l.checkFile(ctx, names, reply.Data)
		case !noMacro(err):
			return nil, err
		}
	}
	fid, qid, err := l.walk(ctx, names)
	if err != nil {
		return nil, err
	}
	if qid.Type&p9.TypeDir != 0 {
		l.release(fid)
		return nil, errs.IsDir
	}
	return l.readAll(ctx, fid)
}

// checkFile refuses data that are a folder's stat records: Tsread does not say
// which it was. Only data that could be are worth a question.
func (l *link) checkFile(ctx context.Context, names []string, data []byte) error {
	if _, err := parseDirs(data, l.dialect); err != nil {
		return nil
	}
	fid, qid, err := l.walk(ctx, names)
	if err != nil {
		return err
	}
	l.release(fid)
	if qid.Type&p9.TypeDir != 0 {
		return errs.IsDir
	}
	return nil
}

func (l *link) readDir(ctx context.Context, names []string) ([]Info, error) {
	fid, qid, err := l.walk(ctx, names)
	if err != nil {
		return nil, err
	}
	if qid.Type&p9.TypeDir == 0 {
		l.release(fid)
		return nil, errs.NotDir
	}
	data, err := l.readFolder(ctx, fid)
	if err != nil {
		return nil, err
	}
	return parseDirs(data, l.dialect)
}

// readFolder reads a folder's stat records, and releases fid.
func (l *link) readFolder(ctx context.Context, fid uint32) ([]byte, error) {
	if !l.macro(nil, 0) {
		return l.readAll(ctx, fid)
	}
	reply, err := l.rpc(ctx, &wire.Msg{Type: wire.Tsread, Fid: fid})
	if noMacro(err) {
		return l.readAll(ctx, fid)
	}
	l.release(fid)
	if err != nil {
		return nil, err
	}
	return reply.Data, nil
}

func (l *link) stat(ctx context.Context, names []string) (Info, error) {
	fid, _, err := l.walk(ctx, names)
	if err != nil {
		return Info{}, err
	}
	defer l.release(fid)
	reply, err := l.rpc(ctx, &wire.Msg{Type: wire.Tstat, Fid: fid})
	if err != nil {
		return Info{}, err
	}
	return infoOf(&reply.Dir), nil
}

func (l *link) remove(ctx context.Context, names []string) error {
	fid, _, err := l.walk(ctx, names)
	if err != nil {
		return err
	}
	_, err = l.change(ctx, &wire.Msg{Type: wire.Tremove, Fid: fid})
	l.spent(fid, err)
	return err
}

// spent sees to the number of fid after a request that ends it whatever the
// answer, and that got err.
func (l *link) spent(fid uint32, err error) {
	if err == nil || greet.IsRefusal(err) {
		l.fids.put(fid)
	} else {
		l.fids.lose(stray{fid, l.epoch})
	}
}

func (l *link) rename(ctx context.Context, names []string, to string) error {
	fid, _, err := l.walk(ctx, names)
	if err != nil {
		return err
	}
	defer l.release(fid)
	dir := noChange()
	dir.Name = to
	_, err = l.change(ctx, &wire.Msg{Type: wire.Twstat, Fid: fid, Dir: dir})
	return err
}
