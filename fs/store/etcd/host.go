package etcd

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

var _ store.Cluster = (*Engine)(nil)

// errNoLease is an errs.NotFound, because what depends on the lease is gone.
var errNoLease = errs.New(errs.NotFound, "this host has no lease in etcd")

// Join is store.Cluster's.
func (e *Engine) Join(ctx context.Context, h store.HostInfo, ttl time.Duration) error {
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	grant, err := e.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return e.cfg.explain(err)
	}
	for {
		done, err := e.join(ctx, &h, string(value), grant.ID)
		if err == nil && !done {
			continue // the record has changed meanwhile
		}
		if err != nil {
			e.revoke(grant.ID)
			return err
		}
		e.lease.Store(int64(grant.ID))
		return nil
	}
}

// join puts the host's record under the lease, unless it has changed since it was read.
func (e *Engine) join(ctx context.Context, h *store.HostInfo, value string, lease clientv3.LeaseID) (done bool, err error) {
	host, fenced := e.key("host", e.cfg.Host), e.key("fenced", e.cfg.Host)
	resp, err := e.kv.Txn(ctx).Then(clientv3.OpGet(host), clientv3.OpGet(fenced)).Commit()
	if err != nil {
		return false, e.cfg.explain(err)
	}
	var revs [2]int64 // 0: the key is not there
	var found [2]*mvccpb.KeyValue
	for i := range found {
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			found[i], revs[i] = kvs[0], kvs[0].ModRevision
		}
	}
	if is := readHost(e.cfg.Host, found[0]); is != nil && is.Instance != h.Instance {
		return false, errs.New(errs.Exists, "another meta9d is the host %q, at %s: each host needs a name of its own", e.cfg.Host, is.at())
	}
	if found[1] != nil && string(found[1].Value) == h.Boot {
		return false, errs.New(errs.Moved, "the host %q is fenced: start meta9d anew", e.cfg.Host)
	}
	put, err := e.kv.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(host), "=", revs[0]), clientv3.Compare(clientv3.ModRevision(fenced), "=", revs[1]),
	).Then(clientv3.OpPut(host, value, clientv3.WithLease(lease)), clientv3.OpDelete(fenced)).Commit()
	if err != nil {
		return false, e.cfg.explain(err)
	}
	return put.Succeeded, nil
}

// hostRecord is a host's record, as it is in etcd.
type hostRecord struct {
	store.HostInfo
	lease clientv3.LeaseID
}

// at says, for people, where the host is.
func (h *hostRecord) at() string {
	if len(h.Addresses) == 0 {
		return "an address that it does not tell"
	}
	return strings.Join(h.Addresses, ", ")
}

// readHost reads a host's record. nil: there is none. A record that cannot be read counts
// as another meta9d's.
func readHost(name string, kv *mvccpb.KeyValue) *hostRecord {
	if kv == nil {
		return nil
	}
	h := &hostRecord{lease: clientv3.LeaseID(kv.Lease)}
	_ = json.Unmarshal(kv.Value, &h.HostInfo)
	h.Host = name
	return h
}

