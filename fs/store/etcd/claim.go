package etcd

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
)

// Owner says whose a VM is, as etcd had it at one moment.
type Owner struct {
	Host  string // "": nobody's
	Epoch uint64 // grows with every owner, and every process of one
	is    owner
	rev   int64
}

// Owner asks whose the VM is. errs.NotFound: no host has such a VM.
func (e *Engine) Owner(ctx context.Context, uuid string) (Owner, error) {
	resp, err := e.kv.Get(ctx, e.key("own", uuid))
	if err != nil {
		return Owner{}, e.cfg.explain(err)
	}
	if len(resp.Kvs) == 0 {
		return Owner{}, errs.New(errs.NotFound, "no host of the fleet has VM %s", uuid)
	}
	o, err := readOwner(resp.Kvs[0].Value)
	return Owner{o.Host, o.Epoch, o, resp.Kvs[0].ModRevision}, err
}

// Claim makes the VM this host's, without asking its owner, who must be dead or have
// given it to nobody: what that one still sends is refused from then on. The VM is to be
// fetched and adopted then. errs.Busy: its owner is no longer the one that from says.
// Any other error leaves open what has become of it: ask whose it is.
func (e *Engine) Claim(ctx context.Context, uuid string, from Owner) error {
	own, o := e.key("own", uuid), from.is
	ops := []clientv3.Op{clientv3.OpPut(e.key("by", e.cfg.Host, uuid), "")}
	if o.Host != "" && o.Host != e.cfg.Host {
		ops = append(ops, clientv3.OpDelete(e.key("by", o.Host, uuid)))
	}
	o.Host, o.Epoch = e.cfg.Host, o.Epoch+1
	done, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(own), "=", from.rev)).
		Then(append(ops, clientv3.OpPut(own, o.text()))...).Commit()
	switch {
	case err != nil:
		return e.cfg.explain(err)
	case !done.Succeeded:
		return errs.New(errs.Busy, "VM %s has another owner by now", uuid)
	}
	return nil
}

// Residence is what came with the VM when it was given to this host, or nothing.
func (e *Engine) Residence(ctx context.Context, uuid string) (string, error) {
	resp, err := e.kv.Get(ctx, e.key("res", uuid)+"/", clientv3.WithPrefix())
	if err != nil {
		return "", e.cfg.explain(err)
	}
	var all strings.Builder
	for _, kv := range resp.Kvs {
		_, _ = all.Write(kv.Value)
	}
	return all.String(), nil
}
