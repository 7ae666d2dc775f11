package etcd

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// fencedAtOnce is how many VMs a start takes over in one transaction, and readAtOnce
// how many one reads: a VM may have 16 MiB.
const (
	fencedAtOnce = maxOps
	readAtOnce   = 16
)

// Scan is store.Shared's. The first one fences the process before.
func (e *Engine) Scan(fn func(key, value []byte) error) error {
	if !e.fenced {
		if err := e.fenceOwn(); err != nil {
			return err
		}
	}
	if err := e.ownRecord(fn); err != nil {
		return err
	}
	by := e.key("by", e.cfg.Host) + "/"
	kvs, listed, err := e.getAt(by, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.listed = listed
	e.mu.Unlock()
	uuids := make([]string, 0, len(kvs))
	for _, kv := range kvs {
		uuids = append(uuids, strings.TrimPrefix(string(kv.Key), by))
	}
	if !e.fenced {
		if err := e.fenceAll(uuids); err != nil {
			return err
		}
		e.fenced = true
	}
	for some := range slices.Chunk(uuids, readAtOnce) {
		err := inHalves(some, func(some []string) error {
			all, err := e.read(some, true)
			for i := 0; i < len(all) && err == nil; i++ {
				err = e.give(all[i], fn)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ownRecord gives the marks of the host's own record, and notes its Number.
func (e *Engine) ownRecord(fn func(key, value []byte) error) error {
	mark, err := e.get(e.key("mark", e.cfg.Host))
	if err != nil {
		return err
	}
	for _, kv := range mark {
		if len(kv.Value) < 8 {
			return errs.New(errs.IO, "the host's own record has %d bytes", len(kv.Value))
		}
		e.mu.Lock()
		e.ownRev, e.highest = kv.ModRevision, max(e.highest, binary.BigEndian.Uint64(kv.Value))
		e.mu.Unlock()
		if len(kv.Value) == 8 {
			continue // it has no marks yet
		}
		if err := fn([]byte(markKey), kv.Value[8:]); err != nil {
			return err
		}
	}
	return nil
}

// fenceAll fences the process before, at all VMs of the host.
func (e *Engine) fenceAll(uuids []string) error {
	starts, err := e.get(e.key("starts", e.cfg.Host))
	if err != nil {
		return err
	}
	for _, kv := range starts {
		if n, err := strconv.ParseUint(string(kv.Value), 10, 62); err == nil { // else sessions are lost
			e.starts = n
		}
	}
	for some := range slices.Chunk(uuids, fencedAtOnce) {
		if err := inHalves(some, e.fence); err != nil {
			return err
		}
	}
	return nil
}

// inHalves calls do for the VMs, or for each half of them where etcd takes no transaction of that size.
func inHalves(uuids []string, do func(some []string) error) error {
	err := do(uuids)
	if half := len(uuids) / 2; half > 0 && tooLarge(err) {
		if err = inHalves(uuids[:half], do); err == nil {
			err = inHalves(uuids[half:], do)
		}
	}
	return err
}

// fenceOwn is fence for the host's own record, and for VMs that the process before has begun to make.
func (e *Engine) fenceOwn() error {
	key := e.key("mark", e.cfg.Host)
	for {
		kvs, err := e.get(key)
		if err != nil {
			return err
		}
		rev, value := int64(0), string(make([]byte, 8)) // there is none: the number 0, and no marks
		if len(kvs) > 0 {
			rev, value = kvs[0].ModRevision, string(kvs[0].Value)
		}
		t := txn{
			cmps: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", rev)},
			ops:  []clientv3.Op{clientv3.OpPut(key, value), clientv3.OpPut(e.key("creations", e.cfg.Host), "")},
		}
		rev, missed, err := e.commit(&t)
		if err != nil {
			return err
		}
		if missed == nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.creations = rev
			return nil
		}
	}
}

// fence writes own/UUID of VMs anew. After that, a transaction that the process before has
// sent can no longer be done.
func (e *Engine) fence(uuids []string) error {
	for {
		var gets []clientv3.Op
		for _, uuid := range uuids {
			gets = append(gets, clientv3.OpGet(e.key("own", uuid)))
		}
		found, err := e.many(gets, true)
		if err != nil {
			return err
		}
		t := txn{splits: true}
		for i, uuid := range uuids {
			if len(found[i]) == 0 {
				continue
			}
			kv := found[i][0]
			o, err := readOwner(kv.Value)
			if err != nil || o.Host != e.cfg.Host {
				continue // Scan names what is damaged
			}
			e.foundAt(uuid, o)
			o.Served, o.Starts = cmp.Or(o.servedBy(e.starts), o.Epoch), e.starts
			o.Epoch++
			t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(e.key("own", uuid)), "=", kv.ModRevision))
			t.ops = append(t.ops, clientv3.OpPut(e.key("own", uuid), o.text()))
		}
		if len(t.ops) == 0 {
			return nil
		}
		// If the compares fail, a VM has moved meanwhile, or an earlier copy of this
		// transaction was done: try again.
		_, missed, err := e.commit(&t)
		switch {
		case tooLarge(err):
			return e.cfg.explain(err)
		case err != nil || missed == nil:
			return err
		}
	}
}

// foundAt notes a VM's owner before the first try to fence it.
func (e *Engine) foundAt(uuid string, o owner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.before[uuid]; !known {
		e.before[uuid] = o
	}
}

// record is all that etcd has of a VM at one moment.
type record struct {
	uuid    string
	own, q  *mvccpb.KeyValue
	vm      *mvccpb.KeyValue
	entries []*mvccpb.KeyValue // of any generation
}

// read reads VMs, each as it is at one moment. insist: it tries until etcd answers.
func (e *Engine) read(uuids []string, insist bool) ([]record, error) {
	var gets []clientv3.Op
	for _, uuid := range uuids {
		gets = append(gets, clientv3.OpGet(e.key("own", uuid)), clientv3.OpGet(e.key("q", uuid)),
			clientv3.OpGet(e.key("v", uuid)), clientv3.OpGet(e.key("k", uuid)+"/", clientv3.WithPrefix()))
	}
	found, err := e.many(gets, insist)
	if err != nil {
		return nil, err
	}
	one := func(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
		if len(kvs) == 0 {
			return nil
		}
		return kvs[0]
	}
	all := make([]record, len(uuids))
	for i, uuid := range uuids {
		f := found[4*i : 4*i+4]
		all[i] = record{uuid, one(f[0]), one(f[1]), one(f[2]), f[3]}
	}
	return all, nil
}

// many runs all the gets at one moment. insist: it tries until etcd answers.
func (e *Engine) many(gets []clientv3.Op, insist bool) ([][]*mvccpb.KeyValue, error) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Patience)
		resp, err := e.kv.Txn(ctx).Then(gets...).Commit()
		cancel()
		if err == nil {
			found := make([][]*mvccpb.KeyValue, len(gets))
			for i, r := range resp.Responses {
				found[i] = r.GetResponseRange().Kvs
			}
			return found, nil
		}
		if err = e.cfg.explain(err); !insist || errs.KindOf(err) != errs.Busy {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return nil, err
		}
	}
}

