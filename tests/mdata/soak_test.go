//go:build soak

package mdata

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"meta9/tests/apt"
	"meta9/tests/daemon"
	"meta9/tests/soak"
	"meta9/tests/testenv"
)

// suites are those of Debian whose cloud-init is tried, beside this machine's own.
var suites = []string{"trixie", "sid"}

// TestSoakCloudInit is TestNetworks with the cloud-init of other suites. It runs from a
// folder into which its package and all that that needs are unpacked, down to the C
// library, and touches nothing of the machine.
func TestSoakCloudInit(t *testing.T) {
	p := soak.Begin(t)
	h := host{testenv.Start(t, daemon.Options{Memory: true}), t}
	vms := append(recordedPayloads(t), morePayloads...)
	for _, suite := range suites {
		root := t.TempDir()
		version, python := unpacked(t, suite, root)
		if python == nil {
			p.Figure(suite, "no longer served")
			continue
		}
		dir := t.TempDir()
		checkNetworks(t, vms, networks(t, python("testdata/networks.py"), h.seeds(dir, vms)))
		p.Figure(suite, version)
		for i := range vms {
			if err := h.Ctl("delete " + testenv.UUID(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// unpacked unpacks a suite's cloud-init into root, and gives what runs a script on it; nil
// where the suite is not served any more.
func unpacked(t *testing.T, suite, root string) (version string, python func(script string) *exec.Cmd) {
	t.Helper()
	s, err := apt.Open(filepath.Join(root, "apt"), suite)
	if errors.Is(err, apt.ErrGone) {
		return "", nil
	}
	if err != nil {
		t.Fatal(err)
	}
	archives, err := s.FetchAll("cloud-init", "python3-serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, archive := range archives {
		if out, err := exec.Command("dpkg-deb", "-x", archive, root).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", archive, err, out)
		}
	}
	one := func(pattern string) string {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s has no %s: %v", suite, pattern, err)
		}
		return found[0]
	}
	loader, interpreter := one("usr/lib*/ld-linux-x86-64.so.2"), one("usr/bin/python3.[0-9]*")
	python = func(script string) *exec.Cmd {
		cmd := exec.CommandContext(within(t), loader, "--library-path", filepath.Join(root, "usr/lib/x86_64-linux-gnu"), interpreter, script)
		cmd.Env = append(os.Environ(), "PYTHONHOME="+filepath.Join(root, "usr"), "PYTHONPATH="+filepath.Join(root, "usr/lib/python3/dist-packages"),
			"PYTHONDONTWRITEBYTECODE=1")
		return cmd
	}
	cmd := python("-c")
	cmd.Args = append(cmd.Args, "import cloudinit.version; print(cloudinit.version.version_string())")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", suite, err, out)
	}
	version = string(out[:len(out)-1])
	t.Logf("%s: cloud-init %s", suite, version)
	return version, python
}
