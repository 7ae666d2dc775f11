package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		_, err := newApt(t.TempDir(), line+"\n")
		if err == nil || errors.Is(err, ErrGone) == served {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestImage: the kernel is found in a bzImage, and nothing is read past one that is
// cut or lies about its size.
func TestImage(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write([]byte("\x7fELF and so on"))
	w.Close()
	image := make([]byte, 1024, 4096)
	image[0x1f1] = 1 // sectors of set-up code, beside the first
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(image[0x248:], 5)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(packed.Len()))
	image = append(append(image, "code "...), packed.Bytes()...)
	image = append(image, "more"...)
	payload, err := bzPayload(image)
	if err != nil {
		t.Fatal(err)
	}
	elf, err := decompress(payload)
	if err != nil || !strings.HasPrefix(string(elf), "\x7fELF") {
		t.Errorf("%q, %v", elf, err)
	}
	for _, size := range []int{0, 0x24f, 1024, len(image) - 5} {
		if _, err := bzPayload(image[:size]); err == nil {
			t.Errorf("%d bytes of a bzImage are taken for one", size)
		}
	}
}

// TestDependsOn reads what a module says of itself.
func TestDependsOn(t *testing.T) {
	for module, want := range map[string][]string{
		"ELF\x00license=GPL\x00depends=netfs,9pnet\x00retpoline=Y\x00": {"netfs", "9pnet"},
		"ELF\x00depends=\x00name=9pnet\x00":                            nil,
		"ELF\x00depends=crc32c-generic":                                {"crc32c_generic"},
		"ELF":                                                          nil,
	} {
		if got := dependsOn([]byte(module)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", module, got, want)
		}
	}
}