// Refresh is store.Cluster's.
func (e *Engine) Refresh(ctx context.Context) (ttl time.Duration, err error) {
	lease := clientv3.LeaseID(e.lease.Load())
	if lease == clientv3.NoLease {
		return 0, errNoLease
	}
	resp, err := e.client.KeepAliveOnce(ctx, lease)
	switch {
	case err != nil && isAny(err, rpctypes.ErrLeaseNotFound), err == nil && resp.TTL <= 0:
		e.lease.CompareAndSwap(int64(lease), int64(clientv3.NoLease))
		return 0, errNoLease
	case err != nil:
		return 0, e.cfg.explain(err)
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// Tell is store.Cluster's. A late copy of an earlier one does nothing: the record has changed since.
func (e *Engine) Tell(ctx context.Context, h store.HostInfo) error {
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	key, lease := e.key("host", e.cfg.Host), clientv3.LeaseID(e.lease.Load())
	resp, err := e.kv.Get(ctx, key)
	if err != nil {
		return e.cfg.explain(err)
	}
	if len(resp.Kvs) == 0 || lease == clientv3.NoLease || clientv3.LeaseID(resp.Kvs[0].Lease) != lease {
		return errNoLease
	}
	done, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpPut(key, string(value), clientv3.WithIgnoreLease())).Commit()
	switch {
	case err != nil:
		return e.cfg.explain(err)
	case !done.Succeeded:
		return errs.New(errs.Busy, "the record of the host %q has just changed", e.cfg.Host)
	}
	return nil
}

// Leave is store.Cluster's.
func (e *Engine) Leave(ctx context.Context) error {
	lease := clientv3.LeaseID(e.lease.Swap(int64(clientv3.NoLease)))
	if lease == clientv3.NoLease {
		return nil
	}
	if _, err := e.client.Revoke(ctx, lease); err != nil && !isAny(err, rpctypes.ErrLeaseNotFound) {
		return e.cfg.explain(err)
	}
	return nil
}

// revoke ends a lease that nobody uses. Without it the lease ends after its TTL.
func (e *Engine) revoke(lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
	defer cancel()
	_, _ = e.client.Revoke(ctx, lease)
}

// Hosts is store.Cluster's.
func (e *Engine) Hosts(ctx context.Context) ([]store.HostInfo, error) {
	host, fenced := e.key("host")+"/", e.key("fenced")+"/"
	resp, err := e.kv.Txn(ctx).Then(clientv3.OpGet(host, clientv3.WithPrefix()), clientv3.OpGet(fenced, clientv3.WithPrefix())).Commit()
	if err != nil {
		return nil, e.cfg.explain(err)
	}
	var all []store.HostInfo
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		all = append(all, readHost(strings.TrimPrefix(string(kv.Key), host), kv).HostInfo)
	}
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		name := strings.TrimPrefix(string(kv.Key), fenced)
		if !slices.ContainsFunc(all, func(h store.HostInfo) bool { return h.Host == name }) {
			all = append(all, store.HostInfo{Host: name, Boot: string(kv.Value), Fenced: true})
		}
	}
	slices.SortFunc(all, func(a, b store.HostInfo) int { return cmp.Compare(a.Host, b.Host) })
	return all, nil
}

// Fence is store.Cluster's. The lease's end deletes the host's requests, too.
func (e *Engine) Fence(ctx context.Context, host string) error {
	key := e.key("host", host)
	resp, err := e.kv.Get(ctx, key)
	if err != nil {
		return e.cfg.explain(err)
	}
	if len(resp.Kvs) == 0 {
		return errs.New(errs.NotFound, "the host %q does not live: its VMs can be claimed already", host)
	}
	h := readHost(host, resp.Kvs[0])
	done, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpPut(e.key("fenced", host), h.Boot)).Commit()
	if err != nil {
		return e.cfg.explain(err)
	}
	if !done.Succeeded {
		return errs.New(errs.Busy, "the host %q has just ended or been started: look again", host)
	}
	if _, err := e.client.Revoke(ctx, h.lease); err != nil && !isAny(err, rpctypes.ErrLeaseNotFound) {
		return e.cfg.explain(err)
	}
	return nil
}

// ask is a request for a VM, as JSON.
type ask struct {
	By     string `json:"by"`
	Answer string `json:"answer,omitempty"` // why the owner refuses
}

func (a ask) text() string {
	b, _ := json.Marshal(a) // two strings
	return string(b)
}

