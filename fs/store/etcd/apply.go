package etcd

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// What one transaction has at most. etcd's defaults are 128 and 1.5 MiB.
const (
	maxOps   = 120
	maxBytes = 1 << 20
	piece    = 512 << 10
)

// atOnce is how many VMs' transactions are under way at once.
const atOnce = 64

// Apply is store.Engine's: the store's own group first, then those of the VMs side by
// side.
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
	if len(groups) == 1 {
		failed[0] = e.apply(&groups[0])
	} else {
		for _, some := range inTurn(groups) {
			var running sync.WaitGroup
			room := make(chan struct{}, atOnce)
			for _, i := range some {
				room <- struct{}{}
				running.Go(func() {
					failed[i] = e.apply(&groups[i])
					<-room
				})
			}
			running.Wait()
		}
	}
	for _, err := range failed {
		if err != nil {
			return failed
		}
	}
	return nil
}

// inTurn are the groups, by index, that may be sent side by side, each some before the
// next: who takes an alias comes after who frees it. Where each of several waits for
// another, all of them are the last, and some are refused.
func inTurn(groups []store.Group) (all [][]int) {
	freed := make(map[string]bool) // by a group that is in no turn yet
	var left []int
	for i := range groups {
		left = append(left, i)
		if f := groups[i].Frees; f != "" {
			freed[f] = true
		}
	}
	for len(left) > 0 {
		var now, later []int
		for _, i := range left {
			if freed[groups[i].Takes] {
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

// change is a group's ops by their keys here, each key once.
type change struct {
	puts  map[string]string // by the rest of the key after the generation; the VM's record: ""
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

// at is the key in a generation.
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
	case g.New && st == nil:
		st = &state{owner: owner{Host: e.cfg.Host, Epoch: 1}}
	case g.New && st.whole():
		return store.Unchanged(errs.New(errs.Exists, "VM %s is this host's already", g.VM))
	case st == nil:
		return moved(g.VM)
	}
	next := *st
	w := &writer{engine: e, uuid: g.VM, st: &next, isNew: st.own == 0}
	err := w.group(g)
	switch {
	case errs.KindOf(err) == errs.Moved, err == nil && (g.Gone || g.Gift != nil):
		e.learn(g.VM, nil)
	case err == nil:
		e.learn(g.VM, &next)
	case g.New && w.wrote && w.forget() == nil:
		e.learn(g.VM, nil)
	case w.wrote:
		e.learn(g.VM, &next) // of a generation that is not finished
	}
	return err
}

func moved(uuid string) error {
	return store.Unchanged(errs.New(errs.Moved, "VM %s is another host's now", uuid))
}

// writer writes one group.
type writer struct {
	engine *Engine
	uuid   string
	st     *state
	isNew  bool // own/UUID is to be made
	wrote  bool // a transaction of the group was made
}

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
	if g.Gift != nil {
		if err := w.residence(g.Gift.With); err != nil {
			return err
		}
	}
	if len(c.puts)+len(c.gone)+len(last) > maxOps-8 || c.bytes > maxBytes {
		seq.Gen++
		if c, err = w.generation(c, seq.Gen); err != nil {
			return err
		}
		last = append(last, clientv3.OpDelete(e.entries(w.uuid, seq.Gen-1), clientv3.WithPrefix()))
	}
	for rest, v := range c.puts {
		last = append(last, clientv3.OpPut(e.at(w.uuid, seq.Gen, rest), v))
	}
	for rest := range c.gone {
		last = append(last, clientv3.OpDelete(e.at(w.uuid, seq.Gen, rest)))
	}
	var to *owner
	if g.Gift != nil {
		to = &owner{Host: g.Gift.To, Epoch: w.st.owner.Epoch + 1, Mark: g.Gift.Mark}
		last = append(last, clientv3.OpDelete(e.key("by", e.cfg.Host, w.uuid)))
		if to.Host != "" {
			last = append(last, clientv3.OpPut(e.key("by", to.Host, w.uuid), ""))
		}
	}
	return w.write(step{seq: &seq, to: to, ops: w.free(last, g.Frees), takes: g.Takes})
}

// gone takes the VM away, whatever generation its entries are in, beside the ops.
func (w *writer) gone(ops []clientv3.Op) error {
	e := w.engine
	return w.write(step{ops: append(
		ops,
		clientv3.OpDelete(e.key("k", w.uuid)+"/", clientv3.WithPrefix()),
		clientv3.OpDelete(e.key("v", w.uuid)),
		clientv3.OpDelete(e.key("res", w.uuid)+"/", clientv3.WithPrefix()),
		clientv3.OpDelete(e.key("by", e.cfg.Host, w.uuid)),
		clientv3.OpDelete(e.key("q", w.uuid)),
	)})
}

// forget takes away what there is of a VM that was never whole.
func (w *writer) forget() error {
	w.isNew = false
	return w.gone(nil)
}

// free appends that the VM gives up an alias, if it is the VM's.
func (w *writer) free(ops []clientv3.Op, alias string) []clientv3.Op {
	if alias == "" {
		return ops
	}
	key := w.engine.key("alias", alias)
	return append(ops, clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", w.uuid)}, []clientv3.Op{clientv3.OpDelete(key)}, nil))
}

// residence writes what goes with the VM.
func (w *writer) residence(with []byte) error {
	seq := w.st.seq
	old := clientv3.OpDelete(w.engine.key("res", w.uuid)+"/", clientv3.WithPrefix())
	if err := w.write(step{seq: &seq, ops: []clientv3.Op{old}}); err != nil {
		return err // what came here with it
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

// generation writes all entries as they are to be into a new generation, and gives what
// is left for the transaction that switches to it.
func (w *writer) generation(c *change, gen uint64) (rest *change, err error) {
	e := w.engine
	head := e.entries(w.uuid, w.st.seq.Gen)
	var all []*mvccpb.KeyValue
	if !w.isNew {
		if all, err = e.get(head, clientv3.WithPrefix()); err != nil {
			return nil, err
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
		return nil, err
	}
	size := 0
	for key, v := range whole {
		if n := len(key) + len(v) + 128; len(ops) > 0 && (len(ops) >= maxOps-8 || size+n > maxBytes) {
			if err := flush(); err != nil {
				return nil, err
			}
			size = 0
		}
		size += len(key) + len(v) + 128
		ops = append(ops, clientv3.OpPut(e.at(w.uuid, gen, key), v))
	}
	if len(ops) > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// step is one transaction of the VM.
type step struct {
	seq   *sequence // what q/UUID says then; nil: the VM goes
	to    *owner    // its new one; nil: as it was
	ops   []clientv3.Op
	takes string // an alias that no VM may have; "": none
}

// write makes a step, fenced.
func (w *writer) write(s step) error {
	e, st := w.engine, w.st
	own, q := e.key("own", w.uuid), e.key("q", w.uuid)
	t := txn{ops: s.ops, ask: []string{own, q}}
	if compareOwner {
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(own), "=", st.own))
	}
	if compareSequence {
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(q), "=", st.q))
	}
	var text string
	switch {
	case s.seq == nil:
		t.ops = append(t.ops, clientv3.OpDelete(own))
	default:
		s.seq.Step = st.seq.Step + 1
		text = s.seq.text(w.uuid)
		t.ops = append(t.ops, clientv3.OpPut(q, text))
	}
	is := st.owner
	if w.isNew && !w.wrote {
		t.ops = append(t.ops, clientv3.OpPut(own, is.text()), clientv3.OpPut(e.key("by", e.cfg.Host, w.uuid), ""))
	}
	if s.to != nil {
		is = *s.to
		t.ops = append(t.ops, clientv3.OpPut(own, is.text()))
	}
	if s.takes != "" {
		alias := e.key("alias", s.takes)
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.CreateRevision(alias), "=", 0))
		t.ops = append(t.ops, clientv3.OpPut(alias, w.uuid))
		t.ask = append(t.ask, alias)
	}
	rev, found, err := e.commit(&t)
	if err != nil {
		return err
	}
	if found == nil {
		w.took(s.seq, is, rev, rev, s.to != nil)
		return nil
	}
	return w.judge(&t, s, is, text, found)
}

// took notes that a transaction was made.
func (w *writer) took(seq *sequence, is owner, own, q int64, given bool) {
	if w.isNew && !w.wrote || given {
		w.st.own = own
	}
	w.wrote = true
	w.st.owner = is
	if seq != nil {
		w.st.seq, w.st.q = *seq, q
	}
}

// judge finds out what has become of a transaction whose compares have failed.
func (w *writer) judge(t *txn, s step, is owner, text string, found []*mvccpb.KeyValue) error {
	own, q := found[0], found[1]
	switch {
	case s.seq == nil && own == nil && t.again:
		return nil // an earlier copy has deleted it
	case q != nil && text != "" && string(q.Value) == text && own != nil && string(own.Value) == is.text():
		w.took(s.seq, is, own.ModRevision, q.ModRevision, true)
		return nil
	case revision(own) != w.st.own:
		return w.taken(t, s, is, text, own)
	case revision(q) != w.st.q || s.takes == "":
		return errs.New(errs.IO, "VM %s: another meta9d writes as the host %q", w.uuid, w.engine.cfg.Host)
	}
	holder := found[2]
	if holder == nil || string(holder.Value) != w.uuid {
		return store.Unchanged(errs.New(errs.Exists, "alias: %q is VM %s's already, at another host", s.takes, value(holder)))
	}
	s.takes = "" // it is the VM's
	return w.write(s)
}

// revision is 0 where there is no such key, as it is in a compare.
func revision(kv *mvccpb.KeyValue) int64 {
	if kv == nil {
		return 0
	}
	return kv.ModRevision
}

func value(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return ""
	}
	return string(kv.Value)
}

