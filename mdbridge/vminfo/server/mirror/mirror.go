// Package mirror makes a store the copy of another vminfod's, or meta9d's: all VMs
// of the ready event, and then every event. When the stream ends it connects again,
// with backoff, and lists again; each VM that differs is one change. While there is no
// stream the VMs stay as they are.
//
// A stream may be silent for days, and an upstream process that is stopped keeps its
// connections. So the Mirror asks for /ping while it has a stream; as long as /ping is
// not answered the VMs may be stale. The stream stays open: it goes on when the upstream
// does.
//
// One goroutine does all this (Run), and one more asks for /ping as long as there is
// a stream; State may be called from any. Mirror.mu guards the state and is never
// held over anything that waits.
package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"meta9/backoff"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/mdbridge/vminfo"
	"meta9/mdbridge/vminfo/server"
)

// connectAgain makes the pauses before it connects again.
var connectAgain = backoff.Backoff{First: 100 * time.Millisecond, Last: 10 * time.Second}

// The sum of these is how long it takes at most to see that the upstream does not answer;
// it must be well below 15 s.
const (
	pingEvery = 4 * time.Second
	pingTime  = 5 * time.Second // that an answer may take
)

// maxErrors is how many errors are remembered.
const maxErrors = 5

// What is on its way to the store at a time: changes, and bytes of VMs.
const (
	maxWindow      = 256
	maxWindowBytes = 16 << 20
)

// What an upstream may have a mirror keep: VMs; those that wait for a name of another VM's, and
// bytes of them; refusals that are remembered. An upstream that was taken over may list VMs
// without end.
const (
	maxVMs        = 1 << 17
	maxClashes    = 1024
	maxClashBytes = 64 << 20
	maxRefused    = 1024
)

// author is the "by" of what the mirror changes.
const author = "mirror"

// Mirror copies one upstream into one store, which is read-only for all others.
type Mirror struct {
	st     *store.Store
	client *vminfo.Client
	log    zerolog.Logger

	window  []*change           // Run's: on their way to the store
	bytes   int                 // Run's: of the window
	inside  map[string]bool     // Run's: the VMs of the window
	clashes map[string][]byte   // Run's: VMs, whole, that have a name which another VM has
	waiting int                 // Run's: bytes of clashes
	refused map[string]struct{} // Run's: VMs whose refusal was logged

	complaints *rate.Limiter // a few at once, then one in ten seconds: each VM may be refused
	most       int           // maxVMs

	every, patience time.Duration // of pings

	mu    sync.Mutex
	state server.Mirror
}

// New makes the Mirror of the service at addr into st. It does nothing before Run.
func New(addr string, st *store.Store, log zerolog.Logger) (*Mirror, error) {
	c, err := vminfo.New(addr, "meta9d mirror")
	if err != nil {
		return nil, err
	}
	return &Mirror{
		st: st, client: c, log: log, inside: map[string]bool{}, clashes: map[string][]byte{}, refused: map[string]struct{}{},
		complaints: rate.NewLimiter(0.1, 64), most: maxVMs, every: pingEvery, patience: pingTime,
		state: server.Mirror{From: addr, Stale: true, Why: "not connected yet"},
	}, nil
}

// State is the state for /status.
func (m *Mirror) State() server.Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.state
	st.Errors = slices.Clone(st.Errors)
	return st
}

// Run follows the upstream until ctx ends.
func (m *Mirror) Run(ctx context.Context) {
	defer m.client.Close()
	for tries := 1; ctx.Err() == nil; tries++ {
		began := time.Now()
		listed, err := m.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		// An upstream that sends garbage after each list is not asked again at once.
		if listed && (!errors.Is(err, vminfo.ErrNoEvent) || time.Since(began) > connectAgain.Last) {
			tries = 1
		}
		m.streamEnded(err, listed)
		connectAgain.Wait(ctx, tries)
	}
}

// streamEnded notes that there is no stream. wasListed: there was one, and it had given all
// VMs. Only the end of such a one is logged, not a failed attempt to connect: a host that is
// down would fill the log.
func (m *Mirror) streamEnded(err error, wasListed bool) {
	m.stale("no events: " + err.Error())
	m.addError(err.Error())
	if wasListed {
		m.log.Warn().Err(err).Str("upstream", m.state.From).Msg("the mirror has lost its upstream; what it shows may be old")
	}
}

// stale says why what is shown may be old; "": it is current.
func (m *Mirror) stale(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Stale, m.state.Why = why != "", why
}

// ping asks for /ping at intervals until ctx ends. Any HTTP answer will do.
func (m *Mirror) ping(ctx context.Context) {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for silent := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := m.pingOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && silent:
			m.stale("")
			m.log.Info().Str("upstream", m.state.From).Msg("the mirror's upstream answers again")
		case err != nil && !silent:
			m.stale("it does not answer: " + err.Error())
			m.addError("/ping: " + err.Error())
			m.log.Warn().Err(err).Str("upstream", m.state.From).Msg("the mirror's upstream does not answer; what it shows may be old")
		}
		silent = err != nil
	}
}