// stateOf returns the VM's state as the record says it. This host must be the owner.
func (e *Engine) stateOf(r *record) (*state, error) {
	switch {
	case r.own == nil && (r.q != nil || r.vm != nil): // they go in one transaction
		return nil, store.Damaged(errs.New(errs.IO, "who owns it is not there"))
	case r.own == nil:
		return nil, moved(r.uuid)
	}
	o, err := readOwner(r.own.Value)
	switch {
	case err != nil:
		return nil, err
	case o.Host != e.cfg.Host:
		return nil, moved(r.uuid)
	case r.q == nil:
		return nil, store.Damaged(errs.New(errs.IO, "its sequence is not there"))
	}
	seq, err := readSequence(r.uuid, r.q.Value)
	if err != nil {
		return nil, err
	}
	return &state{owner: o, own: r.own.ModRevision, q: r.q.ModRevision, seq: seq}, nil
}

// give gives the records of a VM that this host owns. If the VM's own records are damaged,
// it gives one that the store cannot read, so that the VM is named in the log and not
// served.
func (e *Engine) give(r record, fn func(key, value []byte) error) error {
	st, err := e.stateOf(&r)
	switch {
	case errs.KindOf(err) == errs.Moved:
		return nil
	case err != nil:
		e.cfg.Log.Error().Str("vm", r.uuid).Err(err).Msg("a VM in etcd is damaged, and not served")
		return fn(vmKey(r.uuid, 0), []byte("damaged"))
	}
	switch err := e.sweep(&r, st); {
	case errs.KindOf(err) == errs.Moved, err == nil && !st.whole():
		return nil
	case err != nil:
		e.cfg.Log.Warn().Str("vm", r.uuid).Err(err).Msg("what an unfinished change has left in etcd stays there until the next start")
	}
	if !st.whole() {
		return nil
	}
	e.learn(r.uuid, st)
	return e.records(&r, st, fn)
}

// sweep deletes the entries of a generation that no transaction has switched to, and the
// parts of a VM whose first group was never finished.
func (e *Engine) sweep(r *record, st *state) error {
	w := &writer{engine: e, uuid: r.uuid, st: st}
	if !st.whole() {
		return w.forget()
	}
	head, all := e.entries(r.uuid, st.seq.Gen), e.key("k", r.uuid)+"/"
	if !slices.ContainsFunc(r.entries, func(kv *mvccpb.KeyValue) bool { return !strings.HasPrefix(string(kv.Key), head) }) {
		return nil
	}
	seq := st.seq
	return w.write(step{seq: &seq, ops: []clientv3.Op{
		clientv3.OpDelete(all, clientv3.WithRange(head)),
		clientv3.OpDelete(clientv3.GetPrefixRangeEnd(head), clientv3.WithRange(clientv3.GetPrefixRangeEnd(all))),
	}})
}

