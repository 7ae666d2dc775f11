package vminfo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/testenv"
)

// Two VMs that are there, and what the first has alone.
var (
	one, two = testenv.UUID(1), testenv.UUID(2)
	newID    = fmt.Sprintf(`{"uuid":%q,`, testenv.UUID(3))
)

const mac, otherMAC = "02:08:20:aa:bb:01", "02:08:20:aa:bb:02"

// refusal is a payload with the field that is wrong in it and the rule that says so.
type refusal struct{ payload, field, rule string }

var badCreates = []refusal{
	{`[]`, "a VM", "is a JSON object"},
	{`{"uuid":7}`, "uuid", "must be a UUID"},
	{`{"uuid":"01b2c898-945f-11e1-a523"}`, "uuid", "must be a UUID"},
	{`{"uuid":"` + one + `"}`, "uuid", "already"},
	{newID + `"alias":"two"}`, "alias", "already"},
	{newID + `"alias":3}`, "alias", "must be a string"},
	{newID + `"vsock_cid":7}`, "vsock_cid", "already"},
	{newID + `"vsock_cid":2}`, "vsock_cid", "from 3"},
	{newID + `"image_uuid":"me"}`, "image_uuid", "must be a UUID"},
	{newID + `"ram":"much"}`, "ram", "must be an integer"},
	{newID + `"autoboot":"yes"}`, "autoboot", "true or false"},
	{newID + `"nics":{}}`, "nics", "an array of objects"},
	{newID + `"nics":[{"mac":"02:08:20:aa:bb"}]}`, "nics.0.mac", "must be a MAC"},
	{newID + `"nics":[{"mac":"` + mac + `"},{"mac":"` + strings.ToUpper(mac) + `"}]}`, "nics.1.mac", "twice"},
	{newID + `"nics":[{"ip":"10.0.0.5","netmask":"255.0.255.0"}]}`, "nics.0.netmask", "must be a netmask"},
	{newID + `"routes":{"10.0.0.0/8":"nics"}}`, "routes.10.0.0.0/8", "nics[N]"},
	{newID + `"9p_mode":640}`, "9p_mode", "octal"},
	{newID + `"x":[` + strings.Repeat("0,", 16<<10) + `0]}`, "properties", "16384 values are the limit"},
	{newID + `"x":"` + strings.Repeat("x", 256<<10) + `"}`, "properties", "262144 bytes are the limit"},
	{newID + `"tags":{"a":[]}}`, "tags", "strings, numbers and booleans"},
	{newID + `"customer_metadata":{"k":{}}}`, "customer_metadata.k", "a string, a number or a boolean"},
	{newID + `"customer_metadata":{"k":null}}`, "customer_metadata.k", "a string, a number or a boolean"},
	{newID + `"internal_metadata":{"k":[1]}}`, "internal_metadata.k", "a string, a number or a boolean"},
	{newID + `"internal_metadata":"x"}`, "internal_metadata", "an object"},
	{newID + `"set_tags":{"a":1}}`, "set_tags", "update"},
}

var badUpdates = []refusal{
	{`null`, "a VM", "is a JSON object"},
	{`{"uuid":"` + two + `"}`, "uuid", "cannot change"},
	{`{"quota":1,"alias":"two"}`, "alias", "already"},
	{`{"quota":1,"ram":[]}`, "ram", "must be an integer"},
	{`{"nics":[{"mac":"x"}]}`, "nics.0.mac", "must be a MAC"},
	{`{"quota":1,"add_nics":[{"mac":"` + mac + `"}]}`, "add_nics", "already"},
	{`{"add_nics":[{"ip":"10.0.0.1"}]}`, "add_nics.0.netmask", "missing"},
	{`{"add_nics":[{"mac":"` + otherMAC + `"}],"update_nics":[{"mac":"02:08:20:aa:bb:03"}]}`, "update_nics", "no mac"},
	{`{"remove_nics":["` + otherMAC + `"]}`, "remove_nics", "no mac"},
	{`{"remove_disks":[7]}`, "remove_disks", "an array of strings"},
	{`{"add_disks":[{"path":"/e","size":"big"}]}`, "add_disks.0.size", "must be an integer"},
	{`{"set_tags":[]}`, "set_tags", "an object"},
	{`{"set_tags":{"a":{}}}`, "tags", "strings, numbers and booleans"},
	{`{"quota":1,"set_customer_metadata":{"a":"b","k":null}}`, "set_customer_metadata.k", "a string, a number or a boolean"},
	{`{"remove_customer_metadata":["k"],"set_internal_metadata":{"k":{}}}`, "set_internal_metadata.k", "a string, a number or a boolean"},
	{`{"remove_customer_metadata":7}`, "remove_customer_metadata", "an array of strings"},
}

// TestRefusedPayloads: what is wrong with a payload is said by its field and its rule,
// by the ctl and by the command line alike, and changes nothing that anybody sees.
func TestRefusedPayloads(t *testing.T) {
	s := start(t, "--data", "")
	s.verb(`create {"uuid":%q,"alias":"one","vsock_cid":7,"nics":[{"mac":%q}],"disks":[{"path":"/d"}],"customer_metadata":{"k":"v"}}`, one, mac)
	s.verb(`create {"uuid":%q,"alias":"two","ram":512}`, two)
	f := follow(s.events("?since=0"))
	f.until(func() bool { return true })
	before, tree := s.get("/vms"), s.file("vms", one, "vm.json")
	for _, r := range badCreates {
		s.refuses(r, "create ", "vm", "create")
	}
	for _, r := range badUpdates {
		s.refuses(r, "update "+one+" ", "vm", "update", one)
	}
	if d := cmp.Diff(before, s.get("/vms")); d != "" {
		t.Errorf("/vms has changed:\n%s", d)
	}
	if d := cmp.Diff(tree, s.file("vms", one, "vm.json")); d != "" {
		t.Errorf("vm.json has changed:\n%s", d)
	}
	s.verb(`update %s {"quota":1}`, two)
	if ev := f.next(); ev.Type != "modify" || ev.UUID != two {
		t.Errorf("the stream tells of a refused change: %+v", ev)
	}
}

// refuses runs a payload by the ctl and by the command line; both must refuse it by its
// field and its rule.
func (s *server) refuses(r refusal, verb string, command ...string) {
	s.Helper()
	file := filepath.Join(s.Dir, "payload.json")
	if err := os.WriteFile(file, []byte(r.payload), 0o600); err != nil {
		s.Fatal(err)
	}
	out, code := s.meta9(append(command, "-f", file)...)
	if code != 1 || !strings.Contains(out, r.field) || !strings.Contains(out, r.rule) {
		s.Errorf("%v %s: exit %d: %s", command, r.payload, code, out)
	}
	err := s.Ctl(verb + r.payload)
	if err == nil || !strings.Contains(err.Error(), r.field) || !strings.Contains(err.Error(), r.rule) {
		s.Errorf("%s%s: %v", verb, r.payload, err)
	}
}

// file is the admin's view of a file.
func (s *server) file(names ...string) string {
	s.Helper()
	b, err := s.Conn("").Sread(0, names...)
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}
