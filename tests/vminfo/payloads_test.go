package vminfo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"meta9/tests/testenv"
)

// payloads is fs/vm/payload/testdata/payloads.json, which its README explains.
type payloads struct {
	Create, Update, Refuse []payloadCase
	Commandline            []struct {
		Args []string
		Exit int
		Get  map[string]any
	}
}

type payloadCase struct {
	Name            string
	Payload, Update json.RawMessage
	Get, Sdc        map[string]any
	Names           string
}

func readPayloads(t *testing.T) payloads {
	t.Helper()
	root := testenv.Root(t)
	b, err := os.ReadFile(filepath.Join(root, "fs/vm/payload/testdata/payloads.json"))
	if err != nil {
		t.Fatal(err)
	}
	var p payloads
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Create) < 6 || len(p.Update) < 4 || len(p.Refuse) < 2 || len(p.Commandline) < 7 {
		t.Fatal("cases are missing")
	}
	return p
}

// TestPayloads: what vmadm makes of payloads, `meta9 vm` makes.
func TestPayloads(t *testing.T) {
	p := readPayloads(t)
	s := start(t, "--data", "")
	for i, c := range append(p.Create, p.Update...) {
		t.Run(strings.Trim(c.Name, "."), func(t *testing.T) {
			s := &server{s.Server, t, s.url}
			text := c.Payload
			if string(text) == `"update.0"` {
				text = p.Update[0].Payload
			}
			uuid := s.created(text)
			if i >= len(p.Create) {
				if out, code := s.meta9("vm", "update", uuid, "-f", s.payload(c.Update)); code != 0 {
					t.Fatal(out)
				}
			}
			s.has(uuid, c.Get)
			for path, want := range c.Sdc {
				out, code := s.meta9("cat", "vms/"+uuid+"/sdc/"+path)
				var got any = out
				if _, text := want.(string); !text {
					if err := json.Unmarshal([]byte(out), &got); err != nil {
						t.Errorf("sdc:%s: %v", path, err)
					}
				}
				if code != 0 || !matches(got, want) {
					t.Errorf("sdc:%s is %v, want %v", path, got, want)
				}
			}
			if out, code := s.meta9("vm", "delete", uuid); code != 0 {
				t.Error(out)
			}
		})
	}
	for _, c := range p.Refuse {
		if out, code := s.meta9("vm", "create", "-f", s.payload(c.Payload)); code != 1 || !strings.Contains(out, c.Names) {
			t.Errorf("%s: %d, %s", c.Name, code, out)
		}
	}
}

// TestCommandLines: what `vm update` makes of PROPERTY=VALUE.
func TestCommandLines(t *testing.T) {
	p := readPayloads(t)
	s := start(t, "--data", "")
	uuid := s.created([]byte(`{"alias":"c","brand":"kvm","quota":10,"nics":[{"ip":"dhcp"}]}`))
	before, _ := s.meta9("vm", "get", uuid)
	for _, c := range p.Commandline {
		out, code := s.meta9(append([]string{"vm", "update", uuid}, c.Args...)...)
		if code != c.Exit {
			t.Errorf("%q: %d, want %d: %s", c.Args, code, c.Exit, out)
		}
		if after, _ := s.meta9("vm", "get", uuid); c.Exit != 0 && after != before {
			t.Errorf("%q: was refused and has changed the VM to %s", c.Args, after)
		}
		s.has(uuid, c.Get)
	}
}

// payload is a file of that content.
func (s *server) payload(text []byte) string {
	s.Helper()
	name := filepath.Join(s.TempDir(), "payload.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		s.Fatal(err)
	}
	return name
}

var createdVM = regexp.MustCompile(`^Successfully created VM (\S+)\n$`)

// created makes a VM of a payload without a uuid.
func (s *server) created(text []byte) (uuid string) {
	s.Helper()
	out, code := s.meta9("vm", "create", "-f", s.payload(text))
	m := createdVM.FindStringSubmatch(out)
	if code != 0 || m == nil {
		s.Fatalf("%d: %s", code, out)
	}
	return m[1]
}

// has checks values of the VM by their paths.
func (s *server) has(uuid string, want map[string]any) {
	s.Helper()
	out, code := s.meta9("vm", "get", uuid)
	var vm any
	if err := json.Unmarshal([]byte(out), &vm); err != nil || code != 0 {
		s.Fatalf("%d: %s", code, out)
	}
	for path, w := range want {
		if got := at(vm, path); !matches(got, w) {
			s.Errorf("%s is %v, want %v", path, got, w)
		}
	}
}

// at is the value at a path such as nics.0.ip; nil: there is none.
func at(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

// matches says whether a value is as wanted: equal, or as {match}, {absent} or
// {absent_or} say.
func matches(got, want any) bool {
	if w, ok := want.(map[string]any); ok && len(w) == 1 {
		if re, ok := w["match"].(string); ok {
			return got != nil && regexp.MustCompile(re).MatchString(fmt.Sprint(got))
		}
		if absent, ok := w["absent"].(bool); ok {
			return absent == (got == nil)
		}
		if or, ok := w["absent_or"]; ok {
			return got == nil || reflect.DeepEqual(got, or)
		}
	}
	return reflect.DeepEqual(got, want)
}
