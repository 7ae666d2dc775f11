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
	"meta9/mdbridge/said"
)

// Limits for each QEMU, a second and at once: events that are kept, and queries of its
// status because of an event.
const (
	eventRate, eventBurst = 50, 256
	lookRate, lookBurst   = 5, 32
)

// maxNotes is how many events of a QEMU are on their way into the store at a time.
const maxNotes = 64

// machine is what is known of a VM's QEMU, also after it is gone.
type machine struct {
	uuid   string
	events journal
	look   chan struct{} // capacity 1: the status may have changed
	notes  chan struct{} // a token for each event on its way to the store

	looks, kept *rate.Limiter // at the status because of an event; of events that are kept
	dropped     uint64        // events that were not kept; for link.take

	mu      sync.Mutex
	path    string        // of the socket whose link has claimed it; "": none has
	ended   chan struct{} // closed when that link releases it
	client  *qmp.Client   // nil: not connected
	status  []byte        // a JSON object and LF
	version []byte        // the same
	silent  bool          // it was asked for its status, and does not answer
	runs    bool          // it says that its guest runs
	turns   uint64        // events that have changed that
}

func newMachine(uuid string) *machine {
	return &machine{
		uuid: uuid, events: newJournal(uint64(time.Now().UnixMicro())),
		look: make(chan struct{}, 1), notes: make(chan struct{}, maxNotes),
		looks: rate.NewLimiter(lookRate, lookBurst), kept: rate.NewLimiter(eventRate, eventBurst),
	}
}

// lookAgain asks for another look at the status.
func (m *machine) lookAgain() {
	select {
	case m.look <- struct{}{}:
	default:
	}
}

// claimed tells whether a socket has it.
func (m *machine) claimed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.path != ""
}

// connected gives the verbs a client of the QEMU.
func (m *machine) connected(c *qmp.Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client = c
	text := c.Greeting().Version
	if len(text) == 0 || len(text) > maxJSON {
		text = []byte("null")
	}
	m.version = append(append([]byte{}, text...), '\n')
}

// disconnected undoes connected. The files stay readable; the journal goes on with the
// VM's next QEMU.
func (m *machine) disconnected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client, m.silent, m.runs = nil, false, false
	m.status = []byte(`{"running":false,"status":"` + stateStopped + `"}` + "\n")
}

// turned notes an event by which the guest runs, or does not: a query for the status comes
// later, and meanwhile the VM may be asked for by another host where its guest runs by now.
func (m *machine) turned(runs bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = runs
	m.turns++
}

// turn tells the answer to a question that is asked now from events that come after it.
func (m *machine) turn() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.turns
}

// running tells whether the QEMU says that its guest runs.
func (m *machine) running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.client != nil && m.runs && !m.silent
}

// setStatus keeps query-status's answer for qmp/status: a read of that file must not wait
// for a QEMU, which may hang. runs is what it says of the guest, asked at turn. again: the QEMU
// had not answered before.
func (m *machine) setStatus(text []byte, runs bool, turn uint64) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.turns == turn {
		m.runs = runs
	}
	again, m.silent = m.silent, false
	m.status = append(append([]byte{}, text...), '\n')
	return again
}

// setSilent notes that the QEMU does not answer; false: it was noted before.
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

// folder is a VM's qmp/; nil: the VM never had a QEMU.
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

// addVerbs adds to every VM's ctl the verbs that its QEMU carries out.
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
				call.Answer(append(answer, '\n'))
			}
			return err
		})
	})
}

// isEnd tells whether err means that the connection ended before an answer.
func isEnd(c *qmp.Client, err error) bool {
	var failed *qmp.Error
	return err != nil && c.Err() != nil && !errors.As(err, &failed)
}

// call runs f with the VM's QEMU in a goroutine of its own, since a verb must not block.
// The limit of waiting requests on the admin's connections bounds how many there are.
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

// failure is the error for the caller of a verb: Invalid with the QEMU's own text where it
// answered with an error, else one that says that the QEMU failed.
func failure(uuid string, err error) error {
	var failed *qmp.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed):
		return errs.New(errs.Invalid, "VM %s: QEMU: %s", uuid, said.Text(failed.Desc))
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.IO, "VM %s: its QEMU does not answer", uuid)
	}
	return errs.New(errs.IO, "VM %s: %s", uuid, said.Text(err.Error()))
}
