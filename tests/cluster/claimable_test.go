package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/store"
	"meta9/fs/store/etcd"
)

// TestClaimable: the VMs of hosts that do not live are listed, and those that are nobody's, also where they
// are many; those of hosts that live are not.
func TestClaimable(t *testing.T) {
	c := start(t, 1, fast)
	const prefix = "/claimable/"
	a := c.host(t, prefix, "a", 0)
	a.Do(store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidOf(1) + `"}`})
	all := func(when string, most int, more bool, want ...etcd.Claimable) {
		t.Helper()
		got, has, err := a.Engine.(*etcd.Engine).Claimable(t.Context(), most)
		if err != nil || has != more || !slices.Equal(got, want) {
			t.Errorf("%s: %d VMs, more: %v, %v; they begin with %v", when, len(got), has, err, got[:min(len(got), 5)])
		}
	}
	all("nothing", 9, false)
	// These are hosts that have never lived. The names are below, between and above that of a.
	var want []etcd.Claimable
	for i, host := range []string{"a-b", "a0", "b"} {
		s := c.open(t, prefix, host)
		do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidOf(10+i) + `"}`})
		want = append(want, etcd.Claimable{UUID: uuidOf(10 + i), Host: host})
		if host == "b" {
			cell := do(t, s, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidOf(20) + `"}`}).Cell
			do(t, s, store.Intent{Kind: store.Yield, Cell: cell, Gift: &store.Gift{}})
		}
	}
	want = append(want, etcd.Claimable{UUID: uuidOf(20)})
	all("all", 4, false, want...)
	all("the first", 3, true, want[:3]...)
	all("two", 2, true, want[:2]...)

	// More than one request of etcd has.
	plain, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	want = want[:3]
	for _, host := range []string{"c", ""} {
		var ops []clientv3.Op
		for n := range 2500 {
			uuid := uuidOf(1000 + n)
			if host == "" {
				uuid = uuidOf(5000 + n)
			} else {
				ops = append(ops, clientv3.OpPut(prefix+"by/"+host+"/"+uuid, ""))
			}
			ops = append(ops, clientv3.OpPut(prefix+"own/"+uuid, fmt.Sprintf(`{"host":%q,"epoch":1}`, host)))
			want = append(want, etcd.Claimable{UUID: uuid, Host: host})
		}
		for some := range slices.Chunk(ops, 100) {
			if _, err := plain.Txn(t.Context()).Then(some...).Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want = slices.Insert(want, 3+2500, etcd.Claimable{UUID: uuidOf(20)})
	all("many", 10_000, false, want...)
	all("most of them", 4000, true, want[:4000]...)
}

// uuidOf is the n-th UUID of the tests' VMs.
func uuidOf(n int) string { return strings.Replace(uuidA, uuidA[24:], fmt.Sprintf("%012d", n), 1) }
