package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"meta9/cmd/version"
	tree "meta9/fs"
	"meta9/session/fleet"
	"meta9/session/listen"
	"meta9/session/packet"
	"meta9/session/residence"
)

// What the program that ends leaves to the next one: its sockets and connections as
// descriptors, which stay as they are, and all else in files in memory.

// The versions of what is handed over. This program takes each of them.
const (
	newestHandover = 3 // the host may be one of a fleet
	folderHandover = 2 // the VMs are in a data folder; connections may be links of packets
	oldestHandover = 1
)

// handoverFormat is the version of what this daemon hands over. A program that does not know
// the newest would lose a fleet's sessions; without a fleet it can take over.
func (d *daemon) handoverFormat() int {
	if d.fleet != nil {
		return newestHandover
	}
	return folderHandover
}

// The variable by which a program learns that it was executed for a live update.
const handoverEnv = "META9D_HANDOVER"

// handover is what is said in handoverEnv. Descriptors stay as they are when a program is
// executed.
type handover struct {
	Format int      `json:"format"`
	State  int      `json:"state"` // a descriptor: what residence.HandOver has written
	Exe    int      `json:"exe"`   // a descriptor: the program that has written it
	Next   int      `json:"next"`  // a descriptor: the program that is executed
	Args   []string `json:"args"`  // of both
	Began  int64    `json:"began"` // when nothing was answered any more: CLOCK_MONOTONIC, ns
	From   string   `json:"from"`  // that program's version
	Tally  tally    `json:"tally"`

	Settings int `json:"settings,omitempty"` // a descriptor: those of Exe, for when it is executed again; 0: none

	Hangups bool `json:"hangups,omitempty"` // SIGHUP is not to end the process, also not meanwhile

	mu    sync.Mutex
	over  bool     // it serves, or goes back; mu guards this
	file  *os.File // State
	conns int      // that were handed over
	fds   []int    // the rest of what was inherited, to be closed when this program has its own
}

// settingsFile has the settings for handover.settings. It stays open.
func settingsFile(c *config) (*os.File, error) {
	fd, err := unix.MemfdCreate("meta9d-settings", 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "settings")
	return f, gob.NewEncoder(f).Encode(c)
}

// pass keeps the sockets that a listener has handed over. An err of that, where it is not
// nil, is joined into the update's fault: with one, no connection is handed over.
func (d *daemon) pass(err error, passed ...listen.Passed) {
	u := d.upgrades
	u.passed = append(u.passed, passed...)
	u.fault = errors.Join(u.fault, err)
}

// closeListener is the end of a listener: it is closed, or handed over.
func (d *daemon) closeListener(l *listen.Listener) {
	if !d.leaves() {
		_ = l.Close()
		return
	}
	p, err := l.HandOver()
	d.pass(err, p)
}

// closeVMs is closeListener for the VMs' own.
func (d *daemon) closeVMs(m *listen.VMs) {
	if !d.leaves() {
		m.Close()
		return
	}
	d.upgrades.began = now()
	all, err := m.HandOver()
	d.pass(err, all...)
}

// handConns hands the connections over.
func (d *daemon) handConns(ctx context.Context) error {
	u := d.upgrades
	other := make(chan error, 1)
	go func() {
		var err error
		u.lines, err = d.mdata.HandOver(ctx)
		other <- err
	}()
	return errors.Join(d.server.HandOver(ctx), <-other)
}

// extra is one record of ours in what is handed over.
type extra struct {
	Socket *listen.Passed `json:"socket,omitempty"`
	Lines  *lineConn      `json:"lines,omitempty"`
	Fleet  *fleet.Memory  `json:"fleet,omitempty"`
	Waits  *waitingConn   `json:"waits,omitempty"`
}

// waitingConn is a connection that waits for its VM, which is another host's.
type waitingConn struct {
	FD    int    `json:"fd"`
	VM    string `json:"vm"`
	Via   string `json:"via"`
	Addr  string `json:"addr"`
	Lines bool   `json:"lines,omitempty"` // it is of the Joyent protocol
}

// lineConn is a connection of the Joyent protocol.
type lineConn struct {
	FD     int    `json:"fd"`
	VM     string `json:"vm"`
	Via    string `json:"via"`
	Input  []byte `json:"input,omitempty"`
	Output []byte `json:"output,omitempty"`
}

