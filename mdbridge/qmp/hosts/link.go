package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"meta9/descriptors"
	"meta9/fs"
	"meta9/fs/cpu"
	"meta9/fs/vm"
	"meta9/mdbridge/qmp"
	"meta9/mdbridge/said"
)

// link is one socket. Its goroutine owns it but for id, which Hosts.mu guards.
type link struct {
	hosts   *Hosts
	path    string
	id      identity
	renewed chan struct{}           // capacity 1: there is another socket at the path
	machine atomic.Pointer[machine] // the VM of the QEMU that is connected; for onEvent
	place   cpu.Place               // held while what the QEMU says is read; the reading goroutine's
	said    string                  // what was last logged as wrong
	told    string                  // the state that Config.Elsewhere was told last; "": none
	toldAt  time.Time

	complaints *rate.Limiter // a few at once, then one in ten seconds: a QEMU may fail with a new text each time
	quiet      atomic.Bool   // connected, and no greeting came
}

// renew tells the link's goroutine that there is another socket at its path.
func (l *link) renew() {
	select {
	case l.renewed <- struct{}{}:
	default:
	}
}

// refusal is an error that lasts: the link tries again only when there is another socket
// at the path, or when until, which may be nil, is closed.
type refusal struct {
	error
	until <-chan struct{}
}

func (r refusal) Unwrap() error { return r.error }

// run connects, again and again, until the socket is gone.
func (l *link) run() {
	for tries := 1; ; tries++ {
		began := time.Now()
		met, err := l.connect()
		if l.hosts.ctx.Err() != nil {
			return
		}
		if met && time.Since(began) > connectAgain.Last { // not for a QEMU that connects and ends at once
			tries = 1
		}
		if !met && !errors.Is(err, errQueue) { // in a queue it is not known who is there
			l.quiet.Store(false)
			l.hosts.stopEarlierAt(l.path, "")
		}
		if l.hosts.forgetIfGone(l) {
			return
		}
		l.logRarely(err)
		if !l.wait(connectAgain.Pause(tries), err) {
			return
		}
	}
}

// wait waits until the next attempt; false: there is none. A link that was refused only
// looks whether its socket is still there: if it connected, other clients of that QEMU
// would have to wait.
func (l *link) wait(pause time.Duration, err error) bool {
	var r refusal
	refused := errors.As(err, &r)
	if refused || errors.Is(err, errQueue) {
		pause = connectAgain.Last
	}
	for {
		select {
		case <-l.renewed:
			return true
		case <-r.until:
			return true
		case <-l.hosts.ctx.Done():
			return false
		case <-time.After(pause):
		}
		if !refused {
			return true
		}
		if l.hosts.forgetIfGone(l) {
			return false
		}
	}
}

// logRarely logs an error, unless the last one had the same text: attempts go on as long
// as the socket is there.
func (l *link) logRarely(err error) {
	text := said.Text(err.Error())
	if errors.Is(err, errLibvirt) || errors.Is(err, errProxmox) {
		// A pattern that finds one finds all of the host's: that is one line.
		l.hosts.mu.Lock()
		l.hosts.refused++
		l.hosts.mu.Unlock()
		l.hosts.rare.Warn("monitors").Str("socket", l.path).Str("error", text).Msg("no QEMU here")
		return
	}
	if text != l.said && l.complaints.Allow() {
		l.said = text
		l.hosts.cfg.Log.Warn().Str("socket", l.path).Str("error", text).Msg("no QEMU here")
	}
}

// errQueue is why a QEMU is not followed that does not greet.
var errQueue = errors.New("no greeting yet; another client may have this socket, which QEMU serves to one at a time: give it one of our own")

// connect talks with the QEMU of the socket as long as it is there. met tells that
// its VM was entered.
//
// A QEMU serves the clients of a socket one after the other. A client that waits in its
// queue for long gets the place of the other client when that connects again. So the link
// leaves the queue soon, and tries again from time to time: the QEMU may only have hung.
func (l *link) connect() (met bool, err error) {
	if err := othersMonitor(l.path); err != nil {
		return false, refusal{err, nil}
	}
	// A unix socket connects at once, or says that its queue is full.
	ctx, cancel := context.WithTimeout(l.hosts.ctx, l.hosts.cfg.CallTime)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", l.path)
	cancel()
	if errors.Is(err, syscall.EAGAIN) {
		return false, l.queued()
	}
	if err != nil {
		return false, err
	}
	if err := descriptors.Check(conn); err != nil {
		conn.Close()
		return false, err
	}
	defer l.place.Give() // when nobody reads any more
	c, err := qmp.New(l.hosts.ctx, incoming{conn, l}, qmp.Config{
		GreetTime: quietTime, Limit: l.hosts.cfg.Limit, Unasked: maxUnasked, OnEvent: l.onEvent,
	})
	if errors.Is(err, qmp.ErrNoGreeting) {
		return false, l.queued()
	}
	l.quiet.Store(false)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := l.checkMonitor(c); err != nil {
		return false, err
	}
	return l.serve(c)
}