// Ask is store.Cluster's.
func (e *Engine) Ask(ctx context.Context, of, uuid string) (answer string, err error) {
	lease := clientv3.LeaseID(e.lease.Load())
	if lease == clientv3.NoLease {
		return "", errNoLease
	}
	key := e.key("ask", of, uuid)
	resp, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, ask{By: e.cfg.Host}.text(), clientv3.WithLease(lease))).Else(clientv3.OpGet(key)).Commit()
	switch {
	case err != nil && isAny(err, rpctypes.ErrLeaseNotFound):
		return "", errNoLease
	case err != nil:
		return "", e.cfg.explain(err)
	case resp.Succeeded:
		return "", nil
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && clientv3.LeaseID(kvs[0].Lease) == lease {
		var a ask
		_ = json.Unmarshal(kvs[0].Value, &a) // a request that cannot be read has no answer
		return a.Answer, nil
	}
	return "", nil // it is another host's request; that host gets the VM first
}

// Unask is store.Cluster's.
func (e *Engine) Unask(ctx context.Context, of, uuid string) error {
	key := e.key("ask", of, uuid)
	lease := clientv3.LeaseID(e.lease.Load())
	if lease == clientv3.NoLease {
		return nil
	}
	_, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(key), "=", lease)).Then(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return e.cfg.explain(err)
	}
	return nil
}

// Asks is store.Cluster's.
func (e *Engine) Asks(ctx context.Context) ([]store.Ask, error) {
	prefix := e.key("ask", e.cfg.Host) + "/"
	resp, err := e.kv.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, e.cfg.explain(err)
	}
	var all []store.Ask
	for _, kv := range resp.Kvs {
		var a ask
		if json.Unmarshal(kv.Value, &a) == nil && a.Answer == "" {
			all = append(all, store.Ask{UUID: strings.TrimPrefix(string(kv.Key), prefix), By: a.By, Rev: kv.ModRevision})
		}
	}
	return all, nil
}

// Answer is store.Cluster's.
func (e *Engine) Answer(ctx context.Context, a store.Ask, text string) error {
	key := e.key("ask", e.cfg.Host, a.UUID)
	_, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", a.Rev)).
		Then(clientv3.OpPut(key, ask{By: a.By, Answer: text}.text(), clientv3.WithIgnoreLease())).Commit()
	if err != nil {
		return e.cfg.explain(err)
	}
	return nil
}

// watchAgain is the pause before a watch that has ended begins again.
const watchAgain = time.Second

// Watch is store.Cluster's.
func (e *Engine) Watch(ctx context.Context, hint func(), came func(uuid string)) {
	by := e.key("by", e.cfg.Host) + "/"
	e.mu.Lock()
	listed := e.listed
	e.mu.Unlock()
	var all sync.WaitGroup
	for _, prefix := range []string{e.key("ask", e.cfg.Host) + "/", by, e.key("host") + "/"} {
		all.Go(func() {
			var next int64 // the revision after the last that was seen; 0: the present one
			if prefix == by && listed > 0 {
				next = listed + 1
			}
			for ctx.Err() == nil {
				next = e.watch(ctx, prefix, next, func(changes []*clientv3.Event) {
					for _, c := range changes {
						uuid, mine := strings.CutPrefix(string(c.Kv.Key), by)
						if mine && c.Type == clientv3.EventTypePut && !e.made(uuid, c.Kv.ModRevision) {
							came(uuid)
						}
					}
					hint()
				})
				select {
				case <-ctx.Done():
				case <-time.After(watchAgain):
				}
			}
		})
	}
	all.Wait()
}

// made tells whether this engine has made the VM, or has its records, since that revision, or is
// just making it.
func (e *Engine) made(uuid string, rev int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.vms[uuid]
	return e.making[uuid] || st != nil && rev <= st.own
}

// watch calls changed with the changes below the prefix from revision next on, until the watch
// ends. It returns with which revision to go on.
func (e *Engine) watch(ctx context.Context, prefix string, next int64, changed func([]*clientv3.Event)) int64 {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range e.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(next), clientv3.WithCreatedNotify()) {
		switch {
		case resp.CompactRevision > 0: // what was missed is not there any more
			return 0
		case resp.Err() != nil:
			return next
		}
		if next <= resp.Header.Revision && (next == 0 || !resp.Created) {
			next = resp.Header.Revision + 1
		}
		changed(resp.Events)
	}
	return next
}
