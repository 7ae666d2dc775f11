package apt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestMirrors: Debian's mirrors are found among others that serve a suite of the same
// name, or that look alike.
func TestMirrors(t *testing.T) {
	for name, c := range map[string]struct{ uris, main, security string }{
		"all": {`
'http://other.example/linux/debian/dists/bookworm/InRelease' other 0
'http://mirror.example/debian/dists/bookworm/InRelease' m 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' m 0
'http://security.example/debian-security/dists/bookworm-security/InRelease' s 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' m 0
'https://third.example/apt/dists/third-bookworm/InRelease' third 0
`, "http://mirror.example/debian", "http://security.example/debian-security"},
		"no updates": {`
'http://mirror.example/debian/dists/trixie/InRelease' m 0
'http://mirror.example/debian-security/dists/trixie-security/InRelease' s 0
`, "http://mirror.example/debian", "http://mirror.example/debian-security"},
		"rolling": {"\n'http://mirror.example/debian/dists/sid/InRelease' m 0\n", "http://mirror.example/debian", ""},
		"none":    {"'https://third.example/apt/dists/nodistro/InRelease' third 0\n", "", ""},
	} {
		main, security := mirrors(c.uris)
		if main != c.main || security != c.security {
			t.Errorf("%s: %q and %q, want %q and %q", name, main, security, c.main, c.security)
		}
	}
}

// TestServed: a suite that a mirror has no more is told from a mirror that does not
// answer, and lists that nobody has signed are not taken.
func TestServed(t *testing.T) {
	mirror := t.TempDir()
	unsigned := filepath.Join(mirror, "dists", "unsigned")
	if err := os.MkdirAll(unsigned, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unsigned, "Release"), []byte("Suite: unsigned\nDate: Thu, 26 Nov 2026 00:00:00 UTC\nSHA256:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, served := range map[string]bool{
		"deb file:" + mirror + " oldstable main":       false,
		"deb file:" + mirror + " unsigned main":        true,
		"deb http://127.0.0.1:1/debian oldstable main": true,
	} {
		_, err := open(t.TempDir(), line+"\n")
		if err == nil || errors.Is(err, ErrGone) == served {
			t.Errorf("%s: %v", line, err)
		}
	}
}
