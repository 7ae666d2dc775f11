package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta9/cmd/version"
	tree "meta9/fs"
	"meta9/fs/errs"
	mdata "meta9/mdbridge/mdata/server"
	"meta9/session"
	"meta9/session/listen"
)

// A live update replaces the program of this process: the process, its sockets and its
// clients' connections stay (docs/architecture.md, "The life of the daemon, and of a VM").
//
//	the old program  lets the new one check itself, in a process of its own: its settings,
//	                 and whether it reads what would be handed over
//	                 ends as at a planned stop, but closes no connection (stop), writes
//	                 what the new one needs to a file in memory, and executes it
//	the new program  starts, with what is there already; nothing is served before all is
//	                 open (daemon.opened). Until it serves it can execute the old one again,
//	                 which goes on from the same file
//
// DATA/residence is written, too, and removed just before the new program begins to serve.
// If the process is killed earlier, the next start resumes the sessions from it.

// Bounds of a live update.
const (
	checkTime = 30 * time.Second // for the check of the other program
	readyTime = 60 * time.Second // for the other program to serve; then it gives up
)

// tally is what ctl says of live updates.
type tally struct {
	Done   int    `json:"done"`
	Failed int    `json:"failed"`
	Pause  int64  `json:"pause"`           // of the last one, ns
	Error  string `json:"error,omitempty"` // why the last one failed; "" if it did not
}

// head is what the other program is asked, on its standard input (--check-upgrade).
type head struct {
	Handover int     `json:"handover"`
	Session  int     `json:"session"`
	Member   *string `json:"member,omitempty"` // memberOf's, "" without a fleet; nil: who asks knows no such question
}

var ourHead = head{Handover: newestHandover, Session: session.StateVersion}

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
func (c command) answerCheck(in *os.File, out io.Writer) error {
	var h head
	if err := json.NewDecoder(in).Decode(&h); err != nil {
		return misused("--check-upgrade is for meta9d itself: %w", err)
	}
	if err := c.config.checkFiles(); err != nil {
		return err
	}
	if h.Session != ourHead.Session || h.Handover < oldestHandover || h.Handover > newestHandover {
		_, err := fmt.Fprintln(out, onlyRestart)
		return errors.Join(fmt.Errorf("meta9d %s takes over %+v, not %+v: a restart is needed", version.String(), ourHead, h), err)
	}
	cluster, err := c.config.Cluster.load()
	if err != nil {
		return err
	}
	if h.Member != nil && *h.Member != memberOf(cluster) {
		_, err := fmt.Fprintln(out, onlyRestart)
		return errors.Join(errors.New("host, prefix or secret in [cluster] are others than those of the meta9d that runs: a restart is needed"), err)
	}
	_, err = fmt.Fprintf(out, "%s%s\n", canTakeOver, version.String())
	return err
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

	arriving map[net.Conn]waitingConn // that wait for their VMs; mu guards it
	state    *os.File                 // nil: it could not be written
	fault    error
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
	case d.without != nil:
		err = errors.New(d.without.String())
	case d.fleet != nil:
		// The next program reads all from there.
		if err = d.member.Fresh(); err == nil {
			err = d.etcd.Trouble()
		}
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
	question, err := json.Marshal(head{d.handoverFormat(), session.StateVersion, &d.memberOf})
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
