package etcd

import (
	"context"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// Owner is store.Cluster's.
func (e *Engine) Owner(ctx context.Context, uuid string) (store.Owner, error) {
	resp, err := e.kv.Get(ctx, e.key("own", uuid))
	if err != nil {
		return store.Owner{}, e.cfg.explain(err)
	}
	if len(resp.Kvs) == 0 {
		return store.Owner{}, noVM(uuid)
	}
	o, err := readOwner(resp.Kvs[0].Value)
	return store.Owner{Host: o.Host, Epoch: o.Epoch, Mark: o.Mark, Rev: resp.Kvs[0].ModRevision}, err
}

// Named is store.Cluster's.
func (e *Engine) Named(ctx context.Context, alias string) (string, error) {
	resp, err := e.kv.Get(ctx, e.key("alias", alias))
	if err != nil {
		return "", e.cfg.explain(err)
	}
	if len(resp.Kvs) == 0 {
		return "", errs.New(errs.NotFound, "no VM of the fleet has the alias %q", alias)
	}
	return string(resp.Kvs[0].Value), nil
}

func noVM(uuid string) error { return errs.New(errs.NotFound, "no host of the fleet has VM %s", uuid) }

// Claim is store.Cluster's. The same transaction checks that the owner is not alive.
func (e *Engine) Claim(ctx context.Context, uuid string, from store.Owner) error {
	own := e.key("own", uuid)
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(own), "=", from.Rev)}
	ops := []clientv3.Op{
		clientv3.OpPut(own, owner{Host: e.cfg.Host, Epoch: from.Epoch + 1, Mark: from.Mark}.text()),
		clientv3.OpPut(e.key("by", e.cfg.Host, uuid), ""),
	}
	asks := []clientv3.Op{clientv3.OpGet(own, clientv3.WithKeysOnly())}
	if from.Host != "" && from.Host != e.cfg.Host {
		host := e.key("host", from.Host)
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(host), "=", 0))
		ops = append(ops, clientv3.OpDelete(e.key("by", from.Host, uuid)), clientv3.OpPut(e.key("creations", from.Host), ""))
	}
	done, err := e.kv.Txn(ctx).If(cmps...).Then(ops...).Else(asks...).Commit()
	if err != nil {
		return e.cfg.explain(err)
	}
	if done.Succeeded {
		return nil
	}
	if kvs := done.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && kvs[0].ModRevision == from.Rev {
		return errs.New(errs.Busy, "VM %s is host %q's, which lives: it must be asked", uuid, from.Host)
	}
	return errs.New(errs.Busy, "VM %s has another owner by now", uuid)
}

// Claimable is a VM that Claim would take.
type Claimable struct{ UUID, Host string } // Host "": nobody's

// claimablePage is how many keys one request of Claimable reads.
const claimablePage = 1000

// Claimable lists the VMs of hosts that are not alive, and nobody's, up to limit VMs; more tells
// that there are others. It is as it was while it was asked for: only Claim is sure.
func (e *Engine) Claimable(ctx context.Context, limit int) (all []Claimable, more bool, err error) {
	add := func(c Claimable) (enough bool) {
		if more = len(all) == limit; !more {
			all = append(all, c)
		}
		return more
	}
	hosts, err := e.Hosts(ctx)
	if err != nil {
		return nil, false, err
	}
	by := e.key("by") + "/"
	var alive []string // the prefixes of the VMs of each
	for _, h := range hosts {
		if !h.Fenced {
			alive = append(alive, by+h.Host+"/")
		}
	}
	slices.Sort(alive)
	// What is between those is of hosts that are not alive.
	from := by
	for _, its := range append(alive, clientv3.GetPrefixRangeEnd(by)) {
		err := e.eachKey(ctx, from, its, func(kv *mvccpb.KeyValue) bool {
			host, uuid, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), by), "/")
			return add(Claimable{uuid, host})
		}, clientv3.WithKeysOnly())
		if err != nil || more {
			return all, more, err
		}
		from = clientv3.GetPrefixRangeEnd(its)
	}
	switch owned, err := e.allOwned(ctx); {
	case err != nil:
		return nil, false, err
	case owned:
		return all, false, nil
	}
	own := e.key("own") + "/"
	err = e.eachKey(ctx, own, clientv3.GetPrefixRangeEnd(own), func(kv *mvccpb.KeyValue) bool {
		o, err := readOwner(kv.Value)
		return err == nil && o.Host == "" && add(Claimable{UUID: strings.TrimPrefix(string(kv.Key), own)})
	})
	return all, more, err
}

