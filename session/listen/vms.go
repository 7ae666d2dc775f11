package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"meta9/descriptors"
	tree "meta9/fs"
	"meta9/fs/cpu"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/rarelog"
)

// Modes of the folder RUN/UUID. The folder is always the daemon's own: whoever could write
// there could make the daemon's chown change other files. folderOpen lets a VM's owner
// through who is in none of our groups.
const (
	folderMode = 0o710
	folderOpen = 0o711
)

// VMConfig configures VMs.
type VMConfig struct {
	Run     string   // the run folder; sockets are Run/UUID/NAME
	Sockets []Socket // in the VMs' folders; none: switched off
	Devices []Device // that a VM may have
	Bound   []Device // sockets that are made where a VM's property says
	Nobody  bool     // peers that prove nothing are handed over too: they may authenticate by MUMBLE
	Perm    Perm     // of sockets; the folder gets the group, too
	VM      func(uuid string) *vm.VM
	CPU     func(uuid string) *cpu.Share // the VM's share, of which its accepts take turns; nil: they take none
	Log     zerolog.Logger

	Inherited *Inherited // what is open already; nil: nothing
}

// Socket is a socket that VMs have under its name.
type Socket struct {
	Name   string // "9p.sock"
	Handle Handler
	Tally  *Tally // of the connections of all VMs; nil: none
	If     string // the property that must be true for a VM to have it; "": each has it
}

// isOf tells whether the VM has the socket.
func (s *Socket) isOf(v *vm.VM) bool {
	if s.If == "" {
		return true
	}
	p, _ := v.Prop(s.If)
	return p.Kind == ordjson.True
}

// VMs keeps each VM's sockets and dialled devices as the VM says: they are made with the
// VM, change with its properties, and end with it. What fails for one VM is logged, and
// does not delay another.
type VMs struct {
	cfg  VMConfig
	rare *rarelog.Log // for all VMs' sockets together: if a thousand fail, that is one line
	wake chan struct{}
	done chan struct{} // closed when work has ended

	// work's alone:
	kept     map[string]*kept
	devices  map[*dialled]bool // of all VMs
	away     int               // how many were away in the last log line
	saidAway time.Time

	mu      sync.Mutex
	changed map[string]bool // VMs to look at again
	idle    []func()
	closed  bool
	handing bool // sockets are handed over, and not closed

	// work's, until it has ended: what is handed over, and why not more.
	passed   []Passed
	unpassed error
}

// kept is what one VM has.
type kept struct {
	owner   string
	sockets []*Listener
	devices map[string]*dialled // by property
	bound   map[string]*bound   // by property
	looked  time.Time           // of the folder, when all sockets were there; zero: look
	lost    bool                // they cannot be made again, and that was logged
}

