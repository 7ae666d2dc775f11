package etcd

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"meta9/fs/store"
)

// tasks are those that make the groups durable whose indexes are in some, and that put their
// errors into failed.
func (e *Engine) tasks(groups []store.Group, some []int, failed []error) (tasks []func()) {
	var gathered []*part
	ops, bytes := 0, 0
	mostOps, mostBytes := int(e.mostOps.Load()), int(e.mostBytes.Load())
	send := func() {
		if parts := gathered; len(parts) > 0 {
			tasks = append(tasks, func() { e.together(parts) })
		}
		gathered, ops, bytes = nil, 0, 0
	}
	for _, i := range some {
		p := e.partOf(&groups[i], &failed[i])
		if p == nil {
			tasks = append(tasks, func() { failed[i] = e.apply(&groups[i]) })
			continue
		}
		if n := len(p.t.ops); ops+n > mostOps || bytes+p.bytes > mostBytes {
			send()
		}
		gathered, ops, bytes = append(gathered, p), ops+len(p.t.ops), bytes+p.bytes
	}
	send()
	return tasks
}

// part is one VM's change, of which nothing but itself and the VM's owner is compared. It is one
// transaction, or a part of one.
type part struct {
	*writer
	s      step
	t      *txn
	bytes  int
	failed *error // where its error goes
}

// partOf returns the group's change as a part; nil: it is none.
func (e *Engine) partOf(g *store.Group, failed *error) *part {
	if g.New || g.Gone || g.Gift != nil || g.Frees != "" || g.Takes != "" {
		return nil
	}
	st := e.known(g.VM)
	if st == nil || !st.whole() {
		return nil
	}
	c, err := e.changeOf(g)
	if err != nil || c.tooLarge(0) {
		return nil
	}
	next := *st
	p := &part{writer: &writer{engine: e, uuid: g.VM, st: &next}, bytes: c.bytes, failed: failed}
	seq := next.seq
	seq.Number = g.Number
	p.s = step{seq: &seq, ops: p.changed(nil, c, seq.Gen)}
	p.t = p.transaction(&p.s)
	return p
}

// together makes parts durable in one transaction. It is done for all of them or for none: where
// one VM's compares fail, the others' changes are sent again, each by itself. The first
// transaction cannot be done any more then, since no revision that was compared comes again. What
// is too large for this etcd is sent in halves.
func (e *Engine) together(parts []*part) {
	all := parts[0].t
	if len(parts) > 1 {
		all = &txn{splits: true}
		for _, p := range parts {
			all.again = all.again || p.t.again
			all.cmps, all.ops, all.ask = append(all.cmps, p.t.cmps...), append(all.ops, p.t.ops...), append(all.ask, p.t.ask...)
		}
	}
	rev, found, err := e.commit(all)
	if len(parts) > 1 && tooLarge(err) {
		e.smaller(parts, err)
		for _, p := range parts {
			p.t.again = all.again
		}
		half := len(parts) / 2
		sideBySide([]func(){func() { e.together(parts[:half]) }, func() { e.together(parts[half:]) }})
		return
	}
	var blameless []*part
	for _, p := range parts {
		var mine []*mvccpb.KeyValue
		if found != nil {
			mine, found = found[:len(p.t.ask)], found[len(p.t.ask):]
			if len(parts) > 1 && p.hold(mine) {
				p.t.again = false // no transaction that has this VM's part can be done any more
				blameless = append(blameless, p)
				continue
			}
		}
		p.t.again = all.again
		*p.failed = p.ended(p.t, p.s, rev, mine, err)
		p.learnt(*p.failed, false)
	}
	tasks := make([]func(), len(blameless))
	for i, p := range blameless {
		tasks[i] = func() { e.together([]*part{p}) }
	}
	sideBySide(tasks)
}

// smaller notes that etcd has refused these parts in one transaction: from now on half of that is
// the most.
func (e *Engine) smaller(parts []*part, err error) {
	most, size := &e.mostBytes, func(p *part) int { return p.bytes }
	if isAny(err, rpctypes.ErrTooManyOps) {
		most, size = &e.mostOps, func(p *part) int { return len(p.t.ops) }
	}
	sum := 0
	for _, p := range parts {
		sum += size(p)
	}
	for was := most.Load(); int64(sum/2) < was && !most.CompareAndSwap(was, int64(sum/2)); was = most.Load() {
	}
}

// hold tells whether the VM's compares would hold, which have found these.
func (w *writer) hold(found []*mvccpb.KeyValue) bool {
	return revision(found[0]) == w.st.own && revision(found[1]) == w.st.q
}
