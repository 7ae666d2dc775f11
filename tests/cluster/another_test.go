package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnotherEtcd: the etcd of a host that runs is replaced by an empty one: by one of other members,
// or by one that is as it was but has lost its data. The host takes no word of that one: its VMs stay,
// no change is acknowledged, and all goes on when the right one is back.
func TestAnotherEtcd(t *testing.T) {
	for name, replace := range map[string]func(c *cluster){
		"of other members": func(c *cluster) { c.Configs[0].Name, c.Configs[0].Cluster = "x", "x="+c.Configs[0].Peer },
		"without its data": func(*cluster) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 1)
			a := c.node(t, "a", nil, "")
			uuid := newVM()
			a.must(`create {"uuid":"` + uuid + `","customer_metadata":{"k":"v"}}`)
			right := c.Configs[0]
			c.Kill(0)
			c.Configs[0].Dir = filepath.Join(t.TempDir(), "other")
			if err := os.Mkdir(c.Configs[0].Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			replace(c)
			c.run(0)
			until(t, "it says so", func() error {
				if how := a.says("fleet_etcd"); !strings.Contains(how, "another etcd") {
					return errSaid(how)
				}
				return nil
			})
			// It is sent again and again, and done when the right one is back.
			if err := a.try(`create {"uuid":"`+newVM()+`"}`, 3*time.Second); err == nil {
				t.Error("a VM is made in another etcd")
			}
			if err := a.conn(t, uuid).Swrite(0, []byte("lost"), "k"); err == nil {
				t.Error("a change is made in another etcd")
			}
			if v, err := a.read("vms", uuid, "keys", "k"); err != nil || v != "v" {
				t.Errorf("the VM has %q, %v", v, err)
			}
			c.Kill(0)
			c.Configs[0] = right
			c.run(0)
			until(t, "the lease", a.well)
			until(t, "a change", func() error { return a.conn(t, uuid).Swrite(0, []byte("w"), "k") })
			if v, err := a.read("vms", uuid, "keys", "k"); err != nil || v != "w" {
				t.Errorf("the VM has %q, %v", v, err)
			}
		})
	}
}

type errSaid string

func (e errSaid) Error() string { return "it says " + string(e) }
