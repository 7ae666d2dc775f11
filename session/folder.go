package session

import (
	"encoding/json"
	"strconv"

	"meta9/fs"
)

// folder is sessions/ in the admin's root: a file for each session, live or
// parked. It is made with some monitor held, so it looks at no other.
func (s *Server) folder(fs.Principal, *fs.View) fs.Node {
	return fs.NewFolder(fs.DerivedPath(0, "", "sessions"), s.files)
}

func (s *Server) files() []fs.NamedNode {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := make([]fs.NamedNode, 0, len(s.byID))
	for id, n := range s.byID {
		name := strconv.FormatUint(id, 10)
		path := fs.DerivedPath(0, "sessions", name)
		files = append(files, fs.NamedNode{Name: name, Node: fs.NewFile(path, 0o400, func() ([]byte, error) { return s.describe(n) })})
	}
	return files
}

// description is what a file in sessions/ says: one JSON object and LF. The key is
// not in it, since whoever has it has the session.
type description struct {
	ID      uint64 `json:"id"`
	Who     string `json:"who"`
	Dialect string `json:"dialect"`
	State   string `json:"state"` // "live" or "parked"
	Since   string `json:"since"` // RFC 3339: when it began, was parked or resumed
	Via     string `json:"via"`   // the listener, last known
	Keyed   bool   `json:"keyed"` // it is parked when its transport goes
	Fids    int32  `json:"fids"`
}

func (s *Server) describe(n *session) ([]byte, error) {
	s.mu.Lock()
	d := description{
		ID: n.id, Who: n.who.String(), Dialect: n.dialect.String(), State: "live",
		Since: n.since.UTC().Format("2006-01-02T15:04:05Z"), Via: n.via, Keyed: n.kept, Fids: n.nfids.Load(),
	}
	if n.owner == nil {
		d.State = "parked"
	}
	s.mu.Unlock()
	b, err := json.Marshal(d)
	return append(b, '\n'), err
}

// Sessions describes every session, live or parked: what the files in sessions/
// say, at once.
func (s *Server) Sessions() []json.RawMessage {
	s.mu.Lock()
	all := make([]*session, 0, len(s.byID))
	for _, n := range s.byID {
		all = append(all, n)
	}
	s.mu.Unlock()
	texts := make([]json.RawMessage, 0, len(all))
	for _, n := range all {
		if b, err := s.describe(n); err == nil {
			texts = append(texts, b)
		}
	}
	return texts
}
