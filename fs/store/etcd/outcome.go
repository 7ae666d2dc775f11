package etcd

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// took notes that a transaction was done.
func (w *writer) took(t *txn, seq *sequence, is owner, own, q int64, given bool) {
	if w.creates() {
		w.st.late = t.again
	}
	if w.creates() || given {
		w.st.own = own
	}
	w.wrote = true
	w.st.owner = is
	if seq != nil {
		w.st.seq, w.st.q = *seq, q
	}
}

// judge finds out what has happened to a transaction whose compares have failed.
func (w *writer) judge(t *txn, s step, found []*mvccpb.KeyValue) error {
	own, q := found[0], found[1]
	switch {
	case s.seq == nil && own == nil && t.again:
		return nil // an earlier copy has deleted it
	case q != nil && s.text != "" && string(q.Value) == s.text && own != nil && string(own.Value) == s.is.text():
		w.took(t, s.seq, s.is, own.ModRevision, q.ModRevision, true)
		return nil
	case revision(own) != w.st.own:
		return w.taken(t, s, own)
	case revision(q) == w.st.q && w.creates() && revision(found[2]) != t.creations:
		return w.anew(t, s, revision(found[2]))
	case revision(q) != w.st.q || s.takes == "":
		return errs.New(errs.IO, "VM %s: another meta9d writes as the host %q", w.uuid, w.engine.cfg.Host)
	}
	holder := found[len(found)-1]
	if holder == nil || string(holder.Value) != w.uuid {
		return w.settle(t, s, errs.New(errs.Exists, "alias: %q is VM %s's already, at another host", s.takes, value(holder)))
	}
	s.takes = "" // the VM has the alias already
	return w.write(s)
}

// settle refuses a transaction with why: nothing of it was done, nor will be. An earlier copy may still
// come. So a small transaction with the same fences is sent: once it is done, the fences fail, and the copy
// does nothing. If the copy was done first, the small one fails, and the copy's outcome counts.
func (w *writer) settle(t *txn, s step, why error) error {
	if !t.again {
		return store.Unchanged(why)
	}
	e, seq := w.engine, w.st.seq
	seq.Step += 2 // t has the Step between
	text := seq.text(w.uuid)
	small := &txn{cmps: t.cmps[:t.fences], ops: []clientv3.Op{clientv3.OpPut(e.key("q", w.uuid), text)}, ask: t.ask, again: true}
	if w.creates() {
		small.ops[0] = clientv3.OpPut(e.key("creations", e.cfg.Host), "")
	}
	rev, found, err := e.commit(small)
	switch {
	case err != nil:
		return err
	case found == nil && w.creates(): // the next creation finds creations/HOST changed
		return store.Unchanged(why)
	case found != nil && (w.creates() || revision(found[0]) != w.st.own || value(found[1]) != text):
		return w.judge(t, s, found)
	case found != nil: // an earlier copy of the small one was done
		rev = found[1].ModRevision
	}
	w.took(t, &seq, w.st.owner, w.st.own, rev, false)
	return store.Unchanged(why)
}

// revision returns the key's revision; 0: there is no such key, as in a compare.
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

// taken returns the error of a transaction whose VM has another owner now, or nil if the
// transaction was done before the owner changed. own is the current record of the owner;
// nil: the VM was deleted since.
func (w *writer) taken(t *txn, s step, own *mvccpb.KeyValue) error {
	w.engine.fencedOff.Add(1)
	if t.again && own != nil && s.text != "" {
		made, err := w.made(s.text, w.engine.key("own", w.uuid), w.st.own, own.ModRevision)
		if err != nil {
			return store.Unchanged(errs.New(errs.Moved, "VM %s was taken by another host, and this may or may not be there: %s", w.uuid, errs.Detail(err)))
		}
		if made {
			w.took(t, s.seq, s.is, w.st.own, w.st.q, false)
			return nil
		}
	}
	if own == nil {
		return moved(w.uuid)
	}
	o, err := readOwner(own.Value)
	switch {
	case w.creates() && err != nil:
		return store.Unchanged(errs.New(errs.Exists, "VM %s is there: %s", w.uuid, errs.Detail(err)))
	case w.creates():
		return store.Unchanged(errs.New(errs.Exists, "VM %s is host %q's", w.uuid, o.Host))
	case err == nil && o.Host == w.engine.cfg.Host:
		return store.Unchanged(errs.New(errs.Moved, "VM %s is now that of another meta9d that runs as the host %q", w.uuid, o.Host))
	}
	return moved(w.uuid)
}

// made tells whether our transaction, which writes text to q/UUID, was done before another
// host took the VM, or before it ended what was to make it. Whoever did that wrote the key, which had
// the revision was in our compares, and has rev now. made goes back in etcd's history to the first who
// did, and reads q/UUID there: after that revision none of our transactions is accepted.
func (w *writer) made(text, key string, was, rev int64) (bool, error) {
	e := w.engine
	for {
		before, err := e.get(key, clientv3.WithRev(rev-1))
		if err != nil {
			return false, err
		}
		if len(before) == 0 && was != 0 {
			return false, errs.New(errs.IO, "it was deleted and made anew")
		}
		if len(before) == 0 || before[0].ModRevision == was {
			break
		}
		rev = before[0].ModRevision
	}
	q, err := e.get(e.key("q", w.uuid), clientv3.WithRev(rev))
	return err == nil && len(q) == 1 && string(q[0].Value) == text, err
}

// anew sends what makes a VM once more, since creations/HOST has changed, to rev, and no copy of t can
// be done any more. The VM is not there: if t was done before that, whoever has taken the VM has deleted
// it.
func (w *writer) anew(t *txn, s step, rev int64) error {
	e := w.engine
	if t.again {
		made, err := w.made(s.text, e.key("creations", e.cfg.Host), t.creations, rev)
		switch {
		case err != nil:
			return store.Unchanged(errs.New(errs.Moved, "VMs of this host were taken by another one, and VM %s may or may not be there: %s", w.uuid, errs.Detail(err)))
		case made:
			return moved(w.uuid)
		}
	}
	e.mu.Lock()
	if e.creations == t.creations { // else another VM's transaction has found it already
		e.creations = rev
	}
	e.mu.Unlock()
	return w.write(s)
}