// handState writes what the next program needs. The store was stopped.
func (d *daemon) handState(t *tree.Tree) {
	u := d.upgrades
	if u.fault != nil {
		return
	}
	fd, err := unix.MemfdCreate("meta9d-handover", 0) // it stays open
	if err == nil {
		u.state = os.NewFile(uintptr(fd), "handover")
		err = d.writeState(u.state, t)
	}
	u.fault = err
}

func (d *daemon) writeState(f *os.File, t *tree.Tree) error {
	u := d.upgrades
	u.mu.Lock()
	arriving := maps.Clone(u.arriving)
	u.mu.Unlock()
	var all []extra
	for i := range u.passed {
		all = append(all, extra{Socket: &u.passed[i]})
	}
	for _, h := range u.lines {
		fd, err := inheritable(h.Conn)
		if err != nil {
			continue // it was closed
		}
		all = append(all, extra{Lines: &lineConn{FD: fd, VM: h.Who.VM, Via: h.Via, Input: h.Input, Output: h.Output}})
	}
	for c, w := range arriving {
		fd, err := inheritable(c)
		if err != nil {
			continue // it was closed
		}
		w.FD = fd
		all = append(all, extra{Waits: &w})
	}
	if d.fleet != nil {
		m := d.fleet.Memory()
		all = append(all, extra{Fleet: &m})
	}
	lost, err := residence.HandOver(f, d.home(), d.server, t, inheritable, func(yield func([]byte) bool) {
		for _, e := range all {
			if b, err := json.Marshal(e); err == nil && !yield(b) {
				return
			}
		}
	})
	if lost > 0 {
		d.log.Error().Int("sessions", lost).Msg("sessions are lost: they take too much to be handed over")
	}
	return err
}

// inheritable lets the connection's descriptor stay open when a program is executed.
func inheritable(c net.Conn) (int, error) {
	if l, is := c.(*packet.Link); is {
		c = l.NetConn()
	}
	fd, err := listen.Descriptor(c)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	return fd, err
}

// now is CLOCK_MONOTONIC, which all programs of this host have in common.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return t.Nano()
}

// execute puts the other program in this one's place, now that this one has ended; where
// that cannot be, this one is begun anew. It returns only when nothing can be executed:
// the next start resumes the sessions.
func (d *daemon) execute() error {
	u := d.upgrades
	defer runtime.KeepAlive(d) // what nobody uses any more would be closed
	h := &handover{Format: d.handoverFormat(), Next: int(u.next.Fd()), Args: os.Args, Began: u.began, From: version.String(), Tally: u.tally, Hangups: d.command.takesHangups()}
	h.Tally.Error = ""
	var err error
	if h.Exe, err = unix.Open("/proc/self/exe", unix.O_RDONLY, 0); err != nil {
		return fmt.Errorf("live update: %w", err)
	}
	if u.fault != nil {
		// As at a planned restart.
		d.log.Error().Err(u.fault).Msg("live update: connections cannot be handed over, and are closed")
		for _, p := range u.passed {
			_ = unix.Close(p.FD)
		}
		_ = unix.Close(h.Exe)
		_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // what was made inheritable; Linux 5.11
		return execProgram(h.Next, os.Args, h.Hangups, nil)
	}
	h.State = int(u.state.Fd())
	settings, err := settingsFile(&d.cfg)
	if err != nil {
		d.log.Error().Err(err).Msg("live update: if it fails, the settings are read anew")
	} else {
		h.Settings = int(settings.Fd())
		defer runtime.KeepAlive(settings)
	}
	err = execProgram(h.Next, h.Args, h.Hangups, h)
	d.log.Error().Err(err).Msg("live update: the program cannot be executed; this one goes on")
	return h.back(fmt.Errorf("it cannot be executed: %w", err))
}

// execProgram executes the program that fd is. With hangups it takes SIGHUP as soon as it
// has begun.
func execProgram(fd int, args []string, hangups bool, h *handover) error {
	env := os.Environ()
	if h != nil {
		text, err := json.Marshal(h)
		if err != nil {
			return err
		}
		env = append(env, handoverEnv+"="+string(text))
	}
	// They would end a program that has not begun to wait for them.
	signal.Ignore(syscall.SIGUSR2)
	if hangups {
		signal.Ignore(syscall.SIGHUP) // it reads the settings in any case
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	if err == nil {
		err = syscall.Exec(descriptorPath(fd), args, env)
	}
	return err
}
