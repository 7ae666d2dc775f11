// Package server keeps the states of VMs as a libvirtd says that their domains are. A
// domain is a VM by its UUID and by nothing else; a domain that is no VM here stays one of
// libvirt's alone, but where there are other hosts, which may have its VM.
//
// One goroutine connects, again and again, and while it is connected asks for the states
// of domains: of all at first, then of those of which an event came. The client's own
// goroutine reads the events, and only notes of which VMs they are.
//
// Locks: Follower.mu alone. It is held while nothing else is called; the store's committer
// takes it to note a VM.
package server

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"meta9/backoff"
	"meta9/fs/store"
	"meta9/mdbridge/libvirt"
	"meta9/mdbridge/said"
	"meta9/rarelog"
)

// Config is what New needs. Zero fields take the defaults.
type Config struct {
	Store  *store.Store
	Socket string // the path of libvirt's read-only socket; "": one of libvirt.Sockets
	// Owned tells of a VM's UUID that the VM's state is somebody else's to set, who knows
	// more of it. nil: none is.
	Owned func(uuid string) bool
	// Elsewhere is told of a domain that is no VM here: when libvirtd is connected, when the
	// domain comes, and with its events. state is a VM's: of a QEMU that waits for its guest
	// from another host it is inmigrate. It may wait until ctx ends. After an error it is told
	// again. nil: such domains are libvirt's alone.
	Elsewhere func(ctx context.Context, uuid, state string) (bool, error)
	// CallTime is how long libvirtd has to answer; 10 s.
	CallTime time.Duration
	// ProbeTime is how often it is asked for its domains when it says nothing; 10 s.
	ProbeTime time.Duration
	Log       zerolog.Logger
}

// connectAgain makes the pauses after a connection that failed.
var connectAgain = backoff.Backoff{First: 100 * time.Millisecond, Last: 5 * time.Second}

// Follower follows a libvirtd.
type Follower struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ended  sync.WaitGroup
	rare   rarelog.Log   // for what libvirtd may do at any pace
	wake   chan struct{} // capacity 1: dirty has a VM

	mu    sync.Mutex
	dirty map[string]bool // UUIDs of VMs that are to be looked at; nil: there is no connection
	state State
	said  string // the error that was logged last
}

// State is how it stands with the libvirtd.
type State struct {
	Connected bool
	Since     time.Time // that it is so, or not
	Error     string    // why it is not connected; "": it was not tried yet
	Domains   int       // that libvirtd had when it was last asked
	VMs       int       // those of them that are VMs
	Connects  uint64    // ever
}

// New makes a Follower, which observes the store: call it before the store's first Submit,
// and Start after that.
func New(cfg Config) *Follower {
	cfg.ProbeTime = cmp.Or(cfg.ProbeTime, 10*time.Second)
	if cfg.Owned == nil {
		cfg.Owned = func(string) bool { return false }
	}
	f := &Follower{
		cfg: cfg, rare: rarelog.Log{Log: cfg.Log}, wake: make(chan struct{}, 1),
		state: State{Since: time.Now()},
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	cfg.Store.Observe(f.committed)
	return f
}

// Start begins to connect.
func (f *Follower) Start() { f.ended.Go(f.run) }

// Close ends the connection. The VMs keep the states that they have. It must come before
// the store's.
func (f *Follower) Close() {
	f.cancel()
	f.ended.Wait()
}

// State is how it stands now.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// run connects, again and again.
func (f *Follower) run() {
	for tries := 1; ; tries++ {
		began := time.Now()
		err := f.connect()
		if f.ctx.Err() != nil {
			return
		}
		if time.Since(began) > connectAgain.Last { // not for one that connects and ends at once
			tries = 1
		}
		f.disconnected(err)
		if !connectAgain.Wait(f.ctx, tries) {
			return
		}
	}
}

// connect follows the libvirtd as long as it is there.
func (f *Follower) connect() error {
	path, err := f.socket()
	if err != nil {
		return err
	}
	f.take() // before the first event
	defer f.forget()
	c, err := libvirt.Dial(f.ctx, path, libvirt.Config{CallTime: f.cfg.CallTime, OnEvent: f.onEvent})
	if err != nil {
		return err
	}
	defer c.Close()
	err = newRound(f, c).follow(path)
	if c.Err() != nil {
		err = c.Err() // the cause of whatever failed by it
	}
	return err
}

// socket is the path of the libvirtd's socket.
func (f *Follower) socket() (string, error) {
	if f.cfg.Socket != "" {
		return f.cfg.Socket, nil
	}
	for _, path := range libvirt.Sockets {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("libvirt does not run here: there is neither %s nor %s", libvirt.Sockets[0], libvirt.Sockets[1])
}

// connected notes that libvirtd has answered, and says so: once a minute at most, for one
// that comes and goes.
func (f *Follower) connected(path string, version libvirt.Version) {
	f.mu.Lock()
	f.state.Connected, f.state.Since, f.state.Error = true, time.Now(), ""
	f.state.Connects++
	f.said = ""
	is := f.state
	f.mu.Unlock()
	line, text := f.cfg.Log.Info(), "libvirt"
	if is.Connects > 1 {
		line, text = f.rare.Warn("again"), "libvirt is there again"
	}
	line.Str("socket", path).Stringer("version", version).Int("domains", is.Domains).Int("vms", is.VMs).Msg(text)
}

// disconnected notes why there is no libvirtd, and says it if that is new.
func (f *Follower) disconnected(err error) {
	text := said.Text(err.Error())
	f.mu.Lock()
	if f.state.Connected {
		f.state.Connected, f.state.Since = false, time.Now()
	}
	f.state.Error = text
	fresh := text != f.said
	f.said = text
	f.mu.Unlock()
	if fresh {
		f.rare.Warn("gone").Str("error", text).Msg("no libvirt; the VMs keep the states that they have")
	}
}

// counted notes how many domains there are.
func (f *Follower) counted(domains, vms int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Domains, f.state.VMs = domains, vms
}

// onEvent handles an event, in the client's goroutine.
func (f *Follower) onEvent(e libvirt.Event) {
	if f.cfg.Store.Cell(e.UUID) != nil || f.cfg.Elsewhere != nil && f.room() { // so libvirtd cannot make dirty grow
		f.look(e.UUID)
	}
}

// maxDirty is how many domains may wait for a look before events of domains that are no VMs
// here are dropped. The next probe finds these domains.
const maxDirty = 4096

// room tells whether fewer domains than maxDirty wait.
func (f *Follower) room() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dirty) < maxDirty
}

// committed is told of every change of a VM. One that is created is to get the state of
// its domain, and so is one whose state was set, which may be by somebody else, such as QMP
// at its end. One that is deleted no longer counts.
func (f *Follower) committed(c store.Committed) {
	if c.After == nil || c.Before == nil || c.Before.State() != c.After.State() {
		f.look(c.Cell.UUID())
	}
}

// look notes that a VM is to be looked at.
func (f *Follower) look(uuid string) {
	f.mu.Lock()
	if f.dirty != nil {
		f.dirty[uuid] = true
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take is what look has noted since it was called last.
func (f *Follower) take() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirty := f.dirty
	f.dirty = make(map[string]bool)
	return dirty
}

// forget makes look note nothing.
func (f *Follower) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty = nil
}
