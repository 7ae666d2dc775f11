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

// Modes of the folder RUN/UUID. It is always the daemon's own, since who could
// write there could lead the daemon's chown astray; a VM's owner, who may be in
// no group of ours, gets through it by folderOpen.
const (
	folderMode = 0o710
	folderOpen = 0o711
)

// VMConfig is what VMs is told.
type VMConfig struct {
	Run     string   // the run folder; sockets are Run/UUID/NAME
	Sockets []Socket // in the VMs' folders; none: switched off
	Devices []Device // that a VM may have
	Bound   []Device // sockets that are made where a VM's property says
	Nobody  bool     // nobody is handed over, too: he may prove by MUMBLE who he is
	Perm    Perm     // of sockets; the group is the folder's too
	VM      func(uuid string) *vm.VM
	CPU     func(uuid string) *cpu.Share // of the VM: it dials no faster than its turns come; nil: as it likes
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

// isOf tells whether the VM has it.
func (s *Socket) isOf(v *vm.VM) bool {
	if s.If == "" {
		return true
	}
	p, _ := v.Prop(s.If)
	return p.Kind == ordjson.True
}

// VMs keeps each VM's sockets and dialled devices in step with the VM: they are
// made when it is, change with its properties, and go with it. What one VM asks
// for in vain is logged, and keeps nobody else waiting.
type VMs struct {
	cfg  VMConfig
	rare *rarelog.Log // of all VMs' sockets together: a thousand that run dry are one line
	wake chan struct{}
	done chan struct{} // closed when work has ended

	// work's alone:
	kept     map[string]*kept
	devices  map[*dialled]bool // of all VMs
	away     int               // of those, the number that was said last
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
	lost    bool                // they cannot be made again, and that was said
}

// NewVMs starts with no VM: it is told of all by Changed.
func NewVMs(cfg VMConfig) *VMs {
	m := &VMs{
		cfg: cfg, rare: &rarelog.Log{Log: cfg.Log},
		kept: map[string]*kept{}, devices: map[*dialled]bool{}, changed: map[string]bool{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go m.work()
	return m
}

// Sweep looks at the folders that an earlier run left, and clears them away
// where the VM is gone.
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

// Await calls done when all that Changed was told before is done, or when that
// will never be, since Close was called. It returns at once.
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

// catchUp looks at every VM that has changed; false: Close was called.
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

// leave is the end of work: Close's promise.
func (m *VMs) leave() {
	m.mu.Lock()
	handing := m.handing
	m.mu.Unlock()
	for _, k := range m.kept {
		if handing {
			m.pass(k)
			continue
		}
		k.closeSockets()
		for _, b := range k.bound {
			b.close()
		}
	}
	for d := range m.devices {
		m.hangUp(d, nil)
	}
}

// look brings one VM's sockets and devices in step with the VM.
func (m *VMs) look(uuid string) {
	k, v := m.kept[uuid], m.cfg.VM(uuid)
	if v == nil {
		m.forget(uuid, k)
		return
	}
	if k == nil {
		k = &kept{devices: map[string]*dialled{}, bound: map[string]*bound{}}
		m.kept[uuid] = k
		m.open(v, k)
	} else if owner(v) != k.owner {
		k.endSockets() // who has connected as the owner before is no longer
		m.open(v, k)
	} else {
		m.optional(v, k)
	}
	for _, d := range m.cfg.Devices {
		m.device(d, v, k)
	}
	for _, d := range m.cfg.Bound {
		m.bind(d, v, k)
	}
}

// forget clears away what a VM had, or an earlier run has left of it.
func (m *VMs) forget(uuid string, k *kept) {
	if k != nil {
		k.closeSockets()
		for _, d := range k.devices {
			m.hangUp(d, errHungUp)
		}
		for _, b := range k.bound {
			b.end()
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
	_ = os.Remove(dir) // not if somebody else keeps something in it
}

// open makes the VM's sockets. At the first that cannot be made it stops and says so in
// the log: that one and those after it are missing.
func (m *VMs) open(v *vm.VM, k *kept) {
	k.owner = owner(v)
	if len(m.cfg.Sockets) == 0 {
		return
	}
	perm, err := m.perm(k.owner)
	if err == nil {
		err = m.folder(v.UUID, perm)
	}
	for i := 0; err == nil && i < len(m.cfg.Sockets); i++ {
		if s := m.cfg.Sockets[i]; s.isOf(v) {
			err = m.listen(v.UUID, k, s, perm)
		}
	}
	m.sayUnmade(v.UUID, err)
}

// optional makes and ends the sockets that the VM has by a property, as that says now.
func (m *VMs) optional(v *vm.VM, k *kept) {
	for _, s := range m.cfg.Sockets {
		if s.If == "" {
			continue
		}
		asked := "unix:" + filepath.Join(m.cfg.Run, v.UUID, s.Name)
		i := slices.IndexFunc(k.sockets, func(l *Listener) bool { return l.asked == asked })
		switch wanted := s.isOf(v); {
		case wanted && i < 0:
			perm, err := m.perm(k.owner)
			if err == nil {
				err = m.folder(v.UUID, perm)
			}
			if err == nil {
				err = m.listen(v.UUID, k, s, perm)
			}
			m.sayUnmade(v.UUID, err)
		case !wanted && i >= 0:
			_ = k.sockets[i].End()
			k.sockets = slices.Delete(k.sockets, i, i+1)
		}
	}
}

// sayUnmade says that sockets of the VM are missing, if err says why.
func (m *VMs) sayUnmade(uuid string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, descriptors.ErrReserved), errors.Is(err, unix.EMFILE):
		m.rare.Warn("sockets").Err(err).Str("vm", uuid).Msg("the VM's sockets cannot be made")
	default:
		m.cfg.Log.Error().Err(err).Str("vm", uuid).Msg("the VM's sockets cannot be made")
	}
}

// listen makes one socket, on which everyone is the VM: that the file's mode and
// its folder let only the VM's QEMU reach it is all the proof there is.
func (m *VMs) listen(uuid string, k *kept, s Socket, perm Perm) error {
	path := filepath.Join(m.cfg.Run, uuid, s.Name)
	nl, err := m.cfg.Inherited.unix(place{path: path}, "unix:"+path, perm)
	if err == nil {
		if err = descriptors.Check(nl); err != nil {
			_ = nl.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	l := start(&Listener{
		nl: nl, asked: "unix:" + path, via: "unix:" + path, prove: always(tree.Principal{VM: uuid}), handle: s.Handle,
		cpu: m.cpu(uuid), rare: m.rare, served: served{tally: s.Tally},
	})
	l.adopt(m.cfg.Inherited)
	k.sockets = append(k.sockets, l)
	return nil
}

// cpu is whose turn it is to be when a connection of the VM is accepted.
func (m *VMs) cpu(uuid string) *cpu.Share {
	if m.cfg.CPU == nil {
		return nil
	}
	return m.cfg.CPU(uuid)
}

// folder makes RUN/UUID as it should be, also where one was left.
func (m *VMs) folder(uuid string, p Perm) error {
	dir := filepath.Join(m.cfg.Run, uuid)
	if err := os.MkdirAll(m.cfg.Run, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := ours(dir); err != nil {
		return err
	}
	mode := os.FileMode(folderMode)
	if p.UID >= 0 {
		mode = folderOpen
	}
	return Perm{Mode: mode, UID: -1, GID: p.GID}.apply(dir)
}

// perm is what the VM's sockets get, with their owner.
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

// owner is the property as it stands, a number as its text.
func owner(v *vm.VM) string {
	p, _ := v.Prop(vm.Prop9POwner)
	return p.Text
}

func (k *kept) closeSockets() {
	for _, l := range k.sockets {
		l.Close()
	}
	k.sockets = nil
}

// endSockets is closeSockets, with the connections that have come by them.
func (k *kept) endSockets() {
	for _, l := range k.sockets {
		_ = l.End()
	}
	k.sockets = nil
}

// ours refuses a folder that somebody else could have put other files in.
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
