package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta9/cmd/version"
	tree "meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	mdata "meta9/mdbridge/mdata/server"
	"meta9/session"
	"meta9/session/listen"
	"meta9/session/residence"
)

// A live update replaces the program of this process: the process, its sockets and its
// clients' connections stay (docs/architecture.md, "The life of the daemon, and of a VM").
//
//	this program     checks the other one, in a process of its own: its settings, and
//	                 whether it reads what would be handed over
//	                 ends as at a planned stop, but closes no connection (stop), writes
//	                 what the other one needs to a file in memory, and executes it
//	the other one    starts, with what is there already; nothing is served before all is
//	                 open (daemon.opened). Until then it can execute this one again, which
//	                 goes on in the same way
//
// DATA/residence is written as well, and removed when the other one serves: where it is
// killed before, the next start resumes the sessions as after a planned stop.

// handoverFormat is the version of what is handed over; another one is not understood.
const handoverFormat = 1

// The variable by which a program learns that it was executed for a live update.
const handoverEnv = "META9D_HANDOVER"

// Bounds of a live update.
const (
	checkTime = 30 * time.Second // for the check of the other program
	readyTime = 60 * time.Second // for the other program to serve; then it gives up
)

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

	once  sync.Once // it serves, or goes back
	file  *os.File  // State
	conns int       // that were handed over
	fds   []int     // the rest of what was inherited, to be closed when this program has its own
}

// tally is what ctl says of live updates.
type tally struct {
	Done   int    `json:"done"`
	Failed int    `json:"failed"`
	Pause  int64  `json:"pause"`           // of the last one, ns
	Error  string `json:"error,omitempty"` // why the last one failed; "" if it did not
}

// head is what the other program is asked, on its standard input (--check-upgrade).
type head struct {
	Handover int `json:"handover"`
	Session  int `json:"session"`
}

var ourHead = head{handoverFormat, session.StateVersion}

// canTakeOver is the answer, before the version.
const canTakeOver = "can take over: "

// onlyRestart is the answer of a program that is good, but not for a live update from the
// one that asks.
const onlyRestart = "a restart is needed"

// needsRestart is the error of a live update that cannot be, though the other program is
// good: NotPermitted, by which meta9 upgrade knows it.
func needsRestart(format string, args ...any) error {
	return errs.New(errs.NotPermitted, format, args...)
}

// answerCheck answers for this program.
func (c command) answerCheck(in *os.File, out interface{ Write([]byte) (int, error) }) error {
	var h head
	if err := json.NewDecoder(in).Decode(&h); err != nil {
		return misused("--check-upgrade is for meta9d itself: %w", err)
	}
	if err := c.config.checkFiles(); err != nil {
		return err
	}
	if h != ourHead {
		_, err := fmt.Fprintln(out, onlyRestart)
		return errors.Join(fmt.Errorf("meta9d %s takes over %+v, not %+v: a restart is needed", version.String(), ourHead, h), err)
	}
	_, err := fmt.Fprintf(out, "%s%s\n", canTakeOver, version.String())
	return err
}

// inheritedHandover is what the program before this one in the process has said; nil: there
// was none.
func inheritedHandover() (*handover, error) {
	text := os.Getenv(handoverEnv)
	if text == "" {
		return nil, nil
	}
	_ = os.Unsetenv(handoverEnv)
	h := new(handover)
	if err := json.Unmarshal([]byte(text), h); err != nil || h.Format != handoverFormat {
		return nil, fmt.Errorf("%s: not what this version hands over", handoverEnv)
	}
	h.file = os.NewFile(uintptr(h.State), "handover")
	h.fds = []int{h.Exe, h.Next}
	if h.Settings != 0 {
		h.fds = append(h.fds, h.Settings)
	}
	return h, nil
}

