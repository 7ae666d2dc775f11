package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"meta9/fs/backup"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
)

// withBackup is the admin's HTTP handler: h, a backup of all VMs at /backup, and VMs in
// JSON lines at /export.
func (d *daemon) withBackup(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch get := r.Method == http.MethodGet; {
		case get && r.URL.Path == "/backup":
			d.serveBackup(w)
		case get && r.URL.Path == "/export":
			d.serveExport(w, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// serveBackup streams a backup. One that ends without its last bytes is no backup, which
// is how a client hears of an error half-way.
func (d *daemon) serveBackup(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/octet-stream")
	began := time.Now()
	err := d.store.Backup(moving{w, http.NewResponseController(w)})
	if err != nil {
		d.log.Error().Err(err).Msg("a backup was broken off")
		panic(http.ErrAbortHandler) // the connection ends, so that it is seen at once
	}
	d.log.Info().Dur("took", time.Since(began)).Msg("a backup was written")
}

// moving gives a reader the time of one write for each, and not for the whole.
type moving struct {
	io.Writer
	c *http.ResponseController
}

func (m moving) Write(b []byte) (int, error) {
	if err := m.c.SetWriteDeadline(time.Now().Add(httpWriteTime)); err != nil {
		return 0, err
	}
	return m.Writer.Write(b)
}

// restoreBackup makes a data folder of a backup: all of it, or nothing. The folder may be
// there, but must have no data.
func restoreBackup(file, dir string, out io.Writer) error {
	if dir == "" {
		return misused("--restore: --data \"\" keeps nothing")
	}
	if err := withoutData("--restore", dir); err != nil {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return misused("--restore: %w", err)
	}
	defer in.Close()
	want, err := store.CheckBackup(in)
	if err != nil {
		if errors.Is(err, backup.ErrNone) {
			return misused("%s is %w", file, err)
		}
		return fmt.Errorf("backup %s: %w", file, err)
	}
	if err := makeFolder("--restore", dir, in, want); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "restored %d VMs, %d keys, %d bytes\n", want.VMs, want.Keys, want.Bytes)
	return err
}

// withoutData refuses a folder that has data.
func withoutData(flag, dir string) error {
	for _, name := range []string{bolt.FileName, bolt.LogName, bolt.AckedName} {
		file := filepath.Join(dir, name)
		switch _, err := os.Lstat(file); {
		case err == nil:
			return misused("%s: %s is there: move the old data away, or name another folder", flag, file)
		case !errors.Is(err, os.ErrNotExist):
			return misused("%s: %w", flag, err)
		}
	}
	return nil
}

// makeFolder makes a data folder of a backup that CheckBackup has found good: all of it, or
// nothing. flag is who asks.
func makeFolder(flag, dir string, in io.ReadSeeker, want store.Stats) error {
	if err := bolt.MakeDir(dir); err != nil {
		return misused("%s: %w", flag, err)
	}
	made, err := os.MkdirTemp(dir, "restore-")
	if err != nil {
		return misused("%s: %w", flag, err)
	}
	defer func() { _ = os.RemoveAll(made) }() // what is left of it
	if err := fill(made, in, want); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	// One file is the whole: with its name all is there.
	from, to := filepath.Join(made, bolt.FileName), filepath.Join(dir, bolt.FileName)
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // NFS does not have that
		err = os.Link(from, to)
	}
	if err != nil {
		return fmt.Errorf("making %s: %w", to, err)
	}
	if err := store.SyncDir(dir); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	return nil
}

// fill writes the backup's records into a new data folder, and reads them again.
func fill(dir string, in io.ReadSeeker, want store.Stats) error {
	e, err := bolt.Open(dir, bolt.Options{Segment: -1}) // without a log
	if err != nil {
		return err
	}
	if err := errors.Join(store.Restore(e, in), e.Close()); err != nil {
		return err
	}
	if e, err = bolt.Open(dir, bolt.Options{ReadOnly: true}); err != nil {
		return err
	}
	defer func() { _ = e.Close() }() // it was read only
	got, err := store.Check(e, func(store.Damage) {})
	if err == nil && got != want {
		err = fmt.Errorf("%+v was written, and %+v is there", want, got)
	}
	return err
}