// taken is the error of a transaction whose VM has got another owner; own is what says so
// now, nil: the VM was deleted since. nil: the transaction was made before that.
func (w *writer) taken(t *txn, s step, is owner, text string, own *mvccpb.KeyValue) error {
	w.engine.fencedOff.Add(1)
	if t.again && own != nil && text != "" {
		made, err := w.made(text, own.ModRevision)
		if err != nil {
			return store.Unchanged(errs.New(errs.Moved, "VM %s was taken by another host, and this may or may not be there: %s", w.uuid, errs.Detail(err)))
		}
		if made {
			w.took(s.seq, is, w.st.own, w.st.q, false)
			return nil
		}
	}
	if own == nil {
		return moved(w.uuid)
	}
	o, err := readOwner(own.Value)
	switch {
	case w.isNew && !w.wrote && err != nil:
		return store.Unchanged(errs.New(errs.Exists, "VM %s is there: %s", w.uuid, errs.Detail(err)))
	case w.isNew && !w.wrote:
		return store.Unchanged(errs.New(errs.Exists, "VM %s is host %q's", w.uuid, o.Host))
	case err == nil && o.Host == w.engine.cfg.Host:
		return store.Unchanged(errs.New(errs.Moved, "VM %s is now that of another meta9d that runs as the host %q", w.uuid, o.Host))
	}
	return moved(w.uuid)
}