// incoming is a connection of which what comes in is handled with a place.
type incoming struct {
	net.Conn
	link *link
}

func (in incoming) Read(b []byte) (int, error) {
	l := in.link
	l.place.Give()
	n, err := in.Conn.Read(b)
	who := fs.Principal{}
	if m := l.machine.Load(); m != nil {
		who.VM = m.uuid
	}
	l.place.TakeOrForce(l.hosts.cfg.Tree.CPU(who, false))
	return n, err
}

// queued says that the QEMU does not answer.
func (l *link) queued() error {
	l.quiet.Store(true)
	l.hosts.setEarlierSilent(l.path)
	return errQueue
}

// serve finds out whose QEMU it is, and follows it.
func (l *link) serve(c *qmp.Client) (met bool, err error) {
	h := l.hosts
	uuid, err := l.uuid(c)
	if err != nil {
		return false, err
	}
	h.stopEarlierAt(l.path, uuid)
	m, owner, ended := h.claim(uuid, l)
	if m == nil {
		return false, refusal{fmt.Errorf("VM %s is at %s already; this socket is not used", uuid, owner), ended}
	}
	defer h.release(m)
	m.connected(c)
	l.machine.Store(m) // before the first query-status, so that no event after it is missed
	met, err = l.follow(c, m)
	l.machine.Store(nil)
	m.disconnected()
	if met && h.ctx.Err() == nil {
		h.cfg.Log.Info().Str("vm", uuid).Str("socket", l.path).Str("error", said.Text(err.Error())).Msg("the QEMU is gone")
		l.said = said.Text(err.Error())
		h.setState(uuid, stateStopped)
	}
	return met, err
}

// noUUID is what query-uuid answers of a QEMU that has none.
const noUUID = "00000000-0000-0000-0000-000000000000"

// uuid is that of the VM that the QEMU is.
func (l *link) uuid(c *qmp.Client) (string, error) {
	var is struct{ UUID string }
	err := l.ask(c, "query-uuid", &is)
	var failed *qmp.Error
	switch {
	case errors.As(err, &failed) && failed.Class == qmp.CommandNotFound:
		return "", refusal{errors.New("this is no QEMU with a VM: it has no query-uuid"), nil}
	case err != nil:
		return "", err
	}
	bound, isBound := l.hosts.cfg.Bind[l.path]
	switch {
	case is.UUID != noUUID:
	case !isBound:
		return "", refusal{errors.New("this QEMU has no UUID: start it with -uuid UUID, or set qmp.bind for its socket in the settings"), nil}
	default:
		is.UUID = bound
	}
	uuid, err := vm.ParseUUID(is.UUID)
	if err != nil {
		return "", refusal{err, nil}
	}
	if pinned, err := vm.ParseUUID(bound); isBound && (err != nil || uuid != pinned) {
		return "", refusal{fmt.Errorf("this QEMU says that it is VM %s, and qmp.bind in the settings says that its socket is VM %s's", uuid, said.Text(bound)), nil}
	}
	return uuid, nil
}

// runAfter runs f after d, unless stop is called before. stop waits for f if it has
// begun.
func runAfter(d time.Duration, f func()) (stop func()) {
	ran := make(chan struct{})
	timer := time.AfterFunc(d, func() {
		defer close(ran)
		f()
	})
	return func() {
		if !timer.Stop() {
			<-ran
		}
	}
}

// ask runs a command that needs no arguments and reads what it returns.
func (l *link) ask(c *qmp.Client, command string, into any) error {
	ctx, cancel := context.WithTimeout(l.hosts.ctx, l.hosts.cfg.CallTime)
	defer cancel()
	return l.do(ctx, c, command, into)
}

// askPatiently is ask without a limit of time: a QEMU gets no second question before it
// has answered the first, since unread questions would fill its socket. Meanwhile the VM
// is unresponsive.
func (l *link) askPatiently(c *qmp.Client, m *machine, command string, into any) error {
	answered := runAfter(min(l.hosts.cfg.CallTime, quietTime), func() { l.hosts.setSilent(m, l.path) })
	defer answered()
	return l.do(l.hosts.ctx, c, command, into)
}

func (l *link) do(ctx context.Context, c *qmp.Client, command string, into any) error {
	ret, err := c.Do(ctx, qmp.Command{Name: command})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(ret, into); err != nil {
		return fmt.Errorf("%s returned something else: %w", command, err)
	}
	return nil
}

// retryTime is the pause before a QEMU that answered with an error is asked again.
const retryTime = time.Second

