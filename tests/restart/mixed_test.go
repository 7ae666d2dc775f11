//go:build soak

package restart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta9/session/client/eventtest"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/guest"
	"meta9/tests/mount/work"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// mixed is what the rounds of TestMixed came to.
type mixed struct {
	kills, restarts, updates int
	resumed, receipts, undone,
	changes, events, lines, commands, again int
}

// plainWorker works in 9P2000.e, of which a request that was under way at a kill is sent
// once more: what it does may be done twice, and its fids are as the last reply left them.
type plainWorker struct {
	w     *world
	c     *raw.Conn
	key   byte
	fids  map[uint32]string // open: what they read
	steps int
	again int // requests that were sent once more
}

// do is one request. done are the errors that say that it was done already.
func (p *plainWorker) do(stop <-chan struct{}, done string, t wire.Type, fields ...any) (raw.Reply, bool) {
	for try := 0; ; try++ {
		r, err := p.c.RPC(t, 1, fields...)
		var refused *raw.Error
		switch {
		case err == nil:
			return r, true
		case errors.As(err, &refused):
			if try > 0 && done != "" && strings.Contains(refused.Text, done) {
				return r, true
			}
			p.w.t.Errorf("9P2000.e, %s %v, try %d: %v", t, fields, try, err)
			return r, false
		}
		p.again++
		if !p.back(stop) {
			return r, false
		}
	}
}

// back resumes the session and looks at its fids.
func (p *plainWorker) back(stop <-chan struct{}) bool {
	p.c.Close()
	for end := time.Now().Add(patient); ; time.Sleep(5 * time.Millisecond) {
		c, err := raw.Dial("unix", p.w.VM(uuid))
		if err == nil {
			_, _, err = c.Version(64<<10, "9P2000.e")
		}
		if err == nil {
			_, err = c.RPC(wire.Tsession, wire.NoTag, bytes.Repeat([]byte{p.key}, wire.KeyLen))
			var refused *raw.Error
			if errors.As(err, &refused) {
				p.w.t.Errorf("the session of 9P2000.e is lost: %v", err)
				return false
			}
		}
		if err == nil {
			p.c = c
			break
		}
		if time.Now().After(end) {
			p.w.t.Errorf("9P2000.e does not come back: %v", err)
			return false
		}
	}
	for fid, want := range p.fids {
		b, err := p.c.Read(fid, 0, 100)
		var refused *raw.Error
		switch {
		case err != nil && !errors.As(err, &refused):
			return p.back(stop) // killed once more
		case err != nil || string(b) != want:
			p.w.t.Errorf("fid %d of 9P2000.e reads %q, %v; want %q", fid, b, err, want)
			return false
		}
	}
	return true
}

// run works until stop is closed: files are opened and closed, made and removed, written.
func (p *plainWorker) run(stop <-chan struct{}) {
	p.fids = make(map[uint32]string)
	defer func() { p.c.Close() }()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		fid := uint32(10 + i%7)
		value := fmt.Sprint("plain", i%3)
		ok := true
		step := func(done string, t wire.Type, fields ...any) {
			if ok {
				_, ok = p.do(stop, done, t, fields...)
			}
		}
		if p.fids[fid] != "" {
			was := p.fids[fid]
			delete(p.fids, fid) // it may be gone, or not yet
			step("fid unknown", wire.Tclunk, fid)
			_ = was
		}
		step("", wire.Tswrite, uint32(0), []string{"keys", value}, raw.Data(value))
		step("in use", wire.Twalk, uint32(0), fid, []string{"keys", value})
		step("open", wire.Topen, fid, wire.ORdWr)
		if ok {
			p.fids[fid] = value
		}
		step("", wire.Twrite, fid, uint64(0), raw.Data(value))
		if !ok {
			return
		}
		p.steps++
	}
}

// commands runs a meta9 again and again: a value is put, moved, read and removed. ran is
// called after each.
func (w *world) commands(bin string, stop <-chan struct{}, ran func()) {
	for i := 0; ; i++ {
		for _, args := range [][]string{
			{"put", "keys/cli", fmt.Sprint("value ", i)}, {"mv", "keys/cli", "keys/clib"}, {"cat", "keys/clib"}, {"rm", "keys/clib"},
		} {
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := exec.Command(bin, append([]string{"--addr", "unix:" + w.VM(uuid)}, args...)...).Output()
				var exit *exec.ExitError
				if errors.As(err, &exit) && exit.ExitCode() == 3 { // it did not happen
					continue
				}
				if err != nil || args[0] == "cat" && string(out) != fmt.Sprint("value ", i) {
					w.t.Errorf("meta9 %v: %q, %v", args, out, err)
					return
				}
				break
			}
			ran()
		}
	}
}

