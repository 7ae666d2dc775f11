package testenv

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// NeedDebian makes sure that a command is there, from the Debian packages
// named. As root it installs them and says so; else the test fails and tells
// how, since a test that was skipped shows nothing.
func NeedDebian(t testing.TB, command string, packages ...string) {
	t.Helper()
	if _, err := exec.LookPath(command); err == nil {
		return
	}
	how := "apt-get install -y --no-install-recommends " + strings.Join(packages, " ")
	if os.Geteuid() != 0 {
		t.Fatalf("this test needs %s; as root: %s", command, how)
	}
	t.Logf("installing for this test: %s", how)
	install(t, "apt-get", append([]string{"install", "-y", "--no-install-recommends"}, packages...)...)
	if _, err := exec.LookPath(command); err != nil {
		t.Fatalf("installed %s, but %v", packages, err)
	}
}

var aptUpdate sync.Once

func install(t testing.TB, name string, args ...string) {
	t.Helper()
	aptUpdate.Do(func() { apt(t, name, "update") })
	apt(t, name, args...)
}

func apt(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
