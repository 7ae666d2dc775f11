package server_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
	"meta9/mdbridge/mdata/server"
)

const payload = `{"uuid":"` + uuid + `","alias":"web0","zoneid":null,"tags":{"a":"b"},"nics":[{"mac":"aa:bb:cc:dd:ee:01","ips":["dhcp"]}],
	"internal_metadata_namespaces":["ns"],
	"customer_metadata":{"color":"blue","ns:x":"shadowed","a_pw":"shadowed","a/b%":"escaped"},
	"internal_metadata":{"ns:x":"internal","a_pw":"secret","hidden":"h","operator-script":"op"}}`

// What a guest asks and what it is told, beyond what was recorded.
func TestAnswers(t *testing.T) {
	w := newWorld(t, store.Config{Limits: vm.Limits{Value: 100, Keys: 11, Bytes: 700}}, server.Limits{})
	w.create(payload)
	c := w.client()
	long := strings.Repeat("k", 256)
	for _, tt := range []struct{ code, payload, want string }{
		{"GET", "color", "SUCCESS blue"},
		{"GET", "a/b%", "SUCCESS escaped"},
		{"GET", "a%2Fb%25", "NOTFOUND"},
		{"GET", " \n\u00a0color\ufeff ", "SUCCESS blue"},
		{"GET", "ns:x", "SUCCESS internal"},
		{"GET", "a_pw", "SUCCESS secret"},
		{"GET", "hidden", "NOTFOUND"},
		{"GET", long, "NOTFOUND"},
		{"GET", "..", "NOTFOUND"},
		{"GET", "a\nb", "NOTFOUND"},
		{"GET", "\xff", "NOTFOUND"},
		{"GET", "sdc:", "NOTFOUND"},
		{"GET", "sdc:zoneid", "NOTFOUND"}, // crashes the real host
		{"GET", "sdc:tags", "FAILURE"},
		{"GET", "sdc:tags.a", "SUCCESS b"},
		{"GET", "sdc:nics", `SUCCESS [{"mac":"aa:bb:cc:dd:ee:01","ips":["dhcp"]}]`},
		{"GET", "sdc:internal_metadata.hidden", "NOTFOUND"},
		{"GET", "sdc:operator-script", "SUCCESS op"},
		{"PUT", b64("sdc:x\n") + " " + b64("v"), `FAILURE Cannot update the "sdc" Namespace.`},
		{"PUT", b64("ns:new") + " " + b64("v"), `FAILURE Cannot update the "ns" Namespace.`},
		{"PUT", b64("a\x00b") + " " + b64("v"), "FAILURE Invalid PUT Request"},
		{"PUT", b64("a") + "  " + b64("v"), "FAILURE Invalid PUT Request"},
		{"PUT", b64("wrapped") + " " + b64("wrap") + "\n" + b64("ped") + "\n", "SUCCESS OK"},
		{"GET", "wrapped", "SUCCESS wrap"}, // padding ends it, as on the real host
		{"PUT", b64("raw") + " aGk", "SUCCESS OK"},
		{"GET", "raw", "SUCCESS hi"},
		{"PUT", b64("raw") + " ", "SUCCESS OK"},
		{"GET", "raw", "SUCCESS"},
		{"PUT", b64(long) + " " + b64("v"), "FAILURE a file name is at most 255 bytes, this is 256"},
		{"PUT", b64("big") + " " + b64(strings.Repeat("x", 101)), "FAILURE 100 bytes is the limit of a value"},
		{"PUT", b64("last") + " " + b64("v"), "SUCCESS OK"},
		{"PUT", b64("one more") + " " + b64("v"), "FAILURE 11 keys is this VM's limit"},
		{"DELETE", "last", "SUCCESS OK"},
		{"DELETE", "last", "SUCCESS OK"},
		{"DELETE", long, "SUCCESS OK"},
		{"DELETE", "ns:x", `FAILURE Cannot update the "ns" Namespace.`},
		{"DELETE", "operator-script", `FAILURE Cannot update "operator-script".`},
		{"DELETE", " ", "FAILURE Invalid DELETE Request"},
		{"DELETE", "a_pw", "SUCCESS OK"},
		{"GET", "a_pw", "NOTFOUND"},
		{"KEYS", "", "SUCCESS color\na/b%\nwrapped\nraw\nns:x"},
		{"KEYS", "ignored", "SUCCESS color\na/b%\nwrapped\nraw\nns:x"},
		{"FROB", "", "FAILURE Unknown command FROB"},
	} {
		if got := c.ask(tt.code, tt.payload); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.code, tt.payload, got, tt.want)
		}
	}
	if s := w.Stats(); s.Damaged+s.Dropped+s.Refused != 0 || s.Conns != 1 || s.Requests < 40 {
		t.Errorf("%+v", s)
	}
}

