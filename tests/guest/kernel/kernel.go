// Package kernel gets what a guest boots: the Linux kernel of a Debian suite with
// the modules that 9P needs, and a few of Debian's programs. It keeps them in a
// folder of the user's cache, so that each is downloaded once a machine.
//
// Its functions may be called from any goroutine and any process: a lock on the
// folder lets one fetch at a time, and nothing half made bears a final name.
package kernel

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"meta9/tests/apt"
	"meta9/tests/testenv"
)

// Default is the suite whose kernel boots where none is named.
const Default = "bookworm"

// Suites are those of Debian whose kernels meta9 is tried on, the oldest first.
var Suites = []string{"bullseye", "bookworm", "trixie", "forky", "sid"}

// Cloud is Debian's cloud kernel of the default suite, which is built without 9P.
const Cloud = Default + CloudSuffix

// kept begins the name of a kernel's folder in the cache. It changes with what is taken of a
// kernel (needed), so that one which was cached before is not taken for whole.
const kept = "kernel2-"

// CloudSuffix after a suite names its cloud kernel.
const CloudSuffix = "-cloud"

// ErrGone says that Debian's mirror serves that suite no more.
var ErrGone = apt.ErrGone

// Kernel is a kernel in the cache.
type Kernel struct {
	Image   string   // its path: an ELF file that QEMU boots directly, or a bzImage
	Modules []string // paths, in the order to load them
	Version string   // as uname -r says it; "" for a bare image
}

// Get is the kernel that which names: a suite, or one with "-cloud" after it, or the paths of Debian's packages of
// one, with commas between, or the path of an image that has 9P and virtio built in.
func Get(which string) (Kernel, error) {
	if which == "" {
		which = Default
	}
	if slices.Contains(Suites, strings.TrimSuffix(which, CloudSuffix)) {
		dir, err := cached(kept+which, func(dir string) error { return fetchKernel(dir, which) })
		if err != nil {
			return Kernel{}, err
		}
		return open(dir)
	}
	files := strings.Split(which, ",")
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return Kernel{}, fmt.Errorf("no kernel %q: neither one of %s nor a file", which, strings.Join(Suites, ", "))
		}
	}
	if !strings.HasSuffix(files[0], ".deb") {
		return Kernel{Image: files[0]}, nil
	}
	// The name in the cache has the package's version in it.
	name := strings.TrimSuffix(filepath.Base(files[0]), ".deb")
	dir, err := cached(kept+name, func(dir string) error { return unpackKernel(dir, files) })
	if err != nil {
		return Kernel{}, err
	}
	return open(dir)
}

// open finds a kernel in its folder.
func open(dir string) (k Kernel, err error) {
	k.Image = filepath.Join(dir, "vmlinux")
	if k.Modules, err = filepath.Glob(filepath.Join(dir, "modules", "*.ko")); err != nil {
		return Kernel{}, err
	}
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	k.Version = strings.TrimSpace(string(version))
	return k, err
}

// cached is the folder of that name in the cache; where there is none, fill makes
// what is in it.
func cached(name string, fill func(dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "meta9-guest")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	dir, made := filepath.Join(cache, name), filepath.Join(cache, "new-"+name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	defer os.RemoveAll(made)
	old, err := filepath.Glob(filepath.Join(cache, "new-*")) // of processes that were killed
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(made, 0o755); err != nil {
		return "", err
	}
	if err := fill(made); err != nil {
		return "", err
	}
	return dir, os.Rename(made, dir)
}

// temporary runs do with a folder that is gone afterwards. It is beside the cache,
// where there is room for packages.
func temporary(beside string, do func(dir string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(beside), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return do(dir)
}

// fetchKernel fills dir with the newest kernel of a suite, or its cloud kernel.
func fetchKernel(dir, name string) error {
	return temporary(dir, func(root string) error {
		suite, cloud := strings.CutSuffix(name, CloudSuffix)
		a, err := apt.Open(root, suite)
		if err != nil {
			return err
		}
		image := "linux-image-amd64"
		if cloud {
			image = "linux-image-cloud-amd64"
		}
		names, err := kernelPackages(a, image)
		if err != nil {
			return err
		}
		archives, err := a.Fetch(names)
		if err != nil {
			return err
		}
		return unpackKernel(dir, archives)
	})
}

// kernelPackages are the packages of the kernel that a package such as linux-image-amd64
// stands for.
// Since 7.2 the one that is named after the image is empty, and the image and the
// modules are in others.
func kernelPackages(a *apt.Suite, image string) ([]string, error) {
	var names []string
	for next := []string{image}; len(next) > 0; next = next[1:] {
		deps, err := a.Depends(next[0])
		if err != nil {
			return nil, err
		}
		for _, d := range deps {
			if kernelPackage.MatchString(d) && !slices.Contains(names, d) {
				names, next = append(names, d), append(next, d)
			}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s depends on no kernel", image)
	}
	return names, nil
}

var kernelPackage = regexp.MustCompile(`^linux-(image|binary|modules)-[0-9]`)

// needed are the modules that a guest loads; what they depend on comes along. Some
// are built into some kernels, and 5.10 has no 9pnet_fd, which is in its 9pnet.
// Debian's cloud kernel is built without 9P, and mounts by FUSE.
var needed = []string{"virtio_pci", "virtio_console", "virtio_net", "9pnet_fd", "9pnet_virtio", "9p", "fuse"}

// kernelFiles are the image and those folders of modules where the needed ones are.
// Before trixie modules are in /lib, and until 7.2 the image is in /boot.
var kernelFiles = regexp.MustCompile(`^boot/vmlinuz-|^(usr/)?lib/modules/[^/]+/` +
	`(vmlinuz$|kernel/(fs|net/9p|net/core|drivers/virtio|drivers/char)/|kernel/drivers/net/[^/]*$)`)

// unpackKernel fills dir with the kernel that is in packages.
func unpackKernel(dir string, archives []string) error {
	return temporary(dir, func(tree string) error {
		for _, archive := range archives {
			if err := unpack(tree, archive, kernelFiles); err != nil {
				return err
			}
		}
		var image string
		modules := make(map[string]string) // name: path
		err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if base := filepath.Base(path); strings.HasPrefix(base, "vmlinuz") {
				image = path
			} else if name, _, ok := strings.Cut(base, ".ko"); ok {
				modules[strings.ReplaceAll(name, "-", "_")] = path
			}
			return err
		})
		if err != nil {
			return err
		}
		if image == "" {
			return fmt.Errorf("no kernel in %v", archives)
		}
		if err := bare(image, filepath.Join(dir, "vmlinux")); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(dir, "modules"), 0o755); err != nil {
			return err
		}
		l := loader{modules: modules, dir: filepath.Join(dir, "modules"), done: make(map[string]bool)}
		for _, name := range needed {
			if err := l.add(name); err != nil {
				return err
			}
		}
		return os.WriteFile(filepath.Join(dir, "version"), []byte(version(image, modules["fuse"])+"\n"), 0o644)
	})
}

