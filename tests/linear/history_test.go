package linear

import (
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"meta9/tests/linear/order"
)

// history is what the clients of a round asked for and were told, with times of
// one monotonic clock. Clients use it at the same time.
type history struct {
	begun  time.Time
	mu     sync.Mutex
	ops    []porcupine.Operation
	open   []openOp // their ends are not known yet
	counts map[string]int
}

// openOp is an operation that may take effect for as long as a meta9d lives.
type openOp struct {
	op  porcupine.Operation
	gen int // which meta9d
}

func newHistory() *history { return &history{begun: time.Now(), counts: map[string]int{}} }

func (h *history) now() int64 { return int64(time.Since(h.begun)) }

// add adds an operation that took effect between call and ret, if it did.
func (h *history) add(call, ret int64, in input, out output) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{Input: in, Output: out, Call: call, Return: ret})
	h.counts[in.who]++
}

// addOpen adds one whose client was told nothing, and that may still take effect
// while the meta9d of that generation lives; a drop surely does.
func (h *history) addOpen(call int64, gen int, in input) {
	out := output{how: maybe}
	if in.kind == drop {
		out.how = done
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(h.open, openOp{porcupine.Operation{Input: in, Output: out, Call: call}, gen})
	h.counts[in.who]++
}

// take gives all operations of a life, now that it is known when each meta9d was dead,
// and forgets them; but for those that the one that lives now may still do.
func (h *history) take(dead []int64) []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	ops, open := h.ops, h.open
	h.ops, h.open = nil, nil
	for _, o := range open {
		if o.gen < len(dead) {
			o.op.Return = dead[o.gen]
		} else {
			o.op.Return = h.now()
			h.open = append(h.open, o)
		}
		if o.op.Return >= o.op.Call { // what was asked of a dead one has not happened
			ops = append(ops, o.op)
		}
	}
	spare(ops)
	return ops
}

// spare tells each change which truncations were asked for while it was under way.
// Changes and truncations are in the order of their arrival, and of two that are under
// way at the same time nobody outside knows which that is. (A truncation is answered
// at once, and a change that came before it may be seen long after.)
func spare(ops []porcupine.Operation) {
	type at struct{ vm, key int }
	holds := map[at][]porcupine.Operation{}
	for _, op := range ops {
		if in := op.Input.(input); in.kind == hold {
			k := at{in.vm, in.key}
			holds[k] = append(holds[k], op)
		}
	}
	for i := range ops {
		in := ops[i].Input.(input)
		switch in.kind {
		case put, splice, extend, clunk:
		default:
			continue
		}
		for _, h := range holds[at{in.vm, in.key}] {
			if h.Call <= ops[i].Return && h.Return >= ops[i].Call {
				in.spare |= h.Input.(input).hold
			}
		}
		if in.spare &^= in.hold; in.spare != 0 {
			ops[i].Input = in
		}
	}
}

// checkTime bounds the search for an order; what takes longer is not judged, and
// that is a failure, too.
const checkTime = 2 * time.Minute

// judge looks for an order of all operations that the model could have done one after
// the other.
func judge(t *testing.T, ops []porcupine.Operation) {
	t.Helper()
	if porcupine.CheckOperationsTimeout(model, ops, checkTime) == porcupine.Ok {
		return
	}
	for _, of := range partition(ops) { // which of them, and why
		switch result, info := porcupine.CheckOperationsVerbose(model, of, checkTime); result {
		case porcupine.Illegal:
			t.Errorf("no order explains what clients were told:\n%s", order.Blame(of, info, describeAny))
		case porcupine.Unknown:
			t.Errorf("%d operations on VM %d were not judged within %v", len(of), of[0].Input.(input).vm, checkTime)
		}
	}
}
