package kernel

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"meta9/tests/apt"
)

// Programs is a folder with what guests run of Debian's, of the default suite: the
// static busybox, at "busybox", and in "debian", as paths of the guest's, programs
// that do some things otherwise than busybox's, with their libraries.
func Programs() (string, error) {
	return cached("programs", func(dir string) error {
		return temporary(dir, func(root string) error {
			a, err := apt.Open(root, Default)
			if err != nil {
				return err
			}
			archives, err := a.Fetch(programPackages)
			if err != nil {
				return err
			}
			tree := filepath.Join(root, "tree")
			if err := os.Mkdir(tree, 0o755); err != nil {
				return err
			}
			for _, archive := range archives {
				if err := unpack(tree, archive, programFiles); err != nil {
					return err
				}
			}
			return pick(dir, tree)
		})
	})
}

// programPackages are busybox, the programs, and the libraries that they need.
var programPackages = strings.Fields(`busybox-static
	dash sed coreutils rsync
	libc6 libacl1 libattr1 libselinux1 libpcre2-8-0 libgmp10 libpopt0 liblz4-1 libzstd1 libxxhash0 libssl3 zlib1g`)

// debianPrograms are those of the packages' programs that guests get, at
// /debian/NAME, so that busybox's keep their names.
var debianPrograms = strings.Fields("dash sed rsync cat cp dd ls touch stat")

var programFiles = regexp.MustCompile(`^(usr/)?bin/|^lib64/|^(usr/)?lib/x86_64-linux-gnu/[^/]+\.so`)

// pick moves what guests get from an unpacked tree to dir.
func pick(dir, tree string) error {
	var paths []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range paths {
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		base := filepath.Base(path)
		to := filepath.Join(dir, "debian", rel)
		if filepath.Base(filepath.Dir(path)) == "bin" {
			to = filepath.Join(dir, "debian", "debian", base)
			if base == "busybox" {
				to = filepath.Join(dir, base)
			} else if !slices.Contains(debianPrograms, base) {
				continue
			}
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Rename(path, to); err != nil {
			return err
		}
	}
	return nil
}