// made says whether a transaction that was to write text to q/UUID was made before the VM
// got another owner, which is in etcd's history: the first owner after this engine has
// found q/UUID as it stayed, for what this engine has sent was refused from then on. rev
// is that of the newest owner.
func (w *writer) made(text string, rev int64) (bool, error) {
	e := w.engine
	for {
		before, err := e.get(e.key("own", w.uuid), clientv3.WithRev(rev-1))
		if err != nil {
			return false, err
		}
		if len(before) == 0 && w.st.own != 0 {
			return false, errs.New(errs.IO, "it was deleted and made anew")
		}
		if len(before) == 0 || before[0].ModRevision == w.st.own {
			break
		}
		rev = before[0].ModRevision
	}
	q, err := e.get(e.key("q", w.uuid), clientv3.WithRev(rev))
	return err == nil && len(q) == 1 && string(q[0].Value) == text, err
}

// txn is a transaction that may be sent again: its compares fail if it was made.
type txn struct {
	cmps  []clientv3.Cmp
	ops   []clientv3.Op
	ask   []string // what to tell if the compares fail
	again bool     // it was sent before, with an outcome that is not known
}

// commit sends a transaction until it is known what has become of it: it is made, at rev,
// or its compares have failed, and found is what the keys that it asks for hold then.
func (e *Engine) commit(t *txn) (rev int64, found []*mvccpb.KeyValue, err error) {
	var asks []clientv3.Op
	for _, key := range t.ask {
		asks = append(asks, clientv3.OpGet(key))
	}
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if e.ctx.Err() != nil && !t.again {
			return 0, nil, store.Unchanged(errClosed)
		}
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
		resp, err := e.kv.Txn(ctx).If(t.cmps...).Then(t.ops...).Else(asks...).Commit()
		cancel()
		e.notice(err)
		switch {
		case err == nil && resp.Succeeded:
			return resp.Header.Revision, nil, nil
		case err == nil:
			found = make([]*mvccpb.KeyValue, len(t.ask))
			for i, r := range resp.Responses {
				if kvs := r.GetResponseRange().Kvs; len(kvs) > 0 {
					found[i] = kvs[0]
				}
			}
			return 0, found, nil
		case definite(err) && !t.again:
			return 0, nil, store.Unchanged(e.cfg.explain(err))
		}
		if !t.again {
			e.unsure.Add(1)
		}
		t.again = true
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return 0, nil, errs.New(errs.IO, "stopped before etcd has said whether it was done, which the next start finds out: %v", err)
		}
	}
}

// notice notes what Trouble tells, from what became of a try.
func (e *Engine) notice(err error) {
	if err == nil {
		e.trouble.Store(nil)
		return
	}
	err = e.cfg.explain(err)
	e.trouble.Store(&err)
}

var errClosed = errs.New(errs.IO, "the engine is closed: nothing was changed")

// definite says whether etcd has refused a request, so that nothing of it was done.
func definite(err error) bool {
	return isAny(err, rpctypes.ErrNoSpace, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty,
		rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge, rpctypes.ErrDuplicateKey)
}

// get reads keys until that succeeds, for what must go on.
func (e *Engine) get(key string, opts ...clientv3.OpOption) ([]*mvccpb.KeyValue, error) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
		resp, err := e.kv.Get(ctx, key, opts...)
		cancel()
		e.notice(err)
		switch {
		case err == nil:
			return resp.Kvs, nil
		case definite(err), isAny(err, rpctypes.ErrCompacted):
			return nil, store.Unchanged(e.cfg.explain(err))
		}
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return nil, store.Unchanged(errClosed)
		}
	}
}
