package client

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

// maxWhole is the longest value in bytes that ReadFile and ReadDir gather.
const maxWhole = 64 << 20

// newMode are the permissions of a file that WriteFile creates.
const newMode = 0o600

// splitPath is the names in a path, which may begin with a slash; ".." goes up, but not
// above the root.
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
	err = c.do(ctx, func(s *session) (err error) {
		data, err = s.readFile(ctx, names)
		return err
	})
	return data, wrap("read", path, err)
}

// WriteFile makes data the whole value of a file, and creates it if there is none
// (0600). With one Tswrite, which is for every value that meta9d takes, a reader
// sees the old value or the new one. Elsewhere, also in 9P2000.e, whose servers do not
// agree on what Tswrite does, it is an open with truncation or a create, and a write: a
// value longer than the server's msize goes in several, between which a reader may see its
// beginning. When WriteFile returns nil the server has answered for all of it; see
// ErrUnknown.
func (c *Client) WriteFile(ctx context.Context, path string, data []byte) error {
	names := splitPath(path)
	return wrap("write", path, c.do(ctx, func(s *session) error { return s.writeFile(ctx, names, data) }))
}

// Stat says what is known of a file or folder.
func (c *Client) Stat(ctx context.Context, path string) (info Info, err error) {
	names := splitPath(path)
	err = c.do(ctx, func(s *session) (err error) {
		info, err = s.stat(ctx, names)
		return err
	})
	return info, wrap("stat", path, err)
}

// ReadDir lists a folder in the server's order. The error's kind is errs.NotDir
// for a file.
func (c *Client) ReadDir(ctx context.Context, path string) (list []Info, err error) {
	names := splitPath(path)
	err = c.do(ctx, func(s *session) (err error) {
		list, err = s.readDir(ctx, names)
		return err
	})
	return list, wrap("list", path, err)
}

// Remove removes a file, or a folder if the server lets it.
func (c *Client) Remove(ctx context.Context, path string) error {
	names := splitPath(path)
	return wrap("remove", path, c.do(ctx, func(s *session) error { return s.remove(ctx, names) }))
}

// Rename gives a file another name in its folder; 9P2000 knows no more. What has
// that name is replaced, if the server does so (meta9d does).
func (c *Client) Rename(ctx context.Context, path, to string) error {
	from, names := splitPath(path), splitPath(to)
	last := len(from) - 1
	if last < 0 || len(names) != len(from) || strings.Join(names[:last], "/") != strings.Join(from[:last], "/") {
		return wrap("rename", path, errs.New(errs.Invalid, "a rename to %s leaves the folder, which 9P2000 cannot do", to))
	}
	return wrap("rename", path, c.do(ctx, func(s *session) error { return s.rename(ctx, from, names[last]) }))
}

// walk makes a fid for names, to be released. Errors of names: errs.NotFound, and
// errs.NotDir where a file stands in the place of a folder, of which the server says only
// that the walk ended there.
func (s *session) walk(ctx context.Context, names []string) (fid uint32, qid p9.QID, err error) {
	fid = s.fids.alloc()
	qid, made, err := redial.Walk(s.ask(ctx), s.root, fid, names)
	if err != nil && made { // otherwise rpc has released fid
		s.release(fid)
	}
	if made && errors.Is(err, errs.NotFound) && qid.Type&p9.TypeDir == 0 {
		err = errs.NotDir
	}
	return fid, qid, err
}

// macro tells whether names and n bytes fit in a Tsread or Tswrite.
func (s *session) macro(names []string, n int) bool {
	size := wire.HeaderLen + 4 + 2 + 4 + n
	for _, name := range names {
		size += 2 + len(name)
	}
	return s.dialect.Sessions() && len(names) <= wire.MaxWalk && size <= int(s.msize)
}

// noMacro tells whether a Tsread or Tswrite failed in a way that single requests may not.
func noMacro(err error) bool {
	return redial.IsRefusal(err) && (errors.Is(err, errs.TooBig) || errors.Is(err, errs.Unsupported))
}

