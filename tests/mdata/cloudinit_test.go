package mdata

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/testenv"
)

// python runs a script of testdata on Debian's cloud-init and reads what it saw.
func python(t *testing.T, script string, args ...string) map[string]any {
	t.Helper()
	testenv.NeedDebian(t, "cloud-init", "cloud-init")
	testenv.NeedDebian(t, "pyserial-ports", "python3-serial")
	var stderr bytes.Buffer
	// Debian's own interpreter: cloud-init is not in another's path.
	cmd := exec.CommandContext(within(t), "/usr/bin/python3", append([]string{filepath.Join("testdata", script)}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", script, err, out, stderr.String())
	}
	var seen map[string]any
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return seen
}

// onSocket and onSerial are the ways by which a guest reaches its host.
func onSocket(t *testing.T) (path string) { return cloudHost(t, "").sock() }

func onSerial(t *testing.T) (path string) {
	d := newChardev(t)
	cloudHost(t, chardevIs(d.path))
	d.make()
	return d.tty
}

// cloudHost has what cloud-init asks for beside what was recorded.
func cloudHost(t *testing.T, more string) host {
	h := newHost(t, more)
	for key, value := range map[string]string{
		"cloud-init:user-data": "#cloud-config\nhostname: by-user-data\n",
		"user-script":          "#!/bin/sh\n.hidden\necho done\n",
	} {
		if err := h.client().Put(within(t), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestCloudInitClients(t *testing.T) {
	for kind, reach := range map[string]func(*testing.T) string{"socket": onSocket, "serial": onSerial} {
		t.Run(kind, func(t *testing.T) {
			seen := python(t, "client.py", kind, reach(t))
			checkList(t, seen["list"])
			delete(seen, "list")
			nics, _ := json.Marshal(seen["nics"])
			if !strings.Contains(string(nics), `"mac":"aa:bb:cc:dd:ee:01"`) {
				t.Errorf("nics: %s", nics)
			}
			delete(seen, "nics")
			want := map[string]any{
				"exists": true, "hostname": "cust-host", "keys": "ssh-rsa AAAA test@x", "uuid": recorded,
				"absent": "the default", "empty": "the default", "object": "the default", "unicode": "héllo ☃",
				"put": "OK", "got": "line one\nline two\n", "refused": nil, "deleted": "OK", "gone": nil,
				"apart": []any{"cust-host", "web0"},
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func checkList(t *testing.T, list any) {
	t.Helper()
	names, _ := list.([]any)
	for _, name := range []any{"root_authorized_keys", "hostname", "user-data", "root_pw", "foo:bar", "cloud-init:user-data"} {
		if !slices.Contains(names, name) {
			t.Errorf("no %v in %v", name, names)
		}
	}
	for _, name := range []any{"secret", "operator-script", "x_pw", "foo:shadow"} {
		if slices.Contains(names, name) {
			t.Errorf("%v is in %v", name, names)
		}
	}
}

// The interface that cloud-init is to set up, by whichever source.
var wantInterface = map[string]any{
	"name": "net0", "mac": "aa:bb:cc:dd:ee:01", "addresses": []any{"192.168.1.10/24"},
	"gateways": []any{"192.168.1.1"}, "dns": []any{"1.1.1.1", "8.8.8.8"},
}

func TestCloudInitSmartOS(t *testing.T) {
	for kind, reach := range map[string]func(*testing.T) string{"lx-brand": onSocket, "kvm": onSerial} {
		t.Run(kind, func(t *testing.T) {
			seen := python(t, "datasource.py", "smartos", kind, reach(t), t.TempDir())
			vendor, _ := seen["vendor-data"].(string)
			if !strings.HasPrefix(vendor, "#cloud-boothook") {
				t.Errorf("vendor data: %q", vendor)
			}
			delete(seen, "vendor-data")
			delete(seen, "network")
			want := map[string]any{
				"found": true, "instance-id": recorded, "hostname": "cust-host",
				"public-keys": []any{"ssh-rsa AAAA test@x"}, "user-data": "#cloud-config\nhostname: by-user-data\n",
				"user-script": "#!/bin/sh\n.hidden\necho done\n", "operator-script": "#!/bin/sh\necho op\n",
				"legacy": "hello user data", "interfaces": []any{wantInterface},
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCloudInitImage: `meta9 nocloud-image` writes a disk that libblkid, by which cloud-init
// looks for its seed, knows as a file system of the name cidata; and what another program
// reads from it is a seed that cloud-init takes.
func TestCloudInitImage(t *testing.T) {
	testenv.NeedDebian(t, "bsdtar", "libarchive-tools")
	h := cloudHost(t, "")
	own := t.TempDir()
	image, seed := filepath.Join(own, "seed.iso"), filepath.Join(own, "seed", "nocloud")
	if err := os.MkdirAll(seed, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if out := meta9(t, "--addr", "unix:"+h.Admin(), "nocloud-image", recorded, image); out.code != 0 {
			t.Fatalf("%+v", out)
		}
	}
	write()
	if err := h.client().Put(within(t), "cloud-init:user-data", []byte("#cloud-config\nhostname: newer\n")); err != nil {
		t.Fatal(err)
	}
	write() // it replaces the image
	if info, err := os.Stat(image); err != nil || info.Mode() != 0o600 {
		t.Errorf("the image: %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(own, ".meta9-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for field, want := range map[string]string{"LABEL": "cidata", "TYPE": "iso9660"} {
		out, err := exec.Command("blkid", "-p", "-o", "value", "-s", field, image).Output()
		if got := strings.TrimSpace(string(out)); got != want || err != nil {
			t.Errorf("blkid: %s is %q, %v", field, got, err)
		}
	}
	if out, err := exec.Command("bsdtar", "-xf", image, "-C", seed).CombinedOutput(); err != nil {
		t.Fatalf("bsdtar: %v\n%s", err, out)
	}
	seen := python(t, "datasource.py", "nocloud", "", own)
	delete(seen, "network")
	want := map[string]any{
		"found": true, "instance-id": recorded, "hostname": "cust-host",
		"public-keys": []any{"ssh-rsa AAAA test@x"}, "user-data": "#cloud-config\nhostname: newer\n",
		"vendor-data": "#cloud-config\n{}\n", "interfaces": []any{wantInterface},
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range []struct{ vm, file, want string }{
		{"nobody", image, "there is no VM nobody"},
		{recorded, filepath.Join(own, "no", "folder"), "no such file"},
	} {
		if out := meta9(t, "--addr", "unix:"+h.Admin(), "nocloud-image", c.vm, c.file); out.code != 1 || !strings.Contains(out.stderr, c.want) {
			t.Errorf("%+v, want exit code 1 and %q", out, c.want)
		}
	}
}

// The files of nocloud/, copied, are a seed that cloud-init takes, named by
// seedfrom or in its own folder. This cloud-init reads network-config from its own
// folder only.
func TestCloudInitNoCloud(t *testing.T) {
	h := cloudHost(t, "")
	own := t.TempDir()
	seed := filepath.Join(own, "seed", "nocloud") + "/"
	if err := os.MkdirAll(seed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"meta-data", "user-data", "vendor-data", "network-config"} {
		out := meta9(t, "--addr", "unix:"+h.VM(recorded), "cat", "nocloud/"+name)
		if out.code != 0 {
			t.Fatalf("%+v", out)
		}
		if err := os.WriteFile(seed+name, []byte(out.stdout), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]any{
		"found": true, "instance-id": recorded, "hostname": "cust-host",
		"public-keys": []any{"ssh-rsa AAAA test@x"}, "user-data": "#cloud-config\nhostname: by-user-data\n",
		"vendor-data": "#cloud-config\n{}\n",
	}
	for _, args := range [][]string{{seed, t.TempDir()}, {"", own}} {
		seen := python(t, "datasource.py", append([]string{"nocloud"}, args...)...)
		delete(seen, "network")
		if args[0] == "" {
			want["interfaces"] = []any{wantInterface}
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("seed %q (-want +got):\n%s", args[0], diff)
		}
	}
}