// version is the kernel's version, which is in the name of the image or of its
// modules' folder.
func version(image, module string) string {
	if _, v, ok := strings.Cut(filepath.Base(image), "vmlinuz-"); ok {
		return v
	}
	_, v, _ := strings.Cut(module, "/lib/modules/")
	v, _, _ = strings.Cut(v, "/")
	return v
}

// unpack unpacks the files of a package whose paths ("usr/bin/ls") match.
func unpack(tree, archive string, files *regexp.Regexp) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", archive)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = untar(tree, out, files)
	io.Copy(io.Discard, out) // or dpkg-deb fails
	if ended := cmd.Wait(); ended != nil {
		err = ended
	}
	if err != nil {
		return fmt.Errorf("unpacking %s: %w\n%s", archive, err, said.Bytes())
	}
	return nil
}

func untar(tree string, in io.Reader, files *regexp.Regexp) error {
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir || !files.MatchString(name) {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%q leads out of the archive", h.Name)
		}
		to := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeSymlink {
			err = os.Symlink(h.Linkname, to)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(to, b, 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
}

// bare writes the ELF file that is in a bzImage: QEMU boots that over PVH, which
// spares the guest unpacking 65 MB itself, more than half of its boot under TCG.
func bare(image, out string) error {
	b, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	payload, err := bzPayload(b)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	elf, err := decompress(payload)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	if !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return fmt.Errorf("%s: no ELF file in it", image)
	}
	return os.WriteFile(out, elf, 0o644)
}

// bzPayload is the compressed kernel in a bzImage, without the 4 bytes of its size
// that follow what is not gzip. Linux's Documentation/arch/x86/boot.rst has the
// fields.
func bzPayload(b []byte) ([]byte, error) {
	if len(b) < 0x250 || string(b[0x202:0x206]) != "HdrS" {
		return nil, errors.New("no bzImage")
	}
	setup := (uint64(b[0x1f1]) + 1) * 512
	begin := setup + uint64(binary.LittleEndian.Uint32(b[0x248:]))
	size := uint64(binary.LittleEndian.Uint32(b[0x24c:]))
	if size < 4 || begin+size > uint64(len(b)) {
		return nil, errors.New("its payload is not in it")
	}
	payload := b[begin : begin+size]
	if !bytes.HasPrefix(payload, []byte("\x1f\x8b")) {
		payload = payload[:size-4]
	}
	return payload, nil
}

// decompress takes apart what is compressed by gzip, xz, zstd or lz4; all but the first by
// the commands, since a kernel's xz has a filter for machine code that the Go
// packages lack.
func decompress(b []byte) ([]byte, error) {
	var command string
	switch {
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		command = "xz"
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		command = "zstd"
	case bytes.HasPrefix(b, []byte("\x02\x21\x4c\x18")): // the format that lz4(1) calls legacy
		command = "lz4"
	default:
		return b, nil
	}
	packages := map[string]string{"xz": "xz-utils", "zstd": "zstd", "lz4": "lz4"}
	if err := testenv.Debian(logf, command, packages[command]); err != nil {
		return nil, err
	}
	cmd := exec.Command(command, "-dc")
	cmd.Stdin = bytes.NewReader(b)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", command, err, said.Bytes())
	}
	return out, nil
}

// logf says what is installed, on standard error.
func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// loader puts modules into dir, numbered in the order in which they load.
type loader struct {
	modules map[string]string // name: path
	dir     string
	done    map[string]bool
}

// add puts a module there, after those that it depends on. One that is not in the
// package is built into the kernel.
func (l *loader) add(name string) error {
	path := l.modules[name]
	if path == "" || l.done[name] {
		return nil
	}
	l.done[name] = true
	b, err := os.ReadFile(path)
	if err == nil {
		b, err = decompress(b)
	}
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	for _, d := range dependsOn(b) {
		if err := l.add(d); err != nil {
			return err
		}
	}
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, fmt.Sprintf("%02d-%s.ko", len(files), name)), b, 0o644)
}

// dependsOn are the modules that a module says it needs, as modinfo(8) tells.
func dependsOn(module []byte) []string {
	_, list, ok := bytes.Cut(module, []byte("\x00depends="))
	if !ok {
		return nil
	}
	list, _, _ = bytes.Cut(list, []byte{0})
	return strings.FieldsFunc(strings.ReplaceAll(string(list), "-", "_"), func(r rune) bool { return r == ',' })
}
