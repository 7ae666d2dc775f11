package redial

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"meta9/session/wire"
)

// peer is a server as docs/protocol.md has it, without anything that it serves. A
// request is known by its tag, which is used once.
type peer struct {
	coming   []*Request // sent, and not come yet
	answers  []*Request // given, and not come yet
	count    uint64
	running  map[uint64]*Request
	kept     map[uint64]*Request
	executed map[uint16]int
}

// take lets the next request come, which is executed, and answered or not.
func (p *peer) take(answer bool) {
	r := p.coming[0]
	p.coming = p.coming[1:]
	p.count++
	p.executed[r.Tag]++
	p.running[p.count] = r
	if answer {
		p.answer(p.count)
	}
}

// answer answers a request that runs.
func (p *peer) answer(number uint64) {
	r := p.running[number]
	delete(p.running, number)
	if !r.Type.Again() {
		p.kept[number] = r
	}
	p.answers = append(p.answers, r)
}

// resume is what becomes of numbers when the transport is another.
func (p *peer) resume(numbers []uint64) (states []uint8) {
	p.coming, p.answers = nil, nil
	for _, n := range numbers {
		switch {
		case n > p.count:
			states = append(states, wire.Unseen)
		case p.running[n] != nil:
			states = append(states, wire.Running)
		default:
			states = append(states, wire.Answered)
			if r := p.kept[n]; r != nil {
				p.answers = append(p.answers, r)
			}
		}
	}
	return states
}

// model is a window and its peer, and what a test does to them.
type model struct {
	w    Window
	peer peer
	all  []*Request
	open map[uint16]*Request
}

// Ask queues a request.
func (m *model) Ask(t *rapid.T) {
	r := &Request{Tag: uint16(len(m.all))}
	r.Type = rapid.SampledFrom([]wire.Type{wire.Twrite, wire.Tread, wire.Twalk}).Draw(t, "type")
	m.all = append(m.all, r)
	m.open[r.Tag] = r
	m.w.Add(r)
}

// Send sends the next one.
func (m *model) Send(t *rapid.T) {
	if len(m.w.Queued) == 0 {
		t.Skip()
	}
	m.peer.coming = append(m.peer.coming, m.w.next())
}

// Come lets one come.
func (m *model) Come(t *rapid.T) {
	if len(m.peer.coming) == 0 {
		t.Skip()
	}
	m.peer.take(rapid.Bool().Draw(t, "answer"))
}

// End answers the first that runs.
func (m *model) End(t *rapid.T) {
	if len(m.peer.running) == 0 {
		t.Skip()
	}
	m.peer.answer(slices.Min(slices.Collect(maps.Keys(m.peer.running))))
}

// Deliver lets an answer come.
func (m *model) Deliver(t *rapid.T) {
	if len(m.peer.answers) == 0 {
		t.Skip()
	}
	r := m.peer.answers[0]
	m.peer.answers = m.peer.answers[1:]
	if m.open[r.Tag] != r {
		t.Fatalf("request %d was answered twice", r.Tag)
	}
	delete(m.open, r.Tag)
	m.w.Remove(r)
}

// Cut makes another transport.
func (m *model) Cut(t *rapid.T) {
	states := m.peer.resume(m.w.unanswered())
	if i := slices.Index(states, wire.Unseen); i >= 0 && m.w.Sent[i].Number != m.peer.count+1 {
		t.Fatalf("%d is the first unseen, %d have come", m.w.Sent[i].Number, m.peer.count)
	}
	m.w.applyStates(states, wire.EN)
	if m.w.Count != m.peer.count {
		t.Fatalf("counted %d, %d have come", m.w.Count, m.peer.count)
	}
}

// Unsend takes back what has not come.
func (m *model) Unsend(*rapid.T) {
	m.peer.coming = nil
	m.w.unsend(m.peer.count + 1)
}

// Check is there for rapid.
func (*model) Check(*rapid.T) {}

// TestWindowModel: however often the transport is lost, and wherever, every request
// is answered, and each change executed once.
func TestWindowModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{open: map[uint16]*Request{}}
		m.peer = peer{running: map[uint64]*Request{}, kept: map[uint64]*Request{}, executed: map[uint16]int{}}
		t.Repeat(rapid.StateMachineActions(m))
		for m.Cut(t); len(m.open) > 0; {
			switch {
			case len(m.peer.answers) > 0:
				m.Deliver(t)
			case len(m.peer.running) > 0:
				m.End(t)
			default:
				m.Send(t)
				m.peer.take(true)
			}
		}
		for _, r := range m.all {
			if n := m.peer.executed[r.Tag]; n == 0 || n > 1 && !r.Type.Again() {
				t.Fatalf("%s was executed %d times", r.Type, n)
			}
		}
	})
}
