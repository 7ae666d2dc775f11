// Package apt fetches Debian's packages of any suite, with lists and archives in a
// folder of its own: it neither reads nor changes what the machine knows of packages.
// A Suite is used by one goroutine.
package apt

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// keyring is what Debian's archive signs with, of the package
// debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// ErrGone says that Debian's mirror serves that suite no more.
var ErrGone = errors.New("no longer served")

// Suite is apt-get(8) with lists, sources and archives of its own in a folder. apt
// itself holds each archive against the hashes in the lists, and those against
// Debian's signature.
type Suite struct{ dir string }

// open makes dir and fetches the lists that the lines of a sources.list name. The
// error is ErrGone where a mirror has no such suite any more.
func open(dir, lines string) (*Suite, error) {
	a := &Suite{dir}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{
		"sources.list": lines,
		"status":       "", // nothing is installed here
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	out, err := a.run("apt-get", "update", "-q")
	switch {
	case gone.MatchString(out):
		return nil, fmt.Errorf("%w: %s", ErrGone, gone.FindString(out))
	case err == nil && unanswered.MatchString(out): // apt-get exits with 0 all the same
		err = errors.New("no answer")
	}
	if err != nil {
		return nil, fmt.Errorf("fetching lists: %w\n%s", err, out)
	}
	return a, nil
}

// What apt-get update says where a mirror has no such suite, and where it did not
// answer.
var (
	gone       = regexp.MustCompile(`The repository .* does (not|no longer) have a Release file`)
	unanswered = regexp.MustCompile(`(?m)^(Err:|E:|W: Failed)`)
)

// run runs one of apt's programs and gives all that it says.
func (a *Suite) run(program string, args ...string) (string, error) {
	var argv []string
	for _, o := range []string{
		"Dir::State=" + filepath.Join(a.dir, "state"),
		"Dir::State::status=" + filepath.Join(a.dir, "status"),
		"Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"Dir::Etc::SourceList=" + filepath.Join(a.dir, "sources.list"),
		"Dir::Etc::SourceParts=-",
		"APT::Architecture=amd64",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::AllowInsecureRepositories=false",
		"Acquire::Check-Valid-Until=false", // of a suite that gets no more updates they are old
		"Acquire::Retries=2",
		"APT::Sandbox::User=", // the user _apt may not enter a home
	} {
		argv = append(argv, "-o", o)
	}
	cmd := exec.Command(program, append(argv, args...)...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Depends are the packages that a package depends on.
func (a *Suite) Depends(name string) ([]string, error) {
	out, err := a.run("apt-cache", "depends", "--no-recommends", "--no-suggests", name)
	if err != nil {
		return nil, fmt.Errorf("what %s depends on: %w\n%s", name, err, out)
	}
	var names []string
	for _, m := range dependency.FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	return names, nil
}

var dependency = regexp.MustCompile(`(?m)^ [ |](?:Pre)?Depends: (\S+)$`)

// Fetch downloads packages and gives the paths of the archives.
func (a *Suite) Fetch(names []string) ([]string, error) {
	out, err := a.run("apt-get", append([]string{"download", "-q"}, names...)...)
	if err != nil {
		return nil, fmt.Errorf("downloading %s: %w\n%s", strings.Join(names, " "), err, out)
	}
	return filepath.Glob(filepath.Join(a.dir, "*.deb"))
}

// FetchAll downloads packages and all that they need to run, down to the C library, and
// gives the paths of the archives.
func (a *Suite) FetchAll(names ...string) ([]string, error) {
	args := []string{"install", "-q", "-y", "--download-only", "--no-install-recommends"}
	out, err := a.run("apt-get", append(args, names...)...)
	if err != nil {
		return nil, fmt.Errorf("downloading %s and what they need: %w\n%s", strings.Join(names, " "), err, out)
	}
	return filepath.Glob(filepath.Join(a.dir, "cache/archives/*.deb"))
}

// Open is a suite of Debian's by its name, with all that is fetched of it in dir, which
// is made. The error is ErrGone where it is not served any more.
func Open(dir, name string) (*Suite, error) {
	lines, err := sources(name)
	if err != nil {
		return nil, err
	}
	return open(dir, lines)
}

// sources are the lines of a sources.list for a suite. Its mirrors are those that
// this machine has been given for its own suite: in /etc/apt, in whatever form.
func sources(name string) (string, error) {
	out, err := exec.Command("apt-get", "update", "--print-uris").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt-get for this machine's mirrors: %w", err)
	}
	main, security := mirrors(string(out))
	if main == "" {
		return "", errors.New("this machine's apt has no mirror of Debian")
	}
	line := func(mirror, suite string) string {
		return fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, suite)
	}
	lines := line(main, name)
	if security != "" && name != "sid" && name != "forky" { // they have no such
		lines += line(security, name+"-security")
	}
	return lines, nil
}

// mirrors finds Debian's mirror and that of its security updates in what
// "apt-get update --print-uris" prints. Others may serve a suite of the same name;
// Debian's has its -updates beside it.
func mirrors(uris string) (main, security string) {
	of := make(map[string]string) // suite: mirror
	for _, m := range inRelease.FindAllStringSubmatch(uris, -1) {
		if of[m[2]] == "" {
			of[m[2]] = m[1]
		}
	}
	for suite, mirror := range of {
		if name, ok := strings.CutSuffix(suite, "-security"); ok {
			security = mirror
			if main == "" {
				main = of[name]
			}
		}
		if strings.HasSuffix(suite, "-updates") {
			main = mirror
		}
	}
	for _, rolling := range []string{"sid", "unstable", "testing", "forky"} {
		if main == "" {
			main = of[rolling]
		}
	}
	return main, security
}

var inRelease = regexp.MustCompile(`(?m)^'(\S+)/dists/([^/']+)/InRelease'`)

// Mirror is Debian's mirror that this machine's apt is set to.
func Mirror() (string, error) {
	out, err := exec.Command("apt-get", "update", "--print-uris").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt-get for this machine's mirrors: %w", err)
	}
	main, _ := mirrors(string(out))
	if main == "" {
		return "", errors.New("this machine's apt has no mirror of Debian")
	}
	return main, nil
}
