package etcd

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// The most that one transaction has. etcd's own limits are 128 operations and 1.5 MiB. A value of
// 1 MiB, the largest by default, goes in one, with its key and the VM's record.
const (
	maxOps   = 120
	maxBytes = 1<<20 + 128<<10
	piece    = 512 << 10
)

// atOnce is how many transactions are under way at once.
const atOnce = 64

// Apply is store.Engine's: the store's own group first, then those of the VMs side by
// side, where they can be, many in one transaction.
func (e *Engine) Apply(groups []store.Group) []error {
	if len(groups) > 0 && groups[0].VM == "" {
		if err := e.applyOwn(&groups[0]); err != nil {
			return store.AllFailed(groups, err)
		}
		failed := e.Apply(groups[1:])
		if failed == nil {
			return nil
		}
		return append([]error{nil}, failed...)
	}
	failed := make([]error, len(groups))
	for _, some := range inTurn(groups) {
		sideBySide(e.tasks(groups, some, failed))
	}
	for _, err := range failed {
		if err != nil {
			return failed
		}
	}
	return nil
}

// sideBySide runs all tasks, and returns when they are done.
func sideBySide(tasks []func()) {
	var running sync.WaitGroup
	room := make(chan struct{}, atOnce)
	for i, task := range tasks {
		if i == len(tasks)-1 {
			task() // often the only one: no goroutine need be woken for it
			break
		}
		room <- struct{}{}
		running.Go(func() {
			task()
			<-room
		})
	}
	running.Wait()
}

// inTurn parts the groups, by index, into rounds. The groups of one round are sent side by
// side, after the round before is done: a group that takes an alias comes after the group
// that frees it, and one that makes a VM after the one that deletes the VM of that UUID. Groups
// that wait for each other are all in the last round, and some of them are refused.
func inTurn(groups []store.Group) (all [][]int) {
	freed, ends := make(map[string]bool), make(map[string]bool) // aliases and VMs, by groups that are in no round yet
	var left []int
	for i := range groups {
		left = append(left, i)
		if f := groups[i].Frees; f != "" {
			freed[f] = true
		}
		if groups[i].Gone {
			ends[groups[i].VM] = true
		}
	}
	for len(left) > 0 {
		var now, later []int
		for _, i := range left {
			if freed[groups[i].Takes] || groups[i].New && ends[groups[i].VM] {
				later = append(later, i)
			} else {
				now = append(now, i)
			}
		}
		if len(now) == 0 {
			return append(all, later)
		}
		for _, i := range now {
			delete(freed, groups[i].Frees)
			if groups[i].Gone {
				delete(ends, groups[i].VM)
			}
		}
		all, left = append(all, now), later
	}
	return all
}