func (s *session) readFile(ctx context.Context, names []string) ([]byte, error) {
	if s.macro(names, 0) {
		reply, err := s.rpc(ctx, &wire.Msg{Type: wire.Tsread, Fid: rootFid, Names: names})
		switch {
		case err == nil:
			return reply.Data, s.checkFile(ctx, names, reply.Data)
		case !noMacro(err):
			return nil, err
		}
	}
	fid, qid, err := s.walk(ctx, names)
	if err != nil {
		return nil, err
	}
	if qid.Type&p9.TypeDir != 0 {
		s.release(fid)
		return nil, errs.IsDir
	}
	return s.readAll(ctx, fid)
}

// checkFile refuses data that are a folder's stat records: Tsread's reply does not say
// whether names are a file. It asks the server only where data could be records.
func (s *session) checkFile(ctx context.Context, names []string, data []byte) error {
	if _, err := parseDirs(data, s.dialect); err != nil {
		return nil
	}
	fid, qid, err := s.walk(ctx, names)
	if err != nil {
		return err
	}
	s.release(fid)
	if qid.Type&p9.TypeDir != 0 {
		return errs.IsDir
	}
	return nil
}

func (s *session) readDir(ctx context.Context, names []string) ([]Info, error) {
	fid, qid, err := s.walk(ctx, names)
	if err != nil {
		return nil, err
	}
	if qid.Type&p9.TypeDir == 0 {
		s.release(fid)
		return nil, errs.NotDir
	}
	data, err := s.readFolder(ctx, fid)
	if err != nil {
		return nil, err
	}
	list, err := parseDirs(data, s.dialect)
	for i := range list {
		if err := checkName(list[i].Name); err != nil {
			return nil, err
		}
	}
	return list, err
}

// checkName refuses what no entry of a folder is called: a caller may make files of these
// names, and they must not lead it elsewhere.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return errs.New(errs.Protocol, "the server lists a file that is called %.64q", name)
	}
	return nil
}

// readFolder reads a folder's stat records, and releases fid.
func (s *session) readFolder(ctx context.Context, fid uint32) ([]byte, error) {
	if !s.macro(nil, 0) {
		return s.readAll(ctx, fid)
	}
	reply, err := s.rpc(ctx, &wire.Msg{Type: wire.Tsread, Fid: fid})
	if noMacro(err) {
		return s.readAll(ctx, fid)
	}
	s.release(fid)
	if err != nil {
		return nil, err
	}
	return reply.Data, nil
}

func (s *session) stat(ctx context.Context, names []string) (Info, error) {
	fid, _, err := s.walk(ctx, names)
	if err != nil {
		return Info{}, err
	}
	defer s.release(fid)
	reply, err := s.rpc(ctx, &wire.Msg{Type: wire.Tstat, Fid: fid})
	if err != nil {
		return Info{}, err
	}
	return infoOf(&reply.Dir), nil
}

func (s *session) remove(ctx context.Context, names []string) error {
	fid, _, err := s.walk(ctx, names)
	if err != nil {
		return err
	}
	_, err = s.change(ctx, &wire.Msg{Type: wire.Tremove, Fid: fid})
	s.endFid(fid, err)
	return err
}

// endFid sees to the number of fid after a request that ends it whatever the
// answer, and that got err.
func (s *session) endFid(fid uint32, err error) {
	if err == nil || redial.IsRefusal(err) {
		s.fids.put(fid)
	} else {
		s.fids.addStray(stray{fid, s.epoch})
	}
}

func (s *session) rename(ctx context.Context, names []string, to string) error {
	fid, _, err := s.walk(ctx, names)
	if err != nil {
		return err
	}
	defer s.release(fid)
	dir := noChange()
	dir.Name = to
	_, err = s.change(ctx, &wire.Msg{Type: wire.Twstat, Fid: fid, Dir: dir})
	return err
}
