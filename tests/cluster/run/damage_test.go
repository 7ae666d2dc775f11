package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// plain is a client of the cluster's that knows nothing of meta9.
func (e *etcds) plain(t *testing.T) *plain {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: e.endpoints, DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &plain{t, c}
}

type plain struct {
	t *testing.T
	*clientv3.Client
}

func (p *plain) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *plain) get(key string) []byte {
	p.t.Helper()
	resp, err := p.Get(p.ctx(), key)
	if err != nil || len(resp.Kvs) != 1 {
		p.t.Fatalf("%s: %v, %v", key, resp, err)
	}
	return resp.Kvs[0].Value
}

func (p *plain) put(key string, value []byte) {
	p.t.Helper()
	if _, err := p.Put(p.ctx(), key, string(value)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plain) remove(key string) {
	p.t.Helper()
	if resp, err := p.Delete(p.ctx(), key); err != nil || resp.Deleted != 1 {
		p.t.Fatalf("%s: %v, %v", key, resp, err)
	}
}

// bend is the value with one bit of it flipped.
func bend(value []byte, at int) []byte {
	value[at] ^= 1
	return value
}

// uuidOf is the UUID of the test's VM of that number.
func uuidOf(n int) string { return fmt.Sprintf("550e8400-e29b-41d4-a716-%012d", n) }

// createTwo makes a VM with two keys.
func (p *proc) createTwo(uuid string) {
	p.t.Helper()
	p.create(fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"k":"of %[1]s","l":"more"}}`, uuid))
}

// TestDamage damages records in etcd, each of another VM and in another way. Each is named in
// the log, its VM is served neither by its host nor by one that claims it, and all others are.
func TestDamage(t *testing.T) {
	dir := folder(t)
	e := started(t, dir)
	settings := e.settingsOf(t, dir)
	a := begin(t, dir, "a", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	const prefix = "/meta9/v1/"
	c := e.plain(t)
	entry := func(uuid, name string) string { return prefix + "k/" + uuid + "/0/0" + name }
	kinds := []struct {
		name   string
		damage func(uuid string)
		named  string // beside the VM
	}{
		{"a bit of a value", func(u string) { k := entry(u, "k"); v := c.get(k); c.put(k, bend(v, len(v)-1)) }, "checksum"},
		{"a bit of the head", func(u string) { k := entry(u, "l"); c.put(k, bend(c.get(k), 2)) }, "checksum"},
		{"a value that is cut", func(u string) { k := entry(u, "k"); v := c.get(k); c.put(k, v[:len(v)-3]) }, "checksum"},
		{"an empty record", func(u string) { c.put(entry(u, "k"), nil) }, ""},
		{"text in place of a record", func(u string) { c.put(entry(u, "k"), []byte("hello")) }, ""},
		{"the record of another key", func(u string) { c.put(entry(u, "k"), c.get(entry(u, "l"))) }, "checksum"},
		{"a key without a name", func(u string) { c.put(prefix+"k/"+u+"/0/0", c.get(entry(u, "k"))) }, ""},
		{"a key of no space", func(u string) { c.put(prefix+"k/"+u+"/0/9k", c.get(entry(u, "k"))) }, "none of meta9's"},
		{"a key that is none", func(u string) { c.put(prefix+"k/"+u+"/0/xyz", []byte("1")) }, "none of meta9's"},
		{"a bit of the VM's record", func(u string) { k := prefix + "v/" + u; v := c.get(k); c.put(k, bend(v, len(v)/2)) }, "checksum"},
		{"no record of the VM", func(u string) { c.remove(prefix + "v/" + u) }, "belongs to no VM"},
		{"another VM's record", func(u string) { c.put(prefix+"v/"+u, c.get(prefix+"v/"+uuidOf(0))) }, "checksum"},
		{"an owner that is text", func(u string) { c.put(prefix+"own/"+u, []byte("a")) }, "who owns it is not readable"},
		{"an owner without an epoch", func(u string) { c.put(prefix+"own/"+u, []byte(`{"host":"a"}`)) }, "who owns it is not readable"},
		{"no owner", func(u string) { c.remove(prefix + "own/" + u) }, "who owns it is not there"},
		{"a bit of the sequence", func(u string) { k := prefix + "q/" + u; c.put(k, bend(c.get(k), 0)) }, "its sequence is damaged"},
		{"no sequence", func(u string) { c.remove(prefix + "q/" + u) }, "its sequence is not there"},
		{"another VM's sequence", func(u string) { c.put(prefix+"q/"+u, c.get(prefix+"q/"+uuidOf(0))) }, "its sequence is damaged"},
	}
	for n := range len(kinds) + 2 { // the first and the last are left alone
		a.createTwo(uuidOf(n))
	}
	whole := []string{uuidOf(0), uuidOf(len(kinds) + 1)}
	if code, log := a.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, log)
	}
	for n, kind := range kinds {
		kind.damage(uuidOf(n + 1))
	}
	c.put(prefix+"mark/a", []byte("12345678 and this is none"))    // of the host
	c.put(prefix+"res/"+whole[0]+"/000000", []byte("no sessions")) // they are lost, and that is all

	a = begin(t, dir, "a", settings)
	a.until("fleet_etcd ok", "cat", "/ctl")
	serves := func(h *proc, want ...string) {
		t.Helper()
		if got := strings.Fields(h.must("ls", "/vms")); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s serves %s, want %s", h.run, got, want)
		}
		for _, uuid := range want {
			if got := h.must("cat", "/vms/"+uuid+"/keys/k"); got != "of "+uuid {
				t.Errorf("%s: %q", uuid, got)
			}
			h.must("put", "/vms/"+uuid+"/keys/new", "x")
		}
	}
	serves(a, whole...)
	// tells checks what the host's admin is told.
	tells := func(h *proc, want string) {
		t.Helper()
		for _, args := range [][]string{{"status"}, {"doctor"}} {
			if out, err := h.meta9(args...); err == nil || !strings.Contains(out, want) {
				t.Errorf("meta9 %s: %v, and no %q in\n%s", args, err, want, out)
			}
		}
		if out := h.must("cat", "/ctl"); !strings.Contains(out, "\nhealth fleet: VM ") || !strings.Contains(out, want) {
			t.Errorf("ctl says\n%s", out)
		}
	}
	tells(a, "VM "+uuidOf(1)+" is not served, a record of it in etcd is damaged: damaged data: VM "+uuidOf(1)+", keys/k")
	tells(a, fmt.Sprintf("; and %d more like it", len(kinds)-1))
	for _, args := range [][]string{{"fleet", "claim"}, {"vm", "get"}} {
		if out, err := a.meta9(append(args, uuidOf(1), "--timeout=5s")...); err == nil {
			t.Errorf("%s of a damaged VM: %s", args, out)
		}
	}
	if out, _ := a.meta9("vm", "get", uuidOf(1)); !strings.Contains(out, "VM "+uuidOf(1)+" is this host's, and not served yet") {
		t.Errorf("a VM that this host owns and does not serve: %s", out)
	}
	code, log := a.stop()
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	lines := strings.Split(log, "\n")
	for n, kind := range kinds {
		said := ""
		for _, line := range lines {
			if strings.Contains(line, uuidOf(n+1)) && strings.Contains(line, "damaged") {
				said += line + "\n"
			}
		}
		if said == "" || !strings.Contains(said, kind.named) {
			t.Errorf("%s: the log says %q, want %q in it", kind.name, said, kind.named)
		}
	}
	if !strings.Contains(log, "the high-water marks") {
		t.Error("the host's own record is not named")
	}

	// Another host that claims them has the whole ones.
	b := begin(t, dir, "b", settings)
	b.until("fleet_etcd ok", "cat", "/ctl")
	b.must(append([]string{"fleet", "claim"}, whole...)...)
	if out, err := b.meta9("fleet", "claim", uuidOf(1), "--timeout=4s"); err == nil {
		t.Errorf("a damaged VM is claimed: %s", out)
	}
	serves(b, whole...)
	tells(b, "VM "+uuidOf(1)+" is not served, a record of it in etcd is damaged")
	// It has claimed that one; a, which does not live, has the others.
	others := fmt.Sprintf("%d of a, which does not live", len(kinds)-1)
	for _, args := range [][]string{{"fleet", "status"}, {"doctor"}} {
		if out, _ := b.meta9(args...); !strings.Contains(out, others) {
			t.Errorf("meta9 %s: no %q in\n%s", args, others, out)
		}
	}
	if out := b.must("fleet", "where"); strings.Count(out, "\n") != len(kinds)-1 || !strings.HasPrefix(out, uuidOf(2)+" a\n") {
		t.Errorf("fleet where:\n%s", out)
	}
	c.put(prefix+"ids", []byte("many"))
	b.stop()
	b = begin(t, dir, "b", settings)
	b.until("fleet_etcd ok", "cat", "/ctl")
	if out, err := b.meta9("put", "/vms/"+whole[0]+"/keys/another", "x"); err == nil || !strings.Contains(out, prefix+`ids holds "many"`) {
		t.Errorf("a new file without IDs: %v, %s", err, out)
	}
	b.must("put", "/vms/"+whole[0]+"/keys/k", "the file is there")
}