func (m *Mirror) pingOnce(ctx context.Context) error {
	late := fmt.Errorf("no answer to /ping within %v", m.patience)
	ctx, cancel := context.WithTimeoutCause(ctx, m.patience, late)
	defer cancel()
	_, err := m.client.Get(ctx, "/ping")
	switch {
	case errors.As(err, new(*vminfo.StatusError)):
		return nil
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// addError keeps an error for the status, which has the newest maxErrors.
func (m *Mirror) addError(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Errors = append(m.state.Errors, server.MirrorError{Text: text, Time: time.Now()})
	if over := len(m.state.Errors) - maxErrors; over > 0 {
		m.state.Errors = slices.Delete(m.state.Errors, 0, over)
	}
}

// follow takes one stream to its end. listed: it took all VMs from it.
func (m *Mirror) follow(ctx context.Context) (listed bool, err error) {
	s, err := m.client.Events(ctx)
	if err != nil {
		return false, err
	}
	defer s.Close()
	if err := m.relist(s); err != nil {
		return false, err
	}
	m.mu.Lock()
	m.state.Refreshed = time.Now()
	m.mu.Unlock()
	m.stale("")
	defer m.runBeside(ctx, m.ping)()
	m.log.Info().Str("upstream", m.state.From).Int("vms", m.st.Count()).Msg("the mirror has all VMs")
	for {
		if !s.Buffered() {
			m.flush()
		}
		ev, over, err := s.NextOf(m.maxVMBytes(), nil)
		if err == nil {
			err = m.applyEvent(ev, over)
		}
		if err != nil {
			m.flush()
			return true, ended(err)
		}
	}
}

// runBeside runs f in a goroutine. end cancels f's context and waits for its return.
func (m *Mirror) runBeside(ctx context.Context, f func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the event stream has ended")
	}
	return err
}

// maxVMBytes is how many bytes of JSON a VM within the store's limits can have: each byte
// may be written as six (\u0001). Without a limit it is that of any reply.
func (m *Mirror) maxVMBytes() int {
	const props, perKey = 1 << 20, 16 // of properties, which have less than that; beside a name and a value
	l := m.st.Limits()
	if l.Bytes <= 0 || l.Keys <= 0 {
		return vminfo.MaxBytes
	}
	return int(min(6*(l.Bytes+props)+int64(perKey*l.Keys), vminfo.MaxBytes))
}

// relist makes the store hold exactly the VMs of the ready event that a stream begins
// with. It applies them as they come, since all together may have any size. At the end it
// deletes the others, and then gives VMs the names that have become free.
func (m *Mirror) relist(s *vminfo.Stream) error {
	there := make(map[string]bool)
	clear(m.clashes)
	m.waiting = 0
	clear(m.refused)
	_, _, err := s.NextOf(m.maxVMBytes(), func(text []byte, over bool) error {
		uuid, err := vm.ParseUUID(vminfo.UUIDOf(text))
		if err != nil {
			return fmt.Errorf("%w: a VM of the list: %w", vminfo.ErrNoEvent, err)
		}
		if there[uuid] = true; len(there) > m.most {
			return fmt.Errorf("%w: the list has more than %d VMs, the most that a mirror takes", vminfo.ErrNoEvent, m.most)
		}
		m.putOr(&change{uuid: uuid, text: text}, over)
		return nil
	})
	m.flush()
	if err != nil {
		return ended(err)
	}
	m.st.Cells(0, func(c *store.Cell) bool {
		if !there[c.UUID()] {
			m.put(&change{uuid: c.UUID()})
		}
		return true
	})
	m.flush()
	return nil
}

// putOr is put, but for a VM that is larger than any that the store takes, and for a new one
// of too many.
func (m *Mirror) putOr(c *change, over bool) {
	fresh := c.text != nil && m.st.Cell(c.uuid) == nil
	if fresh && m.st.Count()+len(m.window) >= m.most {
		m.flush() // there may be deletions in the window
	}
	if fresh && m.st.Count() >= m.most {
		m.refuse(c.uuid, fmt.Errorf("%d VMs is the most that a mirror takes", m.most))
		return
	}
	if over {
		m.refuse(c.uuid, fmt.Errorf("it has more than %d bytes of JSON", m.maxVMBytes()))
		return
	}
	m.put(c)
}

// applyEvent sends the change of one event to the store.
func (m *Mirror) applyEvent(ev *vminfo.Event, over bool) error {
	c := &change{uuid: ev.UUID, text: ev.VM}
	switch ev.Type {
	case vminfo.Create, vminfo.Modify:
	case vminfo.Delete:
		c.text = nil
	case vminfo.Fault:
		return fmt.Errorf("the upstream says: %.200s", ev.Error)
	default:
		return nil // a type of event that is not known here
	}
	uuid, err := vm.ParseUUID(c.uuid)
	if err != nil {
		return fmt.Errorf("%w: it is of no VM: %w", vminfo.ErrNoEvent, err)
	}
	c.uuid = uuid
	m.putOr(c, over && c.text != nil)
	return nil
}

// same tells whether the store's VM has the same JSON.
func same(c *store.Cell, text []byte) bool {
	m := c.VM()
	return m != nil && bytes.Equal(m.AppendJSON(nil, false), text)
}
