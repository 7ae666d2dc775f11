package etcd

import (
	"go.etcd.io/etcd/api/v3/mvccpb"

	"meta9/fs/store"
)

// tasks are those that make the groups durable whose indexes are in some, and that put their
// errors into failed.
func (e *Engine) tasks(groups []store.Group, some []int, failed []error) (tasks []func()) {
	var gathered []*part
	ops, bytes := 0, 0
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
		if n := len(p.t.ops); ops+n > maxOps || bytes+p.bytes > maxBytes {
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
// transaction cannot be done any more then, since no revision that was compared comes again.
func (e *Engine) together(parts []*part) {
	all := parts[0].t
	if len(parts) > 1 {
		all = new(txn)
		for _, p := range parts {
			all.cmps, all.ops, all.ask = append(all.cmps, p.t.cmps...), append(all.ops, p.t.ops...), append(all.ask, p.t.ask...)
		}
	}
	rev, found, err := e.commit(all)
	var blameless []*part
	for _, p := range parts {
		var mine []*mvccpb.KeyValue
		if found != nil {
			mine, found = found[:len(p.t.ask)], found[len(p.t.ask):]
			if len(parts) > 1 && p.hold(mine) {
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

// hold tells whether the VM's compares would hold, which have found these.
func (w *writer) hold(found []*mvccpb.KeyValue) bool {
	return revision(found[0]) == w.st.own && revision(found[1]) == w.st.q
}
