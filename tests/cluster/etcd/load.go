package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// valueSize is that of the bench's keys.
const valueSize = 100

// recordSize is what meta9 writes for such a key.
const recordSize = valueSize + 60

// report is what a load came to.
type report struct {
	Ops     int           `json:"ops"`
	Elapsed time.Duration `json:"elapsed_ns"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
}

// A writer makes client number n ready, and gives what it repeats.
type writer func(ctx context.Context, kv clientv3.KV, n int) (once func(i int) error, err error)

var loads = map[string]writer{"put": put, "txn": transaction}

// put is a plain put of a key.
func put(ctx context.Context, kv clientv3.KV, n int) (func(int) error, error) {
	value := strings.Repeat("x", valueSize)
	return func(i int) error {
		_, err := kv.Put(ctx, fmt.Sprintf("/plain/%d/key%02d", n, i%100), value)
		return err
	}, nil
}

// transaction is what meta9d writes of a changed key: the record, and the VM's sequence, if
// nobody else has written that or the owner.
func transaction(ctx context.Context, kv clientv3.KV, n int) (func(int) error, error) {
	record := strings.Repeat("x", recordSize)
	own, q := fmt.Sprintf("/plain/own/%036d", n), fmt.Sprintf("/plain/q/%036d", n)
	owned, err := kv.Put(ctx, own, `{"host":"bench","epoch":1}`)
	if err != nil {
		return nil, err
	}
	first, err := kv.Put(ctx, q, "0 0 0 00000000")
	if err != nil {
		return nil, err
	}
	rev := first.Header.Revision
	return func(i int) error {
		done, err := kv.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(own), "=", owned.Header.Revision), clientv3.Compare(clientv3.ModRevision(q), "=", rev),
		).Then(
			clientv3.OpPut(fmt.Sprintf("/plain/k/%036d/0/0key%02d", n, i%100), record), clientv3.OpPut(q, fmt.Sprintf("%d 0 %d 00000000", i, i)),
		).Commit()
		if err != nil {
			return err
		}
		if !done.Succeeded {
			return errors.New("the compares of a transaction have failed")
		}
		rev = done.Header.Revision
		return nil
	}, nil
}

// load has clients, each with a connection of its own, write again and again for a while.
func load(ctx context.Context, endpoints []string, w writer, clients int, d time.Duration) (rep report, err error) {
	type client struct {
		once func(int) error
		took []time.Duration
		err  error
	}
	all := make([]client, clients)
	for n := range all {
		c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 10 * time.Second})
		if err != nil {
			return rep, err
		}
		defer c.Close()
		if all[n].once, err = w(ctx, c, n); err != nil {
			return rep, err
		}
		if err := all[n].once(0); err != nil { // the connection is made by then
			return rep, err
		}
	}
	var running sync.WaitGroup
	begin := time.Now()
	for n := range all {
		c := &all[n]
		running.Go(func() {
			for i, now := 1, begin; c.err == nil && now.Sub(begin) < d; i++ {
				if c.err = c.once(i); c.err == nil {
					next := time.Now()
					c.took = append(c.took, next.Sub(now))
					now = next
				}
			}
		})
	}
	running.Wait()
	rep.Elapsed = time.Since(begin)
	var took []time.Duration
	for n := range all {
		err = errors.Join(err, all[n].err)
		took = append(took, all[n].took...)
	}
	if err != nil || len(took) == 0 {
		return rep, err
	}
	slices.Sort(took)
	rep.Ops, rep.P50, rep.P99 = len(took), took[len(took)/2], took[len(took)*99/100]
	return rep, nil
}
