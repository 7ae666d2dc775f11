package testenv

import (
	"fmt"
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
	if err := Debian(t.Logf, command, packages...); err != nil {
		t.Fatal(err)
	}
}

var apt sync.Mutex // dpkg's own lock does not wait

// aptUpdated: the machine's lists of packages are new. apt guards it.
var aptUpdated bool

// Debian is NeedDebian for programs that are no tests; logf hears of an
// installation.
func Debian(logf func(format string, args ...any), command string, packages ...string) error {
	apt.Lock()
	defer apt.Unlock()
	if _, err := exec.LookPath(command); err == nil {
		return nil
	}
	how := "apt-get install -y --no-install-recommends " + strings.Join(packages, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("this needs %s; as root: %s", command, how)
	}
	logf("installing: %s", how)
	if !aptUpdated {
		if err := aptGet("update"); err != nil {
			return err
		}
		aptUpdated = true
	}
	if err := aptGet(append([]string{"install", "-y", "--no-install-recommends"}, packages...)...); err != nil {
		return err
	}
	if _, err := exec.LookPath(command); err != nil {
		return fmt.Errorf("installed %s, but %w", packages, err)
	}
	return nil
}

func aptGet(args ...string) error {
	cmd := exec.Command("apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
