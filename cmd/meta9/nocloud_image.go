//go:build !guest && !plan9

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/session/client"
)

// seedLabel is the name by which a file system is a seed of cloud-init's NoCloud source
// (cloud-init's documentation, "NoCloud": "cidata", in upper or lower case).
const seedLabel = "cidata"

// newNoCloudImage is `meta9 nocloud-image`.
func newNoCloudImage(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "nocloud-image VM FILE",
		Short: "write a disk image that cloud-init takes its seed from",
		Long: `Write FILE, a disk image (ISO 9660, label "cidata") with what nocloud/ of the VM has now:
meta-data, user-data, vendor-data and network-config. It is for guests whose image has
cloud-init but cannot mount 9P when it runs: attach it as a CD or a disk before the
first boot.

The image holds what it held when it was made; make it again after a change. A FILE that
is there is replaced, at once and as a whole. Only you can read it (0600), since a seed
may have secrets: give it to the user of your hypervisor, if that is another.`,
		Example: `meta9 nocloud-image web0 /var/lib/libvirt/images/web0-seed.iso
qemu-system-x86_64 ... -drive file=web0-seed.iso,format=raw,if=virtio,readonly=on`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault // files
			}
			return a.completeVM(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var seed map[string][]byte
			err := a.with(cmd, func(ctx context.Context, c *client.Client) (err error) {
				seed, err = readSeed(ctx, c, vmFile(args[0], "nocloud"))
				if errors.Is(err, errs.NotFound) {
					err = noVMError(args[0])
				}
				return err
			})
			if err != nil {
				return err
			}
			return writeSeed(args[1], seed)
		},
	}
}

// readSeed reads the files of a folder nocloud/.
func readSeed(ctx context.Context, c *client.Client, dir string) (map[string][]byte, error) {
	list, err := c.ReadDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	seed := make(map[string][]byte)
	for i := range list {
		if seed[list[i].Name], err = c.ReadFile(ctx, dir+"/"+list[i].Name); err != nil {
			return nil, err
		}
	}
	return seed, nil
}

// writeSeed makes the image beside the path and gives it that name when it is whole.
func writeSeed(path string, seed map[string][]byte) error {
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".meta9-seed-") // 0700
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	image := filepath.Join(tmp, "image")
	if err := makeSeed(image, tmp, seed); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.Rename(image, path)
}

// makeSeed makes the image; the library gathers the files in a folder of dir first.
func makeSeed(image, dir string, seed map[string][]byte) error {
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	files, err := os.MkdirTemp(dir, "files-")
	if err != nil {
		return err
	}
	for name, value := range seed {
		if err := os.WriteFile(filepath.Join(files, name), value, 0o600); err != nil {
			return err
		}
	}
	fs, err := iso9660.Create(file.New(f, false), 0, 0, 2048, files)
	if err != nil {
		return err
	}
	if err := fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: seedLabel}); err != nil {
		return err
	}
	return f.Sync()
}
