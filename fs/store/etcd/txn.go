package etcd

import (
	"context"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// txn is a transaction that may be sent several times: once it is done, its compares fail.
type txn struct {
	cmps      []clientv3.Cmp
	fences    int // so many of cmps, the first ones, fail for ever once it is done
	ops       []clientv3.Op
	ask       []string // keys to read if the compares fail
	again     bool     // it was sent before, and its outcome is not known
	splits    bool     // its caller sends smaller ones where etcd takes none of its size
	creations int64    // the revision of creations/HOST that it compares, if it makes a VM
}

// gets are operations that read the keys in ask.
func (t *txn) gets() (all []clientv3.Op) {
	for _, key := range t.ask {
		all = append(all, clientv3.OpGet(key))
	}
	return all
}

// commit sends a transaction until its outcome is known. Either it was done, at revision
// rev; or its compares have failed, and found are the values of the keys in ask at that
// moment. Where etcd takes none of that size, the error of one that splits is etcd's own, and an earlier
// copy may still be done.
func (e *Engine) commit(t *txn) (rev int64, found []*mvccpb.KeyValue, err error) {
	var gets []clientv3.Op // none until they are needed: all members write to their disks what is sent
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if e.ctx.Err() != nil && !t.again {
			return 0, nil, store.Unchanged(errClosed)
		}
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
		if !t.again {
			ctx = e.leader.prefer(ctx)
		}
		resp, err := e.kv.Txn(ctx).If(t.cmps...).Then(t.ops...).Else(gets...).Commit()
		cancel()
		e.notice(err)
		if err == nil {
			e.heard(resp.Header.RaftTerm)
		}
		switch {
		case err == nil && resp.Succeeded:
			return resp.Header.Revision, nil, nil
		case err == nil && len(gets) < len(t.ask):
			gets = t.gets()
			continue
		case err == nil:
			return 0, firsts(resp), nil
		case tooLarge(err) && t.splits:
			return 0, nil, err
		case definite(err) && !t.again && !isAny(err, rpctypes.ErrNoSpace):
			return 0, nil, store.Unchanged(e.cfg.explain(err))
		case definite(err):
			// etcd refuses all writes, and does not say whether the compares fail, as they do if
			// an earlier copy was done: refused asks. If it was not done, it may be done later.
			// With ErrNoSpace this copy, too, may have been done: the first request past the
			// limit is done, and gets the error all the same.
			switch found, known := e.refused(t); {
			case found != nil:
				t.again = true
				return 0, found, nil
			case known && !t.again:
				return 0, nil, store.Unchanged(e.cfg.explain(err))
			}
		}
		if !t.again {
			e.unsure.Add(1)
		}
		t.again = true
		gets = t.gets()
		e.leader.forget()
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return 0, nil, errs.New(errs.IO, "stopped before etcd has said whether it was done, which the next start finds out: %v", err)
		}
	}
}

// firsts returns the keys that a transaction's gets of one key each have found, nil for one
// that is not there.
func firsts(resp *clientv3.TxnResponse) []*mvccpb.KeyValue {
	found := make([]*mvccpb.KeyValue, len(resp.Responses))
	for i, r := range resp.Responses {
		if kvs := r.GetResponseRange().Kvs; len(kvs) > 0 {
			found[i] = kvs[0]
		}
	}
	return found
}

// refused asks etcd, which has refused a transaction, whether its compares fail. found is what
// gets find then. nil: the compares hold, if known; else etcd has not answered.
func (e *Engine) refused(t *txn) (found []*mvccpb.KeyValue, known bool) {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
	defer cancel()
	resp, err := e.kv.Txn(ctx).If(t.cmps...).Else(t.gets()...).Commit()
	if err != nil || resp.Succeeded {
		return nil, err == nil
	}
	return firsts(resp), true
}

// notice notes the result of a try, for Trouble.
func (e *Engine) notice(err error) {
	if err == nil {
		e.trouble.Store(nil)
		return
	}
	err = e.cfg.explain(err)
	e.trouble.Store(&err)
}

var errClosed = errs.New(errs.IO, "the engine is closed: nothing was changed")

// definite tells whether the error means that etcd has refused the request, so that
// nothing of it was done; but for ErrNoSpace, which the first request past the limit gets
// though it was done.
func definite(err error) bool {
	return isAny(err, rpctypes.ErrNoSpace, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty,
		rpctypes.ErrDuplicateKey) || tooLarge(err)
}

// tooLarge tells whether the error means that this etcd takes no transaction of that size. gRPC
// itself refuses, with an error of its own, what is more than 512 KiB past etcd's limit.
func tooLarge(err error) bool {
	return err != nil && (isAny(err, rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge) || strings.Contains(err.Error(), "received message larger than max"))
}

// get reads keys, and tries until it succeeds. It is for callers that cannot go on
// without.
func (e *Engine) get(key string, opts ...clientv3.OpOption) ([]*mvccpb.KeyValue, error) {
	kvs, _, err := e.getAt(key, opts...)
	return kvs, err
}

// getAt is get, and says at which revision that was.
func (e *Engine) getAt(key string, opts ...clientv3.OpOption) (kvs []*mvccpb.KeyValue, rev int64, err error) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
		resp, err := e.kv.Get(ctx, key, opts...)
		cancel()
		e.notice(err)
		switch {
		case err == nil:
			return resp.Kvs, resp.Header.Revision, nil
		case definite(err), isAny(err, rpctypes.ErrCompacted):
			return nil, 0, store.Unchanged(e.cfg.explain(err))
		}
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return nil, 0, store.Unchanged(errClosed)
		}
	}
}