// applyOwn writes the host's own record, which no other process writes.
func (e *Engine) applyOwn(g *store.Group) error {
	if len(g.Ops) != 1 || string(g.Ops[0].Key) != markKey || g.Ops[0].Value == nil {
		return errs.New(errs.IO, "a store has one record of its own")
	}
	key := e.key("mark", e.cfg.Host)
	value := binary.BigEndian.AppendUint64(nil, g.Number)
	value = append(append(value, g.Ops[0].Value...), g.Ops[0].Tail...)
	t := txn{
		cmps: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", e.ownRev)},
		ops:  []clientv3.Op{clientv3.OpPut(key, string(value))}, ask: []string{key},
	}
	rev, found, err := e.commit(&t)
	if err != nil {
		return err
	}
	if found != nil {
		if found[0] == nil || string(found[0].Value) != string(value) {
			return errs.New(errs.IO, "another meta9d writes as the host %q", e.cfg.Host)
		}
		rev = found[0].ModRevision
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ownRev, e.highest = rev, max(e.highest, g.Number)
	return nil
}

// change is a group's operations by their keys in etcd, each key once.
type change struct {
	puts  map[string]string // by the part of the key after the generation; "": the VM's record
	gone  map[string]bool
	bytes int
}

func (e *Engine) changeOf(g *store.Group) (*change, error) {
	c := &change{puts: make(map[string]string, len(g.Ops)), gone: make(map[string]bool)}
	head := e.entries(g.VM, 0)
	for i := range g.Ops {
		op := &g.Ops[i]
		key, err := e.keyOf(g.VM, 0, op.Key)
		if err != nil {
			return nil, err
		}
		rest, isEntry := strings.CutPrefix(key, head)
		if !isEntry {
			rest = ""
		}
		if op.Value == nil {
			delete(c.puts, rest)
			c.gone[rest] = true
			continue
		}
		delete(c.gone, rest)
		c.puts[rest] = string(op.Value) + op.Tail
	}
	for rest, v := range c.puts {
		c.bytes += len(rest) + len(v) + 128
	}
	return c, nil
}

// tooLarge tells whether the change and so many other operations are more than one transaction has.
func (c *change) tooLarge(others int) bool {
	return len(c.puts)+len(c.gone)+others > maxOps-8 || c.bytes > maxBytes
}

// at returns the key of an entry in a generation.
func (e *Engine) at(uuid string, gen uint64, rest string) string {
	if rest == "" {
		return e.key("v", uuid)
	}
	return e.entries(uuid, gen) + rest
}

// apply makes one VM's group durable.
func (e *Engine) apply(g *store.Group) error {
	st := e.known(g.VM)
	switch {
	case g.New:
		e.setMaking(g.VM, true)
		defer e.setMaking(g.VM, false)
		if st == nil || st.whole() { // whole: another host took the VM, and it was deleted there
			st = &state{owner: owner{Host: e.cfg.Host, Epoch: 1}}
		}
	case st == nil:
		return moved(g.VM)
	}
	next := *st
	w := &writer{engine: e, uuid: g.VM, st: &next, isNew: st.own == 0}
	err := w.group(g)
	if err != nil && errs.KindOf(err) != errs.Moved && g.New && w.wrote && w.forget() == nil {
		e.learn(g.VM, nil)
		return err
	}
	w.learnt(err, g.Gone || g.Gift != nil)
	return err
}

// learnt notes what the engine knows of the VM after its group. away: the VM was given away, or
// deleted, if there is no error.
func (w *writer) learnt(err error, away bool) {
	switch {
	case errs.KindOf(err) == errs.Moved, err == nil && away:
		w.engine.learn(w.uuid, nil)
	case w.wrote: // with an error: the number of a generation that is not finished
		w.engine.learn(w.uuid, w.st)
	}
}

func moved(uuid string) error {
	return store.Unchanged(errs.New(errs.Moved, "VM %s is another host's now", uuid))
}

// writer writes one group.
type writer struct {
	engine *Engine
	uuid   string
	st     *state
	isNew  bool // own/UUID must be created
	wrote  bool // a transaction of the group was done
}

// creates tells whether the next transaction is the VM's first.
func (w *writer) creates() bool { return w.isNew && !w.wrote }

func (w *writer) group(g *store.Group) error {
	e := w.engine
	if g.Gone {
		return w.gone(w.free(nil, g.Frees))
	}
	c, err := e.changeOf(g)
	if err != nil {
		return err
	}
	seq := w.st.seq
	seq.Number = g.Number
	var last []clientv3.Op
	switch {
	case g.Gift == nil:
	case len(g.Gift.With) <= piece && c.bytes <= maxBytes-piece:
		last = w.onePiece(g.Gift.With)
	default:
		if err := w.residence(g.Gift.With); err != nil {
			return err
		}
	}
	if c.tooLarge(len(last)) {
		seq.Gen++
		if c, g.Rewrote, err = w.generation(c, seq.Gen); err != nil {
			return err
		}
		last = append(last, clientv3.OpDelete(e.entries(w.uuid, seq.Gen-1), clientv3.WithPrefix()))
	}
	last = w.changed(last, c, seq.Gen)
	var to *owner
	if g.Gift != nil {
		to = &owner{Host: g.Gift.To, Epoch: w.st.owner.Epoch + 1, Mark: g.Gift.Mark}
		if to.Host != e.cfg.Host { // else it is for our next process
			// A copy of a request that comes late must not take the VM from here again and again.
			last = append(last, clientv3.OpDelete(e.key("by", e.cfg.Host, w.uuid)), clientv3.OpDelete(e.key("ask", e.cfg.Host, w.uuid)))
			if to.Host != "" {
				last = append(last, clientv3.OpPut(e.key("by", to.Host, w.uuid), ""))
			}
			last = w.final(last)
		}
	}
	return w.write(step{seq: &seq, to: to, ops: w.free(last, g.Frees), takes: g.Takes})
}

// changed appends the operations of a change to the entries of a generation.
func (w *writer) changed(ops []clientv3.Op, c *change, gen uint64) []clientv3.Op {
	for rest, v := range c.puts {
		ops = append(ops, clientv3.OpPut(w.engine.at(w.uuid, gen, rest), v))
	}
	for rest := range c.gone {
		ops = append(ops, clientv3.OpDelete(w.engine.at(w.uuid, gen, rest)))
	}
	return ops
}

// gone deletes the VM and its entries of all generations, together with ops.
func (w *writer) gone(ops []clientv3.Op) error {
	e := w.engine
	return w.write(step{ops: append(
		w.final(ops),
		clientv3.OpDelete(e.key("k", w.uuid)+"/", clientv3.WithPrefix()),
		clientv3.OpDelete(e.key("v", w.uuid)),
		clientv3.OpDelete(e.key("res", w.uuid)+"/", clientv3.WithPrefix()),
		clientv3.OpDelete(e.key("by", e.cfg.Host, w.uuid)),
		clientv3.OpDelete(e.key("q", w.uuid)),
	)})
}

// final appends what a transaction has that ends the VM here: nothing that has made it may come later.
func (w *writer) final(ops []clientv3.Op) []clientv3.Op {
	if !w.st.late {
		return ops
	}
	return append(ops, clientv3.OpPut(w.engine.key("creations", w.engine.cfg.Host), ""))
}

// forget deletes the parts of a VM whose first group was never finished.
func (w *writer) forget() error {
	w.isNew = false
	return w.gone(nil)
}

// free appends the deletion of an alias, if the alias is the VM's.
func (w *writer) free(ops []clientv3.Op, alias string) []clientv3.Op {
	if alias == "" {
		return ops
	}
	key := w.engine.key("alias", alias)
	return append(ops, clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", w.uuid)}, []clientv3.Op{clientv3.OpDelete(key)}, nil))
}

// onePiece are the ops that write what goes with the VM, where that is one piece or nothing.
func (w *writer) onePiece(with []byte) []clientv3.Op {
	res := w.engine.key("res", w.uuid) + "/"
	if len(with) == 0 {
		return []clientv3.Op{clientv3.OpDelete(res, clientv3.WithPrefix())}
	}
	first := res + firstPiece
	return []clientv3.Op{
		clientv3.OpPut(first, string(with)),
		clientv3.OpDelete(first+"\x00", clientv3.WithRange(clientv3.GetPrefixRangeEnd(res))),
	}
}

// residence writes the parcel that goes with the VM.
func (w *writer) residence(with []byte) error {
	seq := w.st.seq
	old := clientv3.OpDelete(w.engine.key("res", w.uuid)+"/", clientv3.WithPrefix())
	if err := w.write(step{seq: &seq, ops: []clientv3.Op{old}}); err != nil {
		return err // the parcel with which it came here
	}
	for n := 0; len(with) > 0; n++ {
		some := with[:min(piece, len(with))]
		with = with[len(some):]
		op := clientv3.OpPut(w.engine.key("res", w.uuid, fmt.Sprintf("%06d", n)), string(some))
		seq := w.st.seq
		if err := w.write(step{seq: &seq, ops: []clientv3.Op{op}}); err != nil {
			return err
		}
	}
	return nil
}

// generation writes all entries, as they will be, into a new generation, and returns what
// is left for the transaction that switches to it, and how many bytes it has written.
func (w *writer) generation(c *change, gen uint64) (rest *change, wrote int, err error) {
	e := w.engine
	head := e.entries(w.uuid, w.st.seq.Gen)
	var all []*mvccpb.KeyValue
	if !w.isNew {
		if all, err = e.get(head, clientv3.WithPrefix()); err != nil {
			return nil, 0, err
		}
	}
	rest = &change{puts: make(map[string]string), gone: make(map[string]bool)}
	whole := make(map[string]string, len(all)+len(c.puts))
	for _, kv := range all {
		whole[strings.TrimPrefix(string(kv.Key), head)] = string(kv.Value)
	}
	for key := range c.gone {
		delete(whole, key)
		if key == "" {
			rest.gone[key] = true
		}
	}
	for key, v := range c.puts {
		if key == "" {
			rest.puts[key] = v
			continue
		}
		whole[key] = v
	}
	seq := w.st.seq
	ops := []clientv3.Op{clientv3.OpDelete(e.entries(w.uuid, gen), clientv3.WithPrefix())}
	flush := func() error {
		err := w.write(step{seq: &seq, ops: ops})
		ops, seq = nil, w.st.seq
		return err
	}
	if err := flush(); err != nil {
		return nil, 0, err
	}
	size := 0
	for key, v := range whole {
		n := len(key) + len(v) + 128
		if len(ops) > 0 && (len(ops) >= maxOps-8 || size+n > maxBytes) {
			if err := flush(); err != nil {
				return nil, 0, err
			}
			size = 0
		}
		size += n
		wrote += n
		ops = append(ops, clientv3.OpPut(e.at(w.uuid, gen, key), v))
	}
	if len(ops) > 0 {
		if err := flush(); err != nil {
			return nil, 0, err
		}
	}
	return rest, wrote, nil
}

// step is one transaction of the VM.
type step struct {
	seq   *sequence // the new value of q/UUID; nil: the VM is deleted
	to    *owner    // the new owner; nil: as it was
	ops   []clientv3.Op
	takes string // an alias that no VM may have yet; "": none

	// What the transaction writes, which transaction sets.
	text string // to q/UUID; "": nothing
	is   owner  // to own/UUID, or what is there
}

// write runs a step's transaction.
func (w *writer) write(s step) error {
	t := w.transaction(&s)
	rev, found, err := w.engine.commit(t)
	return w.ended(t, s, rev, found, err)
}

// transaction makes a step's transaction, fenced.
func (w *writer) transaction(s *step) *txn {
	e, st := w.engine, w.st
	own, q := e.key("own", w.uuid), e.key("q", w.uuid)
	t := &txn{ops: s.ops, ask: []string{own, q}, splits: true}
	if compareOwner {
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(own), "=", st.own))
	}
	if compareSequence {
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(q), "=", st.q))
	}
	switch {
	case s.seq == nil:
		t.ops = append(t.ops, clientv3.OpDelete(own))
	default:
		s.seq.Step = st.seq.Step + 1
		s.text = s.seq.text(w.uuid)
		t.ops = append(t.ops, clientv3.OpPut(q, s.text))
	}
	s.is = st.owner
	if w.creates() {
		creations := e.key("creations", e.cfg.Host)
		t.creations = e.creationsRev()
		if compareOwner {
			t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(creations), "=", t.creations))
		}
		t.ask = append(t.ask, creations)
		t.ops = append(t.ops, clientv3.OpPut(own, s.is.text()), clientv3.OpPut(e.key("by", e.cfg.Host, w.uuid), ""))
	}
	if s.to != nil {
		s.is = *s.to
		t.ops = append(t.ops, clientv3.OpPut(own, s.is.text()))
	}
	if t.fences = len(t.cmps); s.takes != "" {
		alias := e.key("alias", s.takes)
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.CreateRevision(alias), "=", 0))
		t.ops = append(t.ops, clientv3.OpPut(alias, w.uuid))
		t.ask = append(t.ask, alias)
	}
	return t
}

// ended notes what commit has said of a step's transaction.
func (w *writer) ended(t *txn, s step, rev int64, found []*mvccpb.KeyValue, err error) error {
	switch {
	case tooLarge(err):
		return w.settle(t, s, w.engine.cfg.explain(err))
	case err != nil:
		return err
	case found == nil:
		w.took(t, s.seq, s.is, rev, rev, s.to != nil)
		return nil
	}
	return w.judge(t, s, found)
}