// watching is a meta9 watch that runs.
type watching struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	out    bytes.Buffer
	before int // events that were printed when it was known to watch
}

// Write takes what it prints.
func (p *watching) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *watching) printed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Count(p.out.Bytes(), []byte("\n"))
}

// watching watches keys/put0 when it returns.
func (w *world) watching() *watching {
	w.t.Helper()
	p := &watching{cmd: exec.Command(testenv.Binary(w.t, "meta9"), "--addr", "unix:"+w.VM(uuid), "watch", "keys/put0")}
	p.cmd.Stdout = p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	puts := 0
	testenv.Eventually(w.t, "meta9 watch prints", func() bool {
		if p.printed() > 0 {
			return true
		}
		w.put("put0", fmt.Sprint(puts))
		puts++
		return false
	})
	for seen := -1; p.printed() != seen; time.Sleep(200 * time.Millisecond) {
		seen = p.printed()
	}
	p.before = p.printed()
	return p
}

// end gives the events that it has printed, when they are as many.
func (p *watching) end(t *testing.T, most int) (list []eventtest.Event, err error) {
	testenv.Eventually(t, "meta9 watch has printed the last", func() bool { return p.printed() >= p.before+most || t.Failed() })
	time.Sleep(100 * time.Millisecond) // there is no more
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // 130
	for line := range strings.Lines(p.out.String()) {
		var ev eventtest.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		list = append(list, ev)
	}
	return list, nil
}

// keeper has programs work in a mount by a meta9 mount, in a mount namespace of its own.
// It gives what ends them, and their reports. lossy: changes may fail with EIO, and are
// done or not. The name space has its own /proc, by which the keeper tells a program that is
// killed from one that only gets a signal, as Go's runtime sends them.
func (w *world) keeper(bin string, programs int, lossy bool) (end func() []work.Report) {
	w.t.Helper()
	t := w.t
	dir, err := os.MkdirTemp("", "m9-")
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(guest.Static(t, "tests/guest/guesttool"), filepath.Join(dir, "worker")); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("set -e; %s mount --fuse unix:%s %s; touch %s/up; p=; for id in", bin, w.VM(uuid), at, dir)
	for id := range programs {
		script += fmt.Sprint(" ", id)
	}
	script += fmt.Sprintf("; do %[1]s/worker -id $id -dir %[2]s/keys -seed 1 -lossy=%[3]v -stop %[1]s/stop -tell %[1]s/steps$id >%[1]s/report$id & p=\"$p $!\"; done; "+
		"for i in $p; do wait $i; done; umount %[2]s", dir, at, lossy)
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr, cmd.Stdout = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = os.RemoveAll(dir) })
	testenv.Eventually(t, "the mount is there", func() bool {
		_, err := os.Stat(filepath.Join(dir, "up"))
		if err != nil && len(ended) > 0 {
			t.Fatalf("the keeper: %s", said.String())
		}
		return err == nil
	})
	testenv.Eventually(t, "the programs work", func() bool {
		for id := range programs {
			if _, err := os.Stat(filepath.Join(dir, fmt.Sprint("steps", id))); err != nil {
				return len(ended) > 0 // end says why
			}
		}
		return true
	})
	return func() (list []work.Report) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "stop"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the keeper: %v: %s", err, said.String())
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("the programs in the mount do not end: %s", said.String())
		}
		for id := range programs {
			var r work.Report
			b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("report", id)))
			if err == nil {
				err = json.Unmarshal(b, &r)
			}
			if err != nil {
				t.Errorf("program %d: %v", id, err)
			}
			list = append(list, r)
		}
		return list
	}
}

// holds holds what the programs in a mount report against the store, and counts what they
// have done.
func (w *world) holds(reports []work.Report, lossy bool) (did int) {
	w.t.Helper()
	c := w.Conn("vms/" + uuid)
	for id, r := range reports {
		if r.Wrongs > 0 || r.Refused > 0 && !lossy {
			w.t.Errorf("program %d in the mount: %d refused, %d wrong: %q", id, r.Refused, r.Wrongs, r.Wrong)
		}
		for name, digest := range r.Keys {
			if b, err := c.Sread(0, "keys", name); err != nil || work.Digest(string(b)) != digest {
				w.t.Errorf("%s is %s, %v; program %d left %s", name, work.Digest(string(b)), err, id, digest)
			}
		}
		for _, n := range r.Done {
			did += n
		}
	}
	return did
}