// follow keeps the VM's state as its QEMU's, until the connection ends. It asks after each
// event that may have changed the state, and every ProbeTime, since a QEMU that hangs
// sends no event.
func (l *link) follow(c *qmp.Client, m *machine) (met bool, err error) {
	var is struct{ Name string }
	for named := false; ; {
		err = nil
		if !named {
			err = l.askPatiently(c, m, "query-name", &is)
			named = err == nil
		}
		if err == nil {
			err = l.refresh(c, m, is.Name, !met)
			met = met || err == nil
		}
		pause := l.hosts.cfg.ProbeTime
		if err != nil && c.Err() == nil {
			l.logRarely(fmt.Errorf("VM %s: %w", m.uuid, err))
			pause = retryTime
		}
		select {
		case <-m.look:
			if m.looks.Wait(l.hosts.ctx) != nil {
				return met, l.hosts.ctx.Err()
			}
		case <-time.After(pause):
		case <-c.Done():
			return met, c.Err()
		case <-l.hosts.ctx.Done():
			return met, l.hosts.ctx.Err()
		}
	}
}

// refresh asks for the status and enters it.
func (l *link) refresh(c *qmp.Client, m *machine, name string, first bool) error {
	var text json.RawMessage
	turn := m.turn()
	if err := l.askPatiently(c, m, "query-status", &text); err != nil {
		return err
	}
	var status struct{ Status string }
	if err := json.Unmarshal(text, &status); err != nil {
		return fmt.Errorf("query-status returned something else: %w", err)
	}
	if !runStates[status.Status] {
		l.hosts.rare.Warn("state "+m.uuid).Str("vm", m.uuid).Str("socket", l.path).Str("state", said.Text(status.Status)).
			Msg("the QEMU says a state that none has")
		status.Status, text = stateUnknown, nil
	}
	if text == nil || len(text) > maxJSON {
		text = fmt.Appendf(nil, `{"status":%q,"running":%t}`, status.Status, status.Status == "running")
	}
	if m.setStatus(text, status.Status == stateRunning, turn) {
		l.hosts.cfg.Log.Info().Str("vm", m.uuid).Str("socket", l.path).Msg("the QEMU answers again")
	}
	if first {
		l.said = ""
		l.hosts.cfg.Log.Info().Str("vm", m.uuid).Str("name", said.Text(name)).Str("socket", l.path).Str("state", status.Status).Msg("QEMU")
	}
	if another, err := l.elsewhere(m.uuid, status.Status, first); err != nil || another {
		return err
	}
	return l.hosts.enter(m.uuid, found{name, l.path, status.Status, first})
}

// elsewhere tells Config.Elsewhere of a QEMU whose VM is not here. True: no VM is to be made of
// it, since another host has that.
func (l *link) elsewhere(uuid, state string, first bool) (another bool, err error) {
	h := l.hosts
	if h.cfg.Elsewhere == nil || h.cfg.Tree.Store().Cell(uuid) != nil {
		l.told = ""
		return false, nil
	}
	if !first && state == l.told && time.Since(l.toldAt) < elsewhereTime {
		return false, nil // none is made but of one that is first
	}
	if another, err = h.cfg.Elsewhere(h.ctx, uuid, state); err == nil {
		l.told, l.toldAt = state, time.Now()
	}
	return another, err
}

// stateChanges are the events after which the status may be another. query-status says
// which: by the time an event is read another may have followed.
var stateChanges = map[string]bool{
	"STOP": true, "RESUME": true, "SUSPEND": true, "SUSPEND_DISK": true, "WAKEUP": true,
	"SHUTDOWN": true, "RESET": true, "WATCHDOG": true, "GUEST_PANICKED": true, "GUEST_CRASHLOADED": true,
	"BLOCK_IO_ERROR": true, "MIGRATION": true, "COLO_EXIT": true,
}

// onEvent handles an event, in the client's goroutine.
func (l *link) onEvent(e qmp.Event) {
	m := l.machine.Load()
	if m == nil {
		return // no VM is entered yet; query-status comes later, and sees what this event did
	}
	switch e.Name {
	case "STOP":
		m.turned(false)
	case "RESUME":
		m.turned(true)
	}
	if stateChanges[e.Name] {
		m.lookAgain()
	}
	if !m.kept.Allow() {
		m.dropped++
		l.hosts.rare.Warn("events "+m.uuid).Str("vm", m.uuid).Str("socket", l.path).Msg("the QEMU tells more events than are kept")
		return
	}
	if m.dropped > 0 {
		m.events.add(fmt.Appendf(nil, `{"type":"lost","events":%d}`, m.dropped))
		m.dropped = 0
	}
	m.events.add(eventLine(&e))
	l.place.Give() // note may wait
	l.hosts.note(m, said.Text(e.Name))
}