// settings is command.complete, but for a program that goes on after another one has
// failed: it keeps the settings that it had, since those that are there now may be why.
func (h *handover) settings(c command) (command, error) {
	if h == nil || !h.isBack() || h.Settings == 0 {
		return c.complete()
	}
	f, err := os.Open(descriptorPath(h.Settings))
	if err != nil {
		return c, err
	}
	defer f.Close()
	var had config // it must be empty: what is empty is not written
	if err := gob.NewDecoder(f).Decode(&had); err != nil {
		return c, fmt.Errorf("the settings before the live update: %w", err)
	}
	c.config = had
	return c, c.config.validate()
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

// upgrades are the live updates of a daemon.
type upgrades struct {
	mu    sync.Mutex
	busy  bool
	tally tally
	self  string   // this program's path, as it was at the start
	next  *os.File // the program that takes over
	ready chan struct{}
	going atomic.Bool // next is set

	refused string // why there is no live update any more; mu guards it

	// What the end of this program leaves.
	began  int64
	passed []listen.Passed
	lines  []mdata.Handed // connections of the Joyent protocol
	vias   map[net.Conn]string
	state  *os.File // nil: it could not be written
	fault  error
}

// upgrade checks the program at path, or this one's own path, and lets it take over.
// The error says why it will not. It returns before that happens.
func (d *daemon) upgrade(path string) error {
	u := d.upgrades
	u.mu.Lock()
	busy := u.busy
	u.busy = true
	u.mu.Unlock()
	if busy {
		return errs.New(errs.Busy, "another live update is under way")
	}
	f, err := d.checkUpgrade(path)
	if err == nil {
		err = u.begin(f)
	}
	if err != nil {
		d.log.Error().Str("error", oneLine(err)).Msg("no live update; everything is as it was")
		u.mu.Lock()
		u.busy = false
		u.tally.Failed++
		u.tally.Error = oneLine(err)
		u.mu.Unlock()
		kind := errs.Invalid
		if errors.Is(err, errs.NotPermitted) {
			kind = errs.NotPermitted
		}
		return errs.New(kind, "no live update: %s", oneLine(err))
	}
	return nil
}

// begin lets the program take over, unless that was refused. The program is u's.
func (u *upgrades) begin(program *os.File) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.refused != "" {
		return errors.Join(errors.New(u.refused), program.Close())
	}
	u.next = program
	u.going.Store(true)
	close(u.ready)
	return nil
}

// refuse lets no program take over, also none that was to: why is the reason. Nothing
// was done for that yet.
func (u *upgrades) refuse(why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.refused = why; u.going.Swap(false) {
		_ = u.next.Close()
		u.busy = false
		u.tally.Failed++
		u.tally.Error = why
	}
}

// checkUpgrade opens the program, and asks it. That a restart is needed is said of a good
// program alone.
func (d *daemon) checkUpgrade(path string) (*os.File, error) {
	if path == "" {
		path = d.upgrades.self
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is no absolute path", path)
	}
	f, err := openProgram(path)
	if err != nil {
		return nil, err
	}
	err = d.ask(f)
	switch failed := d.store.Err(); {
	case err != nil:
	case failed != nil:
		err = needsRestart("the store has failed, a restart is needed: %s", failed)
	case d.folder == nil:
		err = needsRestart("all is kept in memory only, or the data folder has no identity: a restart is needed")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// openProgram opens what is to be executed. An admin need not be root on this host: so
// only what root, or meta9d's own user, has put there.
func openProgram(path string) (*os.File, error) {
	// It is opened when it was looked at: a FIFO would wait, and a device may do something.
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	var st, self unix.Stat_t
	var mount unix.Statfs_t
	err = errors.Join(unix.Fstat(at, &st), unix.Stat("/proc/self/exe", &self), unix.Fstatfs(at, &mount))
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = fmt.Errorf("%s is no program, but a folder, a device or the like", path)
	case st.Mode&0o111 == 0:
		err = fmt.Errorf("%s is no program: its mode is %#o, so that nobody may execute it", path, st.Mode&0o7777)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		err = fmt.Errorf("%s is user %d's; it must be root's or meta9d's own user's", path, st.Uid)
	case st.Mode&0o022 != 0:
		err = fmt.Errorf("%s: its mode is %#o, so that others may change it", path, st.Mode&0o7777)
	case mount.Flags&unix.ST_NOSUID != 0 && st.Dev != self.Dev:
		err = fmt.Errorf("%s is on a file system that is mounted nosuid: who has mounted it may say whose its files are", path)
	}
	if err != nil {
		return nil, err
	}
	return os.Open(descriptorPath(at))
}

// ask lets the program check itself, with the arguments that it would get.
func (d *daemon) ask(program *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	question, err := json.Marshal(ourHead)
	if err != nil {
		return err
	}
	const first = 3 // the descriptor that ExtraFiles begins with
	cmd := exec.CommandContext(ctx, descriptorPath(first), append(append([]string{}, d.command.args...), "--check-upgrade")...)
	cmd.ExtraFiles = []*os.File{program}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	cmd.Stdin = bytes.NewReader(question)
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&out}, &limited{&said}
	if err := cmd.Run(); err != nil {
		if strings.HasPrefix(out.String(), onlyRestart) {
			return needsRestart("its check says: %s", oneLine(errors.New(strings.TrimSpace(said.String()))))
		}
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		if last := lines[len(lines)-1]; last != "" {
			return fmt.Errorf("its check says: %s (%w)", last, err)
		}
		return fmt.Errorf("its check failed: %w", err)
	}
	v, ok := strings.CutPrefix(out.String(), canTakeOver)
	if !ok {
		return errors.New("it is no meta9d that can take over")
	}
	d.log.Info().Str("to", strings.TrimSpace(v)).Msg("live update")
	return nil
}

