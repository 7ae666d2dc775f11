package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/backup"
	"meta9/session/client"
)

func newBackup(a *app) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "backup [--check] FILE",
		Short: "write all VMs to a file, while meta9d runs",
		Long: `Write all VMs and their keys to FILE, as they are at one moment: every write that was
answered before is in it. FILE gets its name when all is written, synced and read again;
one that is there already is left alone. With --check FILE is read, and nothing else
done: a backup that was cut or altered is refused. 'meta9d --restore FILE --data DIR'
makes a data folder of it. It has all secrets of all VMs in it, and mode 0600.
The command wants meta9d's own host, since it asks at RUN/vminfo.sock.`,
		Example: `meta9 backup /var/backups/meta9-$(date +%F)
meta9 backup --check /var/backups/meta9-2026-01-31
meta9d --restore /var/backups/meta9-2026-01-31 --data /var/lib/meta9`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check {
				n, err := checkBackup(args[0])
				if err == nil {
					fmt.Fprintf(a.out, "%s is whole: %d records\n", args[0], n)
				}
				return err
			}
			return a.backup(cmd.Context(), args[0])
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "look whether FILE is whole and unaltered")
	return cmd
}

// checkBackup reads a backup, and gives the number of its records.
func checkBackup(file string) (uint64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := backup.Read(f, nil)
	if errors.Is(err, backup.ErrNone) {
		err = fmt.Errorf("%s is %w", file, err)
	}
	return n, err
}

// backup writes one. --timeout does not bound it: it takes as long as there is data.
func (a *app) backup(ctx context.Context, file string) error {
	n := uint64(0)
	err := a.save(ctx, "/backup", file, func(file string) (err error) {
		n, err = checkBackup(file)
		return err
	})
	if err == nil {
		fmt.Fprintf(a.err, "%s: %d records\n", file, n)
	}
	return err
}

// save writes what meta9d's own HTTP socket has at path into a new file, of mode 0600. It
// is written beside it first, synced, and gets its name when check has found it good.
func (a *app) save(ctx context.Context, path, file string, check func(file string) error) error {
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is there already", file)
	}
	from, err := a.openHTTP(ctx, path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(to.Name()) }() // its other name, or what is left of a failure
	defer to.Close()
	a.progress.say("writing " + file)
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if err := check(to.Name()); err != nil {
		return fmt.Errorf("what was written: %w", err)
	}
	if err := giveName(to.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return nil // who may write there may not read it
	}
	defer dir.Close()
	return dir.Sync()
}

// giveName gives the file from the name to, which no file must have yet. from may stay as a
// second name.
func giveName(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	// FAT, and some network file systems, have no second names, so the file is renamed. An empty
	// file takes the name first, so that the rename replaces no other.
	taken, none := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if none != nil {
		return errors.Join(err, none)
	}
	_ = taken.Close() // nothing was written
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// openHTTP asks meta9d's own HTTP socket, which shows all to the admin.
func (a *app) openHTTP(ctx context.Context, path string) (io.ReadCloser, error) {
	socket, err := a.vminfoSocket()
	if errors.Is(err, errNotBeside) { // also where meta9d does not run
		ctx, cancel := a.withTimeout(ctx)
		defer cancel()
		c, none := a.connect(ctx, client.Options{})
		if none != nil {
			return nil, none
		}
		c.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("this is asked for beside meta9d's admin socket: %w", err)
	}
	c, err := a.vminfo("unix:"+socket, "meta9 "+strings.TrimPrefix(path, "/"))
	if err != nil {
		return nil, err
	}
	body, err := c.Open(ctx, path)
	return body, httpError(socket, err)
}
