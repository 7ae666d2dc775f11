//go:build linux

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const umountHelp = `Unmount what 'meta9 mount' has mounted on DIR; umount(8) does as well. The keeper
ends the session, and itself.

With --lazy the mount is taken from DIR at once also while programs have files of it
open; it ends when they have closed them.`

// newUmount is `meta9 umount`.
func newUmount(*app) *cobra.Command {
	lazy := false
	cmd := &cobra.Command{
		Use:               "umount [-l] DIR",
		Short:             "unmount what 'meta9 mount' has mounted",
		Example:           "meta9 umount /mnt/meta9",
		Long:              umountHelp,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeUmount,
		RunE:              func(_ *cobra.Command, args []string) error { return unmount(args[0], lazy) },
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "also while it is busy")
	return cmd
}

// unmount unmounts dir if it is ours. It looks at no file there: the mount may be
// dead.
func unmount(dir string, lazy bool) error {
	e, err := mountAt(dir)
	switch {
	case err != nil:
		return err
	case e.dir == "":
		return fmt.Errorf("%s: nothing is mounted there", dir)
	case !e.ours():
		return fmt.Errorf("%s: not a mount of meta9's: %s of the type %s; umount(8) unmounts it", dir, e.source, e.fstype)
	}
	switch err := detachMount(e.dir, lazy); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return errNotRoot
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s is busy: a program has a file of it open, or works in it, or something else is mounted below; with -l it is taken away all the same", dir)
	default:
		return fmt.Errorf("%s: %w", dir, err)
	}
}

// detachMount unmounts dir. What a user has mounted by fusermount3, the same unmounts.
func detachMount(dir string, lazy bool) error {
	flags, word := unix.UMOUNT_NOFOLLOW, "-u"
	if lazy {
		flags, word = flags|unix.MNT_DETACH, "-uz"
	}
	err := unix.Unmount(dir, flags)
	if !errors.Is(err, unix.EPERM) || fusermount() == "" {
		return err
	}
	said, late := exec.Command(fusermount(), word, "--", dir).CombinedOutput()
	switch {
	case late == nil:
		return nil
	case strings.Contains(string(said), "busy"):
		return unix.EBUSY
	}
	return err
}

// mountAt finds the mount at dir, which may be a way there over symbolic links.
func mountAt(dir string) (mountEntry, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return mountEntry{}, err
	}
	if e, err := findMount(abs); err != nil || e.dir != "" {
		return e, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return mountEntry{}, err
	}
	if e, err := findMount(filepath.Join(parent, filepath.Base(abs))); err != nil || e.dir != "" {
		return e, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return mountEntry{}, err
	}
	return findMount(abs)
}

// completeUmount completes to the mounts that there are.
func completeUmount(_ *cobra.Command, args []string, _ string) (dirs []string, _ cobra.ShellCompDirective) {
	list, _ := mountTable()
	for _, e := range list {
		if e.ours() && len(args) == 0 {
			dirs = append(dirs, e.dir)
		}
	}
	return dirs, cobra.ShellCompDirectiveNoFileComp
}