// NewVMs makes a VMs without a VM: Changed must be called for each.
func NewVMs(cfg VMConfig) *VMs {
	m := &VMs{
		cfg: cfg, rare: &rarelog.Log{Log: cfg.Log},
		kept: map[string]*kept{}, devices: map[*dialled]bool{}, changed: map[string]bool{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go m.work()
	return m
}

// Sweep removes the folders of an earlier run whose VMs are gone.
func (m *VMs) Sweep() {
	left, _ := os.ReadDir(m.cfg.Run) // not there yet: nothing is left
	for _, e := range left {
		if vm.ValidUUID(e.Name()) == nil {
			m.Changed(e.Name())
		}
	}
}

// Changed says that the VM was made, has other properties or is gone. It returns
// at once.
func (m *VMs) Changed(uuid string) {
	m.mu.Lock()
	m.changed[uuid] = true
	m.mu.Unlock()
	m.poke()
}

// Settle waits until all that Changed was told before is done.
func (m *VMs) Settle() {
	c := make(chan struct{})
	m.Await(func() { close(c) })
	<-c
}

// Await calls done when all that Changed was called for before is done, or when Close was
// called. It returns at once.
func (m *VMs) Await(done func()) {
	m.mu.Lock()
	closed := m.closed
	if !closed {
		m.idle = append(m.idle, done)
	}
	m.mu.Unlock()
	if closed {
		done()
		return
	}
	m.poke()
}

// Close removes all sockets and dials no more; connections that were handed over
// stay the Handler's. The folders stay: they may be mounted somewhere, and the
// next run uses them again.
func (m *VMs) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.poke()
	<-m.done
}

// poke wakes work; one wake is enough for all that was left for it.
func (m *VMs) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// work does what Changed asked for, and dials devices, until Close.
func (m *VMs) work() {
	defer close(m.done)
	tick, heal := time.NewTicker(redial), time.NewTicker(healEvery)
	defer tick.Stop()
	defer heal.Stop()
	for ticking := true; ; {
		// No device, no tick: an idle daemon sleeps.
		if want := len(m.devices) > 0; want != ticking {
			if ticking = want; want {
				tick.Reset(redial)
			} else {
				tick.Stop()
			}
		}
		select {
		case <-tick.C:
			for d := range m.devices {
				d.dial()
			}
		case <-heal.C:
			m.heal()
			m.healBound()
			m.sayAway()
		case <-m.wake:
			if !m.catchUp() {
				m.leave()
				return
			}
		}
	}
}

// catchUp handles every VM that has changed; false: Close was called.
func (m *VMs) catchUp() bool {
	m.mu.Lock()
	changed, idle, closed := m.changed, m.idle, m.closed
	m.changed, m.idle = map[string]bool{}, nil
	m.mu.Unlock()
	if !closed {
		for uuid := range changed {
			m.look(uuid)
		}
	}
	for _, done := range idle {
		done()
	}
	return !closed
}

// leave is the end of work; it does what Close says.
func (m *VMs) leave() {
	m.mu.Lock()
	handing := m.handing
	m.mu.Unlock()
	for _, k := range m.kept {
		if handing {
			m.pass(k)
			continue
		}
		k.endSockets((*Listener).Close)
		for _, b := range k.bound {
			b.end((*Listener).Close)
		}
	}
	for d := range m.devices {
		m.hangUp(d, nil)
	}
}

// look makes, changes and ends one VM's sockets and devices as the VM says now.
func (m *VMs) look(uuid string) {
	k, v := m.kept[uuid], m.cfg.VM(uuid)
	if v == nil {
		m.forget(uuid, k)
		return
	}
	isNew := k == nil
	if isNew {
		k = &kept{devices: map[string]*dialled{}, bound: map[string]*bound{}}
		m.kept[uuid] = k
	}
	owner := owner(v)
	other := isNew || owner != k.owner
	if other {
		k.endSockets((*Listener).End) // connections by the old owner must end
		k.owner = owner
	}
	m.sockets(v, k, other)
	for _, d := range m.cfg.Devices {
		m.device(d, v, k)
	}
	for _, d := range m.cfg.Bound {
		m.bind(d, v, k)
	}
}

// forget removes what a VM had, or an earlier run has left of it.
func (m *VMs) forget(uuid string, k *kept) {
	if k != nil {
		k.endSockets((*Listener).Close)
		for _, d := range k.devices {
			m.hangUp(d, errHungUp)
		}
		for _, b := range k.bound {
			b.end((*Listener).End)
		}
		delete(m.kept, uuid)
	}
	dir := filepath.Join(m.cfg.Run, uuid)
	for _, s := range m.cfg.Sockets {
		path := filepath.Join(dir, s.Name)
		if err := clearStale(path); err != nil {
			m.cfg.Log.Warn().Err(err).Str("socket", path).Msg("left of a VM that is gone")
		}
	}
	_ = os.Remove(dir) // fails if the folder has other files
}

// sockets makes the sockets that the VM is to have and has not, and ends those that it is
// not to have any more; without all it looks only at those that depend on a property. Every
// peer on them is the VM: the only proof is that the modes of the file and its folder let
// only the VM's QEMU reach it. If one cannot be made, sockets stops and logs that this one
// and those after it are missing.
func (m *VMs) sockets(v *vm.VM, k *kept, all bool) {
	var perm Perm
	var err error
	for _, s := range m.cfg.Sockets {
		if s.If == "" && !all {
			continue
		}
		path := filepath.Join(m.cfg.Run, v.UUID, s.Name)
		i := slices.IndexFunc(k.sockets, func(l *Listener) bool { return l.asked == "unix:"+path })
		switch wanted := s.isOf(v); {
		case !wanted && i >= 0:
			_ = k.sockets[i].End()
			k.sockets = slices.Delete(k.sockets, i, i+1)
		case wanted && i < 0 && err == nil:
			if perm == (Perm{}) {
				perm, err = m.folder(v.UUID, k.owner)
			}
			if err == nil {
				err = m.addSocket(v.UUID, k, s, path, perm)
			}
		}
	}
	m.sayUnmade(v.UUID, err)
}

// addSocket makes one of the VM's sockets.
func (m *VMs) addSocket(uuid string, k *kept, s Socket, path string, perm Perm) error {
	l := &Listener{prove: always(tree.Principal{VM: uuid}), handle: s.Handle, served: served{tally: s.Tally}}
	l, err := m.listen(uuid, place{path: path}, perm, l)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	k.sockets = append(k.sockets, l)
	return nil
}

// sayUnmade logs that sockets of the VM are missing, if err is not nil.
func (m *VMs) sayUnmade(uuid string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, descriptors.ErrReserved), errors.Is(err, unix.EMFILE):
		m.rare.Warn("sockets").Err(err).Str("vm", uuid).Msg("the VM's sockets cannot be made")
	default:
		m.cfg.Log.Error().Err(err).Str("vm", uuid).Msg("the VM's sockets cannot be made")
	}
}