// limited keeps the beginning of what a program says.
type limited struct{ *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(0, 4096-l.Len()))])
	return len(p), nil
}

func descriptorPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// upgradeVerb is ctl's: upgrade, or upgrade PATH.
func (d *daemon) upgradeVerb(call tree.Call, done func(error)) {
	go func() { done(d.upgrade(call.Arg)) }()
}

// upgradesAt begins a live update at every SIGUSR2, until ctx ends.
func (d *daemon) upgradesAt(ctx context.Context) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	go func() {
		select {
		case <-d.opened:
		case <-ctx.Done():
		}
		for {
			select {
			case <-c:
				_ = d.upgrade("") // the log has it
			case <-ctx.Done():
				return
			}
		}
	}()
}

// leaves tells whether the daemon's end is a live update's.
func (d *daemon) leaves() bool { return d.upgrades.going.Load() }

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
	vias := maps.Clone(u.vias)
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
		all = append(all, extra{Lines: &lineConn{FD: fd, VM: h.Who.VM, Via: vias[h.Conn], Input: h.Input, Output: h.Output}})
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
	h := &handover{Format: handoverFormat, Next: int(u.next.Fd()), Args: os.Args, Began: u.began, From: version.String(), Tally: u.tally, Hangups: d.command.takesHangups()}
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

// isBack tells that another program has failed, and executed this one again.
func (h *handover) isBack() bool { return h.Tally.Error != "" }

// back executes the program before this one, which goes on with what it has handed over.
// It returns where that cannot be.
func (h *handover) back(why error) error {
	err := why
	if h.isBack() {
		return err // it is this one
	}
	h.once.Do(func() {
		h.Tally.Failed++
		h.Tally.Error = oneLine(why)
		err = errors.Join(why, execProgram(h.Exe, h.Args, h.Hangups, h))
	})
	return err
}

// takeOver restores what the program before this one has handed over. Nothing is served
// yet.
func (d *daemon) takeOver(t *tree.Tree) (err error) {
	h := d.from
	d.restored, err = residence.TakeOver(h.file, d.home(), d.server, t, d.takeExtra,
		func(fd int) (net.Conn, error) {
			h.fds = append(h.fds, fd)
			return listen.FromDescriptor(fd)
		},
		func(c net.Conn, s *session.Handed, run func()) {
			d.adopt(c, s.Via, tree.Principal{Admin: s.Admin, VM: s.VM}, run)
		})
	if lost := d.restored.Lost; err == nil && lost > 0 {
		if !h.isBack() {
			return fmt.Errorf("%d of what was handed over cannot be taken: %s", lost, d.restored.Why)
		}
		d.log.Error().Int("lost", lost).Str("why", d.restored.Why).Msg("not all sessions were taken over")
	}
	if err != nil {
		return fmt.Errorf("what was handed over: %w", err)
	}
	d.keepsSessions = true
	d.restored.Found = true // whatever the journal has is older
	return d.beginJournal(&d.restored, t)
}

