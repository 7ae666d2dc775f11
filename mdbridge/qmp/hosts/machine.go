package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/mdbridge/qmp"
)

// What a QEMU may tell: events a second, and looks at its status because of one, after
// so many at once.
const (
	eventRate, eventBurst = 50, 256
	lookRate, lookBurst   = 5, 32
)

// maxNotes is how many events of a QEMU are on their way into the store at a time.
const maxNotes = 64

// machine is what is known of a VM's QEMU, also when that is gone.
type machine struct {
	uuid   string
	events journal
	dirty  chan struct{} // capacity 1: the status may be another
	notes  chan struct{} // a token for each event that is on its way

	looks, told *rate.Limiter // at the status because of an event; of events that are kept
	untold      uint64        // events that were not kept; for link.take

	mu      sync.Mutex
	path    string        // of the socket that has it; "": none has
	ended   chan struct{} // closed when that lets go
	client  *qmp.Client   // nil: not connected
	status  []byte        // a JSON object and LF
	version []byte        // the same
	silent  bool          // it was asked for its status, and does not answer
}

func newMachine(uuid string) *machine {
	return &machine{
		uuid: uuid, events: newJournal(uint64(time.Now().UnixMicro())),
		dirty: make(chan struct{}, 1), notes: make(chan struct{}, maxNotes),
		looks: rate.NewLimiter(lookRate, lookBurst), told: rate.NewLimiter(eventRate, eventBurst),
	}
}

// poke asks for another look at the status.
func (m *machine) poke() {
	select {
	case m.dirty <- struct{}{}:
	default:
	}
}

// claimed tells whether a socket has it.
func (m *machine) claimed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.path != ""
}

// connected lets the verbs reach the QEMU.
func (m *machine) connected(c *qmp.Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client = c
	text, ok := printableJSON(c.Greeting().Version, maxJSON)
	if !ok {
		text = []byte("null")
	}
	m.version = append(append([]byte{}, text...), '\n')
}

// disconnected ends that. What is known of the QEMU stays to be read; the journal
// goes on with the next one.
func (m *machine) disconnected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client, m.silent = nil, false
	m.status = []byte(`{"running":false,"status":"` + stateStopped + `"}` + "\n")
}

// setStatus keeps what query-status said. qmp/status is read from here and never
// asks QEMU: whoever opens a file must not wait for a process that may hang. again
// tells that the QEMU had not answered before.
func (m *machine) setStatus(text []byte) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	again, m.silent = m.silent, false
	m.status = append(append([]byte{}, text...), '\n')
	return again
}

// setSilent notes that the QEMU does not answer; false: that is known.
func (m *machine) setSilent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.silent {
		return false
	}
	m.silent = true
	last := bytes.TrimSpace(m.status)
	if len(last) == 0 {
		last = []byte("null")
	}
	m.status = fmt.Appendf(nil, `{"status":%q,"last":%s}`+"\n", stateUnresponsive, last)
	return true
}

// folder is a VM's qmp/; there is none as long as no QEMU was seen.
func (h *Hosts) folder(_ *fs.View, c *store.Cell) fs.Node {
	m := h.machine(c.UUID())
	if m == nil {
		m = h.expected(c)
	}
	if m == nil {
		return nil
	}
	path := func(name string) uint64 { return fs.DerivedPath(c.ID(), "qmp", name) }
	content := func(of *[]byte) func() ([]byte, error) {
		return func() ([]byte, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return *of, nil
		}
	}
	return fs.NewFolder(c.ID()+fs.SlotQMP, func() []fs.NamedNode {
		return []fs.NamedNode{
			{Name: "status", Node: fs.NewFile(path("status"), 0o400, content(&m.status))},
			{Name: "version", Node: fs.NewFile(path("version"), 0o400, content(&m.version))},
			{Name: "events", Node: fs.NewStream(path("events"), 0o400, m.events)},
		}
	})
}

// addVerbs gives every VM's ctl the verbs that its QEMU answers.
func (h *Hosts) addVerbs() {
	for verb, command := range map[string]string{
		"start": "cont", "stop": "stop", "powerdown": "system_powerdown", "reset": "system_reset", "quit": "quit",
	} {
		h.cfg.Tree.VMVerb(verb, func(call fs.Call, done func(error)) {
			if call.Arg != "" {
				done(errs.New(errs.Invalid, "%s takes nothing more here", verb))
				return
			}
			h.call(call, done, func(ctx context.Context, c *qmp.Client) error {
				_, err := c.Do(ctx, qmp.Command{Name: command})
				if command == "quit" && isEnd(c, err) {
					return nil // it may be gone before it answers
				}
				return err
			})
		})
	}
	h.cfg.Tree.VMVerb("qmp", func(call fs.Call, done func(error)) {
		h.call(call, done, func(ctx context.Context, c *qmp.Client) error {
			answer, err := c.Pass(ctx, []byte(call.Arg))
			if answer != nil {
				if text, ok := printableJSON(answer, len(answer)); ok {
					answer = text
				}
				call.Answer(append(answer, '\n'))
			}
			return err
		})
	})
}

// isEnd tells whether err is that the connection has ended, and no answer.
func isEnd(c *qmp.Client, err error) bool {
	var failed *qmp.Error
	return err != nil && c.Err() != nil && !errors.As(err, &failed)
}

// call lets f talk with the VM's QEMU, in a goroutine of its own, since a verb must
// return soon. How many there are is bounded by the requests that may wait on the
// admin's connections.
func (h *Hosts) call(call fs.Call, done func(error), f func(context.Context, *qmp.Client) error) {
	m := h.machine(call.Cell.UUID())
	var c *qmp.Client
	if m != nil {
		m.mu.Lock()
		c = m.client
		m.mu.Unlock()
	}
	if c == nil || !h.spawn(func() {
		ctx, cancel := context.WithTimeout(h.ctx, h.cfg.CallTime)
		defer cancel()
		done(failure(m.uuid, f(ctx, c)))
	}) {
		done(errs.New(errs.IO, "VM %s: no QEMU of it is connected", call.Cell.UUID()))
	}
}

// failure is what a caller learns of an error of his VM's QEMU: one that it answered
// with is about what was asked; any other is about the QEMU.
func failure(uuid string, err error) error {
	var failed *qmp.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed):
		return errs.New(errs.Invalid, "VM %s: QEMU: %s", uuid, printable(failed.Desc))
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.IO, "VM %s: its QEMU does not answer", uuid)
	}
	return errs.New(errs.IO, "VM %s: %s", uuid, printable(err.Error()))
}
