//go:build soak

package soak_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"meta9/tests/soak"
)

// each is how long a target is fuzzed before its next one has its turn.
const each = 5 * time.Minute

var execs = regexp.MustCompile(`execs: (\d+)`)

// TestFuzz fuzzes one target after the other, over all parts.
func TestFuzz(t *testing.T) {
	p := soak.Begin(t)
	list := targets(t)
	i, begun := 0, p.At == ""
	for n, name := range list {
		if name == p.At {
			i, begun = n, true
		}
	}
	if !begun {
		t.Logf("%s is no more: from the beginning", p.At)
	}
	tried := 0
	for n := 0; n == 0 || p.More(); n++ {
		pkg, target, _ := strings.Cut(list[i], " ")
		cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", min(each, max(p.Left(), time.Second)).Round(time.Second).String(), pkg)
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		// The toolchain may give up on its last input when the time is over.
		late := bytes.Contains(out, []byte("context deadline exceeded")) && !bytes.Contains(out, []byte("Failing input written"))
		if err != nil && !late {
			t.Fatalf("%s: %v\n%s", list[i], err, out)
		}
		if all := execs.FindAllSubmatch(out, -1); all != nil {
			count := 0
			fmt.Sscan(string(all[len(all)-1][1]), &count)
			tried += count
			t.Logf("%s: %d tries", list[i], count)
		}
		i = (i + 1) % len(list)
		p.Stopped(list[i])
		p.Figure("targets", n+1)
		p.Figure("tries", tried)
	}
}

// targets are all fuzz targets, "PACKAGE NAME", in the order of go list.
func targets(t *testing.T) (list []string) {
	cmd := exec.Command("go", "test", "-list", "^Fuzz", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if name := s.Text(); strings.HasPrefix(name, "Fuzz") {
			names = append(names, name)
		} else if f := strings.Fields(name); len(f) > 1 { // the package comes after its targets
			for _, n := range names {
				list = append(list, f[1]+" "+n)
			}
			names = nil
		}
	}
	if len(list) == 0 {
		t.Fatal("no fuzz targets")
	}
	return list
}