// What a VM may hold in all is a limit that the guest is told.
func TestVMFull(t *testing.T) {
	w := newWorld(t, store.Config{Limits: vm.Limits{Value: 100, Keys: 9, Bytes: 150}}, server.Limits{})
	w.create(`{"uuid":"` + uuid + `","customer_metadata":{"a":"1"}}`)
	c := w.client()
	if got := c.put("b", strings.Repeat("x", 100)); got != "SUCCESS OK" {
		t.Error(got)
	}
	if got := c.put("c", strings.Repeat("x", 100)); !strings.HasPrefix(got, "FAILURE ") || !strings.Contains(got, "150") {
		t.Error(got)
	}
	if got := c.ask("GET", "c"); got != "NOTFOUND" {
		t.Error(got)
	}
}

// A VM that was made without customer metadata: the real host says so, and
// crashes on KEYS.
func TestNoCustomerMetadata(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(`{"uuid":"` + uuid + `","internal_metadata":{"root_pw":"s"}}`)
	c := w.client()
	for _, tt := range []struct{ code, payload, want string }{
		{"GET", "color", "FAILURE Zone did not contain customer_metadata"},
		{"GET", "root_pw", "SUCCESS s"},
		{"GET", "x_pw", "NOTFOUND"},
		{"GET", "sdc:uuid", "SUCCESS " + uuid},
		{"KEYS", "", "SUCCESS root_pw"},
		{"DELETE", "color", "SUCCESS OK"},
		{"DELETE", "root_pw", "SUCCESS OK"},
		{"KEYS", "", "SUCCESS"},
		{"PUT", b64("color") + " " + b64("blue"), "SUCCESS OK"},
		{"GET", "color", "SUCCESS blue"},
		{"DELETE", "color", "SUCCESS OK"},
		{"GET", "color", "NOTFOUND"},
	} {
		if got := c.ask(tt.code, tt.payload); got != tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.code, tt.payload, got, tt.want)
		}
	}
	c.send("GET sdc:nope\nKEYS\nKEYS now\n")
	for _, want := range []string{"NOTFOUND", "SUCCESS", "", ".", "SUCCESS", "", "."} {
		if got := c.line(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Requests may come in one write; each gets its reply, in order.
func TestPipelined(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	c := w.client()
	const n = 500
	var b, want strings.Builder
	for range n {
		b.WriteString("GET color\nV2 broken\n" + putRequest("n", "v") + "FROB\r\n" + request("GET", "n"))
		want.WriteString("SUCCESS\nblue\n.\n" + request("SUCCESS", "OK") + "FAILURE\n" + request("SUCCESS", "v"))
	}
	go c.Write([]byte(b.String()))
	for line := range strings.Lines(want.String()) {
		if got := c.line() + "\n"; got != line {
			t.Fatalf("got %q, want %q", got, line)
		}
	}
	if s := w.Stats(); s.Damaged != n || s.Requests != 4*n {
		t.Errorf("%+v", s)
	}
}

// A reply to PUT means that others can see it: its event, its new version, its
// value, under the VM's name.
func TestPutIsThere(t *testing.T) {
	w := newWorld(t, store.Config{}, server.Limits{})
	w.create(payload)
	c := w.client()
	root, err := w.tree.View(fs.Principal{VM: uuid}).Attach("", "")
	if err != nil {
		t.Fatal(err)
	}
	stat := func() (st fs.Stat) {
		r, err := macro.Find(root, []string{"keys", "color"})
		if err == nil {
			err = r.Stat(&st)
		}
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	before, ring := stat(), w.st.Cell(uuid).Ring()
	rev := ring.Last()
	woken := make(chan struct{})
	if _, ready := ring.Wait(rev, func() { close(woken) }); ready {
		t.Fatal("there was an event already")
	}
	if got := c.put("color", "red"); got != "SUCCESS OK" {
		t.Fatal(got)
	}
	after := stat()
	if after.QID.Version == before.QID.Version || after.QID.Path != before.QID.Path || after.Length != 3 || after.Muid != "vm:"+uuid {
		t.Errorf("%+v became %+v", before, after)
	}
	<-woken
	events, _ := ring.After(rev, 10, nil)
	var got []string
	for _, e := range events {
		got = append(got, e.Key+" by "+e.By)
	}
	if diff := cmp.Diff([]string{"color by vm:" + uuid}, got); diff != "" {
		t.Error(diff)
	}
	w.do(store.Intent{Kind: store.Put, Name: "color", Data: "green"})
	if got := c.ask("GET", "color"); got != "SUCCESS green" {
		t.Error(got)
	}
}