// eachKey calls fn for the keys from first up to, and without, end, until fn says that it is enough.
func (e *Engine) eachKey(ctx context.Context, first, end string, fn func(kv *mvccpb.KeyValue) (enough bool), opts ...clientv3.OpOption) error {
	opts = append(opts, clientv3.WithRange(end), clientv3.WithLimit(claimablePage))
	for {
		resp, err := e.kv.Get(ctx, first, opts...)
		if err != nil {
			return e.cfg.explain(err)
		}
		if slices.ContainsFunc(resp.Kvs, fn) || !resp.More {
			return nil
		}
		first = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// allOwned tells whether each VM has an owner. It only counts, since 100,000 owners take long to read: a
// VM has one key below own/, one below q/, and, if it is somebody's, one below by/. (Several VMs that are
// damaged could make the numbers the same by chance.)
func (e *Engine) allOwned(ctx context.Context) (bool, error) {
	var counts []clientv3.Op
	for _, name := range []string{"own", "q", "by"} {
		counts = append(counts, clientv3.OpGet(e.key(name)+"/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	}
	counted, err := e.kv.Txn(ctx).Then(counts...).Commit()
	if err != nil {
		return false, e.cfg.explain(err)
	}
	n := func(i int) int64 { return counted.Responses[i].GetResponseRange().Count }
	return n(0) == n(1) && n(1) == n(2), nil
}

// Mine is store.Cluster's. by/HOST/UUID is written in each transaction that makes the VM this host's,
// together with own/UUID, and in no other.
func (e *Engine) Mine(ctx context.Context) (map[string]bool, error) {
	by := e.key("by", e.cfg.Host) + "/"
	resp, err := e.kv.Get(ctx, by, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, e.cfg.explain(err)
	}
	all := make(map[string]bool, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		uuid := strings.TrimPrefix(string(kv.Key), by)
		st := e.known(uuid)
		all[uuid] = st != nil && kv.ModRevision <= st.own
	}
	return all, nil
}

// Residence is store.Cluster's. All pieces belong to one gift: only the owner writes them.
// rev is the revision of the first piece.
func (e *Engine) Residence(ctx context.Context, uuid string) (with string, rev int64, err error) {
	resp, err := e.kv.Get(ctx, e.key("res", uuid)+"/", clientv3.WithPrefix())
	if err != nil {
		return "", 0, e.cfg.explain(err)
	}
	var all strings.Builder
	for _, kv := range resp.Kvs {
		_, _ = all.Write(kv.Value)
	}
	if len(resp.Kvs) > 0 {
		rev = resp.Kvs[0].ModRevision
	}
	return all.String(), rev, nil
}

// Forget is store.Cluster's. A late copy of this transaction does nothing: what it would
// find is of a later gift, and has another revision.
func (e *Engine) Forget(ctx context.Context, uuid string, rev int64) error {
	st := e.known(uuid)
	if st == nil {
		return moved(uuid)
	}
	own, res := e.key("own", uuid), e.key("res", uuid)+"/"
	done, err := e.kv.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(own), "=", st.own),
		clientv3.Compare(clientv3.ModRevision(res+firstPiece), "=", rev),
	).Then(clientv3.OpDelete(res, clientv3.WithPrefix())).Else(clientv3.OpGet(own, clientv3.WithKeysOnly())).Commit()
	if err != nil {
		return e.cfg.explain(err)
	}
	if done.Succeeded {
		return nil
	}
	if kvs := done.Responses[0].GetResponseRange().Kvs; len(kvs) == 0 || kvs[0].ModRevision != st.own {
		return moved(uuid)
	}
	return nil // there is nothing of that time any more
}

// Came is store.Cluster's.
func (e *Engine) Came(ctx context.Context) ([]string, error) {
	res, by := e.key("res")+"/", e.key("by", e.cfg.Host)+"/"
	resp, err := e.kv.Txn(ctx).Then(
		clientv3.OpGet(res, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(by, clientv3.WithPrefix(), clientv3.WithKeysOnly())).Commit()
	if err != nil {
		return nil, e.cfg.explain(err)
	}
	mine := make(map[string]bool)
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		mine[strings.TrimPrefix(string(kv.Key), by)] = true
	}
	var came []string
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		if uuid, first := strings.CutSuffix(strings.TrimPrefix(string(kv.Key), res), "/"+firstPiece); first && mine[uuid] {
			came = append(came, uuid)
		}
	}
	return came, nil
}

// Peek is store.Cluster's.
func (e *Engine) Peek(_ context.Context, uuid string, fn func(key, value []byte) error) error {
	all, err := e.read([]string{uuid}, false)
	if err != nil {
		return err
	}
	r := &all[0]
	switch {
	case r.own == nil:
		return noVM(uuid)
	case r.q == nil:
		return errs.New(errs.IO, "its sequence is not there")
	}
	seq, err := readSequence(uuid, r.q.Value)
	if err != nil {
		return err
	}
	return e.records(r, &state{seq: seq}, fn)
}
