// Package packaging holds the Debian packages that make deb makes: what is in them, for
// each architecture, and what becomes of a machine on which they are installed, upgraded,
// removed and purged, without systemd and with it.
//
// The machine is a Debian root that debootstrap makes for the test, in a folder and in
// mounts of the test's own; for systemd it is booted in QEMU.
package packaging

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"meta9/tests/testenv"
)

// inside says that this process has mounts of its own.
const inside = "META9_TEST_PACKAGE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		testenv.Main(m)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// The two versions that the test makes of this tree, as meta9 and as Debian says them.
const (
	before, beforeDeb = "v0.0.1-rc.1", "0.0.1~rc.1-1"
	after, afterDeb   = "v0.0.1", "0.0.1-1"
)

var (
	packages      = []string{"meta9", "meta9-guest", "meta9d"}
	architectures = []string{"amd64", "arm64"}
)

// build makes packages of a version into dir.
func build(t *testing.T, dir, version string, architectures ...string) {
	t.Helper()
	cmd := exec.Command("make", "--no-print-directory", "-C", root(t), "deb",
		"VERSION="+version, "DEBS="+dir, "DEBARCHS="+strings.Join(architectures, " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb VERSION=%s: %v\n%s", version, err, out)
	}
}

// deb is the path of a package.
func deb(dir, name, version, arch string) string {
	return filepath.Join(dir, fmt.Sprintf("%s_%s_%s.deb", name, version, arch))
}

func root(t *testing.T) string {
	t.Helper()
	dir := testenv.Root(t)
	return dir
}

// must runs a command and gives all that it says.
func must(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// TestPackages has one set of packages, since they take their time to be built.
func TestPackages(t *testing.T) {
	old, now := t.TempDir(), t.TempDir()
	build(t, now, after, architectures...)
	t.Run("contents", func(t *testing.T) { contents(t, now) })
	t.Run("lintian", func(t *testing.T) { lintian(t, now) })
	build(t, old, before, "amd64")
	t.Run("machine", func(t *testing.T) {
		m := newMachine(t, old, now)
		t.Run("life", m.life)
		t.Run("guest", m.guest)
		t.Run("systemd", m.systemd)
	})
}

// sizes are how large programs may be, in bytes: guests carry theirs.
var sizes = map[string]int64{"meta9": 14 << 20, "meta9-guest": 10 << 20}

// contents: each package of each architecture has exactly the files of
// testdata/PACKAGE.txt, with their modes, all root's; programs are of the architecture,
// static, and not too large; and each command has its manual page.
func contents(t *testing.T, dir string) {
	for _, arch := range architectures {
		for _, name := range packages {
			file := deb(dir, name, afterDeb, arch)
			got, files := list(t, file)
			want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s has\n%s, and testdata/%s.txt\n%s", filepath.Base(file), got, name, want)
			}
			for path, body := range files {
				if bytes.HasPrefix(body, []byte("\x7fELF")) {
					program(t, path, arch, body, sizes[name])
				}
			}
		}
	}
}

// list is what a package has: a line for each file, but for the manual pages of the
// client's commands, which are one; and the files.
func list(t *testing.T, deb string) (string, map[string][]byte) {
	t.Helper()
	data, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(h.Name, ".")
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" {
			t.Errorf("%s: %s is of %s:%s", filepath.Base(deb), name, h.Uname, h.Gname)
		}
		if h.Typeflag == tar.TypeDir {
			if h.Mode&0o7777 != 0o755 {
				t.Errorf("%s: %s has mode %o", filepath.Base(deb), name, h.Mode)
			}
			continue
		}
		if files[name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%o %s", h.Mode&0o7777, commandPage.ReplaceAllString(name, "/meta9-COMMAND.1.gz"))
		if h.Typeflag == tar.TypeSymlink {
			line = fmt.Sprintf("%s -> %s", name, h.Linkname)
		}
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[strings.Index(a, "/"):], b[strings.Index(b, "/"):]) })
	return strings.Join(lines, "\n") + "\n", files
}

var commandPage = regexp.MustCompile(`/meta9-[a-z-]+\.1\.gz$`)

// program: it is of the architecture, needs nothing else, and has at most most bytes.
func program(t *testing.T, path, arch string, body []byte, most int64) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != machine {
		t.Errorf("%s of %s is of %v", path, arch, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s of %s is not static", path, arch)
		}
	}
	t.Logf("%s of %s: %d bytes", path, arch, len(body))
	if most > 0 && int64(len(body)) >= most {
		t.Errorf("%s of %s has %d bytes, %d is too many", path, arch, len(body), most)
	}
}

// lintian: Debian's checker of packages has nothing to say of any, but for what the
// packages override, each with its reason. Nor has mandoc of the manual pages.
func lintian(t *testing.T, dir string) {
	testenv.NeedDebian(t, "lintian", "lintian")
	args := []string{"--tag-display-limit=0", "--fail-on=error,warning"}
	if os.Geteuid() == 0 {
		args = append(args, "--allow-root")
	}
	for _, arch := range architectures {
		for _, name := range packages {
			args = append(args, deb(dir, name, afterDeb, arch))
		}
	}
	out, err := exec.Command("lintian", args...).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	for _, file := range []string{"cmd/meta9d/dist/lintian", "cmd/meta9/dist/lintian", "cmd/meta9/dist/guest.lintian"} {
		text, err := os.ReadFile(filepath.Join(root(t), file))
		if err != nil {
			t.Fatal(err)
		}
		reason := false
		for line := range strings.Lines(string(text)) {
			if comment := strings.HasPrefix(line, "#"); !comment && !reason {
				t.Errorf("%s: no reason for %s", file, line)
			} else {
				reason = comment || reason
			}
		}
	}

	testenv.NeedDebian(t, "mandoc", "mandoc")
	pages, err := filepath.Glob(filepath.Join(root(t), "docs", "man", "*"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d manual pages, %v", len(pages), err)
	}
	if out, err := exec.Command("mandoc", append([]string{"-Tlint"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc -Tlint: %v\n%s", err, out)
	}
}