// mixedRound is one round of so many ends of meta9d: of eight, six are kills, one is a
// planned restart and one a live update. All who work with it see a pause.
func (w *world) mixedRound(ends int, rng *rand.Rand) (m mixed) {
	t := w.t
	watch := w.watching()
	w.remove("put0") // what follows is counted
	events := w.watch()
	for _, name := range []string{"lock", "open"} {
		w.put(name, "of "+name)
	}
	w.linux = "9P2000.L.e.2"
	locker := w.locker()
	stop := make(chan struct{})
	var did [writers]writer
	for id := range did {
		w.running.Go(func() { w.write(id, stop, &did[id]) })
	}
	plain := &plainWorker{w: w, key: 2, c: w.dial("9P2000.e", 2, false)}
	w.rpc(plain.c, wire.Tattach, uint32(0), wire.NoFid, "", "")
	w.running.Go(func() { plain.run(stop) })
	w.running.Go(func() { w.commands(testenv.Binary(t, "meta9"), stop, func() { m.commands++ }) })
	const programs = 3
	keeper := w.keeper(guest.Static(t, "cmd/meta9"), programs, false)
	resumes := 0
	for range ends {
		w.settle(resumes, &did)
		time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
		var log string
		was := w.figure("requests_undone")
		switch kind := rng.IntN(8); kind {
		case 0:
			log = w.PlannedRestart()
			m.restarts++
		case 1:
			w.LiveUpdate()
			m.updates++
			continue
		default:
			w.Restart()
			log = w.Log()
			m.kills++
			m.receipts += w.figure("requests_found_done")
			if n := w.figure("requests_in_doubt"); n != 0 {
				t.Errorf("of %d requests it is not known whether they were done", n)
			}
		}
		m.undone += was
		resumes++
		if strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
			t.Errorf("%s", log)
		}
		other := w.dial("9P2000.L.e", 3, false)
		w.rpc(other, wire.Tattach, uint32(0), wire.NoFid, "", "", uint32(wire.NoUID))
		w.openLock(other)
		if got := w.lock(other); got != 1 {
			t.Errorf("another takes the lock before its holder is back: status %d", got)
		}
		w.rpc(other, wire.Tversion, uint32(8192), "9P2000") // ends its session
		other.Close()
		locker.Close()
		locker = w.relock()
		if t.Failed() {
			break
		}
	}
	w.settle(resumes, &did)
	m.undone += w.figure("requests_undone")
	close(stop)
	w.running.Wait()
	reports := keeper()
	m.changes, m.events = w.verify(events, &did)
	m.resumed, m.again = int(w.resumed.Load()), plain.again
	if n := w.renewed.Load(); n != 0 {
		t.Errorf("%d sessions were not resumed", n)
	}
	// What meta9 watch has printed are the values of the first writer, and the key's removal.
	want := int(did[0].lines.Load()) + 1
	seen, err := watch.end(t, want)
	if err != nil {
		t.Error(err)
	}
	for _, ev := range seen {
		if ev.Type == "lost" {
			t.Error("meta9 watch says that events are lost")
		}
	}
	if len(seen) != watch.before+want {
		t.Errorf("meta9 watch has printed %d events after %d, there were %d", len(seen)-watch.before, watch.before, want)
	}
	m.lines = w.holds(reports, false)
	if plain.steps == 0 || m.commands == 0 || m.lines == 0 {
		t.Errorf("9P2000.e has done %d steps, the command line %d, the programs in the mount %d", plain.steps, m.commands, m.lines)
	}
	return m
}

// remove takes a key away, as an admin.
func (w *world) remove(name string) {
	w.t.Helper()
	c, err := w.Dial("vms/" + uuid)
	if err == nil {
		defer c.Close()
		if err = c.Walk(0, 1, "keys", name); err == nil {
			_, err = c.RPC(wire.Tremove, 1, uint32(1))
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// mixedEnds is how many ends of meta9d a round of TestMixed has.
const mixedEnds = 40

// mixedSum is what all runs of TestMixed came to.
var (
	mixedSum  mixed
	mixedSeed uint64
	mixedOnce sync.Mutex
)

// TestMixed: kills, planned restarts and live updates in any order, under session/client,
// the command line, meta9 mount, a holder of a lock, readers of events and a raw client of
// 9P2000.e: each change is done once, no event is lost, nobody gets an error.
func TestMixed(t *testing.T) {
	mixedOnce.Lock()
	defer mixedOnce.Unlock()
	testenv.Binary(t, "meta9")
	w := newWorldWith(t, daemon.Options{})
	m := w.mixedRound(mixedEnds, rand.New(rand.NewPCG(mixedSeed, 9)))
	s := &mixedSum
	s.kills, s.restarts, s.updates = s.kills+m.kills, s.restarts+m.restarts, s.updates+m.updates
	s.resumed, s.receipts, s.undone = s.resumed+m.resumed, s.receipts+m.receipts, s.undone+m.undone
	s.changes, s.events, s.lines, s.commands, s.again = s.changes+m.changes, s.events+m.events, s.lines+m.lines, s.commands+m.commands, s.again+m.again
	t.Logf("%+v", m)
}
