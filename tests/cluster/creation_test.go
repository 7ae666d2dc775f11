package cluster

import (
	"errors"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// TestLateCreation: a copy of the transaction that has made a VM comes when the VM is deleted: no VM
// comes back, whoever has deleted it.
func TestLateCreation(t *testing.T) {
	create := store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`}
	for name, end := range map[string]func(l *late, made <-chan store.Result){
		"by the same process": func(l *late, made <-chan store.Result) {
			do(l.t, l.store, store.Intent{Kind: store.DeleteVM, Cell: wait(l.t, made).Cell})
		},
		"by the next process": func(l *late, made <-chan store.Result) {
			wait(l.t, made)
			_, s, _ := l.again("a")
			do(l.t, s, store.Intent{Kind: store.DeleteVM, Cell: s.Cell(uuidB)})
		},
		"by a host that was given it": func(l *late, made <-chan store.Result) {
			gift := &store.Gift{To: "b"}
			do(l.t, l.store, store.Intent{Kind: store.Yield, Cell: wait(l.t, made).Cell, Gift: gift})
			_, s, _ := l.again("b")
			do(l.t, s, store.Intent{Kind: store.DeleteVM, Cell: s.Cell(uuidB)})
		},
		"by a host that has taken it": func(l *late, made <-chan store.Result) {
			wait(l.t, made)
			e, s, _ := l.again("b")
			do(l.t, s, store.Intent{Kind: store.DeleteVM, Cell: take(l.t, e, s, uuidB)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLate(t, start(t, 1, fast), "/creation/")
			withheld, made := l.begin(withhold, false, create)
			end(l, made)
			l.proxy.deliver(t, withheld)
			for _, host := range []string{"a", "b"} {
				if _, s, _ := l.again(host); s.Cell(uuidB) != nil {
					t.Errorf("host %s has it again", host)
				}
			}
			_, s, _ := l.again("b")
			do(t, s, create)
		})
	}
}

// TestCreationOvertaken: VMs of a host are taken while it makes one and does not know what has become
// of that. The VM is made once; and not once more where it was made, taken and deleted.
func TestCreationOvertaken(t *testing.T) {
	create := store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`}
	for name, tt := range map[string]struct {
		is   plan
		want bool // the VM is there
	}{
		"not made":         {withhold, true},
		"made and deleted": {lose, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLate(t, start(t, 1, fast), "/overtaken/")
			withheld, made := l.begin(tt.is, true, create)
			e, s, _ := l.again("b")
			if tt.is == lose {
				do(t, s, store.Intent{Kind: store.DeleteVM, Cell: take(t, e, s, uuidB)})
			} else {
				take(t, e, s, uuidA)
			}
			close(l.proxy.free)
			if r := wait(t, made); (r.Err == nil) != tt.want {
				t.Errorf("it says %v", r.Err)
			}
			l.proxy.deliver(t, withheld)
			if err := l.store.Err(); err != nil {
				t.Error(err)
			}
			if _, s, _ := l.again("a"); (s.Cell(uuidB) != nil) != tt.want {
				t.Errorf("it is there: %t", !tt.want)
			}
		})
	}
}

// TestCreationsDeleted: somebody has deleted what etcd has of the fleet while a host runs. It says no to
// what needs that, and makes VMs.
func TestCreationsDeleted(t *testing.T) {
	const prefix = "/deleted/"
	c := start(t, 1, fast)
	l := newLate(t, c, prefix)
	if _, err := c.client(t).Delete(t.Context(), prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	do(t, l.store, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `"}`})
	if r := l.store.Do(&store.Intent{Kind: store.Put, Cell: l.cell, Name: "k", Data: "second"}); !errors.Is(r.Err, errs.Moved) {
		t.Errorf("a change of a VM that was deleted so: %v", r.Err)
	}
	if err := l.store.Err(); err != nil {
		t.Error(err)
	}
}