// takeExtra takes one record of ours.
func (d *daemon) takeExtra(b []byte) error {
	var e extra
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	if e.Socket != nil {
		d.from.fds = append(d.from.fds, e.Socket.FD)
		return d.inherited.Socket(*e.Socket)
	}
	if l := e.Lines; l != nil {
		d.from.fds = append(d.from.fds, l.FD)
		c, err := listen.FromDescriptor(l.FD)
		if err != nil {
			return err
		}
		who := tree.Principal{VM: l.VM}
		d.adopt(c, l.Via, who, func() {
			d.serveLines(c, l.Via, func() { d.mdata.Adopt(mdata.Handed{Conn: c, Who: who, Input: l.Input, Output: l.Output}) })
		})
	}
	return nil
}

// adopt keeps a connection for its listener, until the daemon is open.
func (d *daemon) adopt(c net.Conn, via string, who tree.Principal, run func()) {
	d.from.conns++
	d.inherited.Conn(via, listen.Adopted{Conn: c, Who: who, Run: func() {
		d.isOpen() // where not: it runs to be ended with the others
		run()
	}})
}

// serveLines runs serve, and remembers how its connection came as long as that may be
// handed over.
func (d *daemon) serveLines(c net.Conn, via string, serve func()) {
	u := d.upgrades
	u.mu.Lock()
	if u.vias == nil {
		u.vias = make(map[net.Conn]string)
	}
	u.vias[c] = via
	u.mu.Unlock()
	serve()
	if !d.leaves() {
		u.mu.Lock()
		delete(u.vias, c)
		u.mu.Unlock()
	}
}

// openDoors lets all be served that waits for it: everything is there. After that there is no
// way back.
func (d *daemon) openDoors() error {
	for _, left := range d.inherited.Rest() {
		d.log.Warn().Str("what", left).Msg("inherited, and not in the settings: closed")
	}
	h := d.from
	if h == nil {
		close(d.opened)
		return nil
	}
	gone := errors.New("it took too long")
	h.once.Do(func() {
		gone = os.Remove(filepath.Join(d.cfg.Data, residence.FileName))
		if gone == nil || errors.Is(gone, os.ErrNotExist) {
			gone = store.SyncDir(d.cfg.Data)
		}
	})
	if gone != nil {
		return gone
	}
	u := d.upgrades
	u.tally = h.Tally
	u.tally.Pause = now() - h.Began
	if h.Tally.Error == "" {
		u.tally.Done++
		d.log.Info().Str("from", h.From).Str("to", version.String()).Int("connections", h.conns).Int("parked", d.restored.Sessions).
			Dur("pause", time.Duration(u.tally.Pause)).Msg("live update done")
	} else {
		d.log.Error().Str("error", h.Tally.Error).Dur("pause", time.Duration(u.tally.Pause)).
			Msg("the live update has failed; this program goes on")
	}
	close(d.opened)
	for _, fd := range h.fds {
		_ = unix.Close(fd)
	}
	return h.file.Close()
}

// upgradeStatus is what ctl says.
func (d *daemon) upgradeStatus() string {
	d.upgrades.mu.Lock()
	defer d.upgrades.mu.Unlock()
	t := &d.upgrades.tally
	s := fmt.Sprintf("upgrades %d\nupgrades_failed %d\nupgrade_pause_ms %d\n", t.Done, t.Failed, t.Pause/int64(time.Millisecond))
	if t.Error != "" {
		s += "upgrade_error " + t.Error + "\n"
	}
	return s
}

// newUpgrades is of a program that has begun.
func newUpgrades() *upgrades {
	self, _ := os.Executable() // "": it has to be named
	return &upgrades{self: self, ready: make(chan struct{})}
}

// giveUp is the end of a start that has failed. Where there is a program to go back to,
// what was handed over must stay for it: nothing is closed but the store, which only one
// may have open.
func (d *daemon) giveUp() {
	if d.from == nil || d.from.isBack() {
		close(d.failed)
		return
	}
	d.undo = nil
	if d.store != nil {
		if err := d.store.Close(); err != nil {
			d.log.Error().Err(err).Msg("closing the store")
		}
	}
}
