package hosts

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/time/rate"
)

// identity tells one socket at a path from the next one there.
type identity struct {
	dev, ino uint64
	made     syscall.Timespec
}

// socketAt is the identity of the socket at a path; false: there is none.
func socketAt(path string) (identity, bool) {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Type() != fs.ModeSocket {
		return identity{}, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, false
	}
	return identity{st.Dev, st.Ino, st.Ctim}, true
}

// look starts a link for every socket that has none, and tells a link when there
// is another socket at its path than before.
func (h *Hosts) look() {
	for _, path := range h.paths() {
		id, ok := socketAt(path)
		if !ok {
			continue
		}
		h.mu.Lock()
		l := h.links[path]
		if l == nil {
			l = &link{hosts: h, path: path, id: id, renewed: make(chan struct{}, 1), complaints: rate.NewLimiter(0.1, 8)}
			h.links[path] = l
			h.all.Go(l.run)
		} else if l.id != id {
			l.id = id
			l.renew()
		}
		h.mu.Unlock()
	}
}

// paths are those of all sockets, which need not be there. Patterns are matched each
// time: their folders come and go.
func (h *Hosts) paths() []string {
	paths := h.cfg.Sockets
	for _, pattern := range h.cfg.Globs {
		found, err := filepath.Glob(pattern)
		if err == nil { // a wrong pattern was refused at the start
			paths = append(paths[:len(paths):len(paths)], found...)
		}
	}
	return paths
}

// forgetIfGone removes a link whose socket is no longer there; its goroutine then ends. A
// look that finds a socket there just now either has told the link, or makes a new one.
func (h *Hosts) forgetIfGone(l *link) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := os.Lstat(l.path); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	delete(h.links, l.path)
	return true
}