// listen makes a socket of the VM's, from which l accepts: l has who is at the other end, and
// who handles it.
func (m *VMs) listen(uuid string, at place, perm Perm, l *Listener) (*Listener, error) {
	name := "unix:" + at.path
	nl, err := m.cfg.Inherited.unix(at, name, perm)
	if err != nil {
		return nil, err
	}
	if err := descriptors.Check(nl); err != nil {
		_ = nl.Close()
		return nil, err
	}
	l.nl, l.asked, l.via, l.cpu, l.rare = nl, name, name, m.cpu(uuid), m.rare
	start(l).adopt(m.cfg.Inherited)
	return l, nil
}

// cpu returns the share of which an accept for the VM takes a turn.
func (m *VMs) cpu(uuid string) *cpu.Share {
	if m.cfg.CPU == nil {
		return nil
	}
	return m.cfg.CPU(uuid)
}

// folder makes RUN/UUID with the right mode and owner, also if an earlier run has left it,
// and returns what the sockets in it get.
func (m *VMs) folder(uuid, owner string) (p Perm, err error) {
	if p, err = m.perm(owner); err != nil {
		return p, err
	}
	dir := filepath.Join(m.cfg.Run, uuid)
	if err := os.MkdirAll(m.cfg.Run, 0o755); err != nil {
		return p, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return p, err
	}
	if err := ours(dir); err != nil {
		return p, err
	}
	mode := os.FileMode(folderMode)
	if p.UID >= 0 {
		mode = folderOpen
	}
	return p, Perm{Mode: mode, UID: -1, GID: p.GID}.apply(dir)
}

// perm returns the mode and owner of the VM's sockets.
func (m *VMs) perm(owner string) (Perm, error) {
	p := m.cfg.Perm
	if owner == "" {
		return p, nil
	}
	if _, err := strconv.ParseUint(owner, 10, 31); err != nil {
		u, err := user.Lookup(owner)
		if err != nil {
			return p, fmt.Errorf("%s: %w", vm.Prop9POwner, err)
		}
		owner = u.Uid
	}
	uid, err := strconv.Atoi(owner)
	p.UID = uid
	return p, err
}

// owner returns the property's text; a number is its digits.
func owner(v *vm.VM) string {
	p, _ := v.Prop(vm.Prop9POwner)
	return p.Text
}

// endSockets ends the sockets by Listener.Close or Listener.End.
func (k *kept) endSockets(by func(*Listener) error) {
	for _, l := range k.sockets {
		_ = by(l)
	}
	k.sockets = nil
}

// ours refuses a folder in which another user could have put files.
func ours(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(unix.Geteuid()) {
		return errors.New(dir + " is not a folder of the daemon's own user")
	}
	return nil
}
