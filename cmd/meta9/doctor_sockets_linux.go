//go:build !guest

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// unixSocket is what listens at a path, and is connected to it.
type unixSocket struct {
	listeners []string // inodes of the sockets
	connected int      // accepted by the listener
	waiting   int      // not yet
}

func (s unixSocket) listening() bool { return len(s.listeners) > 0 }

// known tells whether there is any such socket.
func (s unixSocket) known() bool { return s.listening() || s.connected+s.waiting > 0 }

// unixSockets are the unix sockets of a network namespace, by their paths without links in
// them, or as they are where they are not absolute; nil: they could not be read.
type unixSockets map[string]unixSocket

// at are those at a path, which may have symbolic links.
func (u unixSockets) at(path string) unixSocket {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return u[filepath.Join(withoutLinks(filepath.Dir(path)), filepath.Base(path))]
}

// boundBy are those at a path that a process has bound, which may have named it from its
// working folder, as a meta9d with --run meta9-run does.
func (u unixSockets) boundBy(pid int, path string) unixSocket {
	if s := u.at(path); s.known() {
		return s
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return unixSocket{}
	}
	rel, err := filepath.Rel(cwd, filepath.Join(withoutLinks(filepath.Dir(path)), filepath.Base(path)))
	if err != nil {
		return unixSocket{}
	}
	return u[rel]
}

// withoutLinks is the folder's path without symbolic links; where that cannot be said, as
// it is.
func withoutLinks(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// sockets are the unix sockets that the process sees; nil, which is said once: they could
// not be read. A socket that listens is in the namespace of who made it, and what it has
// accepted in that of who connected.
func (e *examination) sockets(pid int) unixSockets {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if all, ok := e.unix[space]; ok && err == nil {
		return all
	}
	var all unixSockets
	if err == nil {
		all, err = readUnixSockets(fmt.Sprintf("/proc/%d/net/unix", pid))
	}
	if _, told := e.unix[space]; err != nil && !told {
		e.unseen("the unix sockets that process %d sees: %v", pid, err)
	}
	e.unix[space] = all
	return all
}

// daemonSockets are those that meta9d sees; where its process is not known, the caller.
func (e *examination) daemonSockets() unixSockets {
	if e.pid > 0 {
		return e.sockets(e.pid)
	}
	return e.sockets(os.Getpid())
}

// readUnixSockets reads /proc/PID/net/unix (proc_net_unix in proc(5)): flags 0x10000 are
// those of a listener; state 3 is that of a connection, and 2 that of one which was not
// accepted.
func readUnixSockets(file string) (unixSockets, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all := unixSockets{}
	folders := map[string]string{} // without links
	for line := range bytes.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), " ", 9)
		// Num: RefCount Protocol Flags Type St, an Inode with blanks before it, and Path.
		if len(fields) < 7 || !strings.HasSuffix(fields[0], ":") {
			continue
		}
		inode, path, ok := strings.Cut(strings.TrimLeft(strings.Join(fields[6:], " "), " "), " ")
		if !ok || strings.HasPrefix(path, "@") { // it has no name, or none of a file's
			continue
		}
		if path = filepath.Clean(path); filepath.IsAbs(path) {
			dir := filepath.Dir(path)
			if _, ok := folders[dir]; !ok {
				folders[dir] = withoutLinks(dir)
			}
			path = filepath.Join(folders[dir], filepath.Base(path))
		}
		flags, _ := strconv.ParseUint(fields[3], 16, 32)
		s := all[path]
		switch {
		case flags&0x10000 != 0:
			s.listeners = append(s.listeners, inode)
		case fields[5] == "03":
			s.connected++
		case fields[5] == "02":
			s.waiting++
		}
		all[path] = s
	}
	return all, nil
}
