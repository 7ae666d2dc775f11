package peers

import (
	"context"
	"sync"

	p9p "github.com/docker/go-p9p"
)

// dockerSession is the least that docker/go-p9p needs to serve files: a map of
// fids behind a lock, since it runs every request in a goroutine of its own.
type dockerSession struct {
	files Files
	qids  map[string]p9p.Qid
	mu    sync.Mutex
	fids  map[p9p.Fid]string // the name of a file, "" the root
}

func newDockerSession(files Files) *dockerSession {
	s := &dockerSession{files: files, qids: map[string]p9p.Qid{"": {Type: p9p.QTDIR}}, fids: map[p9p.Fid]string{}}
	for name := range files {
		s.qids[name] = p9p.Qid{Path: uint64(len(s.qids))}
	}
	return s
}

func (s *dockerSession) put(fid p9p.Fid, name string) {
	s.mu.Lock()
	s.fids[fid] = name
	s.mu.Unlock()
}

func (s *dockerSession) get(fid p9p.Fid) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, ok := s.fids[fid]
	if !ok {
		return "", p9p.ErrUnknownfid
	}
	return name, nil
}

func (s *dockerSession) Attach(_ context.Context, fid, _ p9p.Fid, _, _ string) (p9p.Qid, error) {
	s.put(fid, "")
	return s.qids[""], nil
}

func (s *dockerSession) Walk(_ context.Context, fid, newfid p9p.Fid, names ...string) ([]p9p.Qid, error) {
	name, err := s.get(fid)
	if err != nil {
		return nil, err
	}
	var qids []p9p.Qid
	for _, n := range names {
		if _, ok := s.files[n]; !ok || name != "" {
			return nil, p9p.ErrNotfound
		}
		name = n
		qids = append(qids, s.qids[n])
	}
	s.put(newfid, name)
	return qids, nil
}

func (s *dockerSession) Open(_ context.Context, fid p9p.Fid, _ p9p.Flag) (p9p.Qid, uint32, error) {
	name, err := s.get(fid)
	return s.qids[name], 0, err
}

func (s *dockerSession) Read(_ context.Context, fid p9p.Fid, p []byte, offset int64) (int, error) {
	name, err := s.get(fid)
	value := s.files[name]
	return copy(p, value[min(int(offset), len(value)):]), err
}

func (s *dockerSession) Clunk(_ context.Context, fid p9p.Fid) error {
	s.mu.Lock()
	delete(s.fids, fid)
	s.mu.Unlock()
	return nil
}

func (s *dockerSession) Stat(_ context.Context, fid p9p.Fid) (p9p.Dir, error) {
	name, err := s.get(fid)
	return p9p.Dir{Name: name, Qid: s.qids[name], Mode: 0o444, Length: uint64(len(s.files[name]))}, err
}

func (s *dockerSession) Auth(context.Context, p9p.Fid, string, string) (p9p.Qid, error) {
	return p9p.Qid{}, p9p.ErrBadattach
}

func (s *dockerSession) Remove(context.Context, p9p.Fid) error { return p9p.ErrNoremove }

func (s *dockerSession) Write(context.Context, p9p.Fid, []byte, int64) (int, error) {
	return 0, p9p.ErrNowrite
}

func (s *dockerSession) Create(context.Context, p9p.Fid, string, uint32, p9p.Flag) (p9p.Qid, uint32, error) {
	return p9p.Qid{}, 0, p9p.ErrNocreate
}

func (s *dockerSession) WStat(context.Context, p9p.Fid, p9p.Dir) error { return p9p.ErrNowstat }

func (s *dockerSession) Version() (int, string) { return p9p.DefaultMSize, p9p.DefaultVersion }