// records gives the VM's records in the order of a store's keys.
func (e *Engine) records(r *record, st *state, fn func(key, value []byte) error) error {
	if r.vm != nil {
		if err := fn(vmKey(r.uuid, 0), r.vm.Value); err != nil {
			return err
		}
	}
	head := e.entries(r.uuid, st.seq.Gen)
	for _, kv := range r.entries {
		if rest, is := strings.CutPrefix(string(kv.Key), head); is {
			if err := fn(recordKey(r.uuid, rest), kv.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// Fetch is store.Shared's.
func (e *Engine) Fetch(uuid string, fn func(key, value []byte) error) (mark uint64, err error) {
	all, err := e.read([]string{uuid}, false)
	if err != nil {
		return 0, err
	}
	e.mu.Lock()
	making := e.making[uuid]
	e.mu.Unlock()
	if making { // else sweep would delete the parts that are there
		return 0, errs.New(errs.Busy, "VM %s is just being made here", uuid)
	}
	st, err := e.stateOf(&all[0])
	if err != nil {
		return 0, err
	}
	switch err := e.sweep(&all[0], st); {
	case errs.KindOf(err) == errs.Moved:
		return 0, err
	case !st.whole():
		return 0, errs.New(errs.NotFound, "VM %s was never whole: its host has died while it was made", uuid)
	case err != nil:
		e.cfg.Log.Warn().Str("vm", uuid).Err(err).Msg("what an unfinished change has left in etcd stays there until the next start")
	}
	if err := e.records(&all[0], st, fn); err != nil {
		return 0, err
	}
	e.learn(uuid, st)
	return st.owner.Mark, nil
}

// blockSize is how many IDs a host takes at once. No host gets the first block.
const blockSize = 1 << 20

// Block is store.Shared's. If etcd's answer is lost, the block is lost too, which does no
// harm: there are 2^42 blocks.
func (e *Engine) Block(least uint64) (first, count uint64, err error) {
	if e.noBlocks != nil && time.Since(e.noBlocksAt) < noBlocksFor {
		return 0, 0, e.noBlocks // so that not every intent of a batch waits for etcd
	}
	first, count, err = e.block(least)
	e.noBlocks, e.noBlocksAt = err, time.Now()
	return first, count, err
}

// noBlocksFor is how long Block answers with its last error without asking etcd again.
const noBlocksFor = time.Second

// blockPause is the pause between two tries.
const blockPause = 100 * time.Millisecond

func (e *Engine) block(least uint64) (first, count uint64, err error) {
	count = (least + blockSize - 1) / blockSize * blockSize
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Patience)
	defer cancel()
	// When etcd has lost a member, its errors come at once: ctx bounds the tries.
	again := func(err error) bool {
		select {
		case <-time.After(blockPause):
			return !definite(err)
		case <-ctx.Done():
			return false
		}
	}
	key := e.key(keyIDs)
	for {
		resp, err := e.kv.Get(ctx, key)
		if err != nil && again(err) {
			continue
		}
		if err != nil {
			return 0, 0, e.noBlock(err)
		}
		first, rev := uint64(blockSize), int64(0)
		if len(resp.Kvs) > 0 {
			rev = resp.Kvs[0].ModRevision
			if first, err = strconv.ParseUint(string(resp.Kvs[0].Value), 10, 62); err != nil || first < blockSize {
				return 0, 0, errs.New(errs.IO, "the next block of IDs is damaged in etcd: %s holds %q", key, resp.Kvs[0].Value)
			}
		}
		put, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
			Then(clientv3.OpPut(key, strconv.FormatUint(first+count, 10))).Commit()
		if err != nil && again(err) {
			continue
		}
		if err != nil {
			return 0, 0, e.noBlock(err)
		}
		if put.Succeeded {
			return first, count, nil
		}
	}
}

// Keep is store.Shared's.
func (e *Engine) Keep(limit uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Patience)
	defer cancel()
	key := e.key(keyIDs)
	next := max(1, (limit+blockSize-1)/blockSize) * blockSize
	resp, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, strconv.FormatUint(next, 10))).Commit()
	if err != nil {
		return false, e.noBlock(err)
	}
	return resp.Succeeded, nil
}

// noBlock is the error of an intent that needs an ID.
func (e *Engine) noBlock(err error) error {
	return errs.New(errs.IO, "no IDs for new files can be had: %s", errs.Detail(e.cfg.explain(err)))
}
