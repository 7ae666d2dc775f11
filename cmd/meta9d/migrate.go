package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"meta9/cmd/version"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/etcd"
	"meta9/session/fleet"
)

// offline calls do with the fleet's etcd, opened as this host; its meta9d must not run
// meanwhile. flag ("--import", "--export") begins the errors. When ctx ends, do fails early.
func (c *command) offline(ctx context.Context, flag string, stderr io.Writer, do func(e *etcd.Engine) error) (err error) {
	cfg, err := c.config.Cluster.load()
	if err != nil {
		return err
	}
	cfg.Log = newLog(stderr)
	e, err := etcd.Open(ctx, *cfg)
	if err == nil {
		defer func() { err = errors.Join(err, e.Close()) }()
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted", flag)
	case errors.Is(err, errs.Busy):
		return fmt.Errorf("%s: %s", flag, errs.Detail(err))
	case err != nil:
		return misused("%s: %s", flag, errs.Detail(err))
	}
	d := daemon{cfg: c.config}
	instance, err := d.instance()
	if err != nil {
		return err
	}
	// Not that of the host's meta9d, whose lease this would replace.
	m, err := fleet.Join(ctx, fleet.MemberConfig{
		Cluster: e, Host: cfg.Host, Version: version.String(), Instance: instance + " " + flag, TTL: time.Duration(c.config.Cluster.TTL), Log: cfg.Log,
	})
	switch {
	case errors.Is(err, errs.Exists):
		return misused("%s: this host's meta9d must be stopped first: %s", flag, errs.Detail(err))
	case err != nil:
		return fmt.Errorf("%s: %s", flag, errs.Detail(err))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		_ = m.Leave(ctx) // else it ends by itself
	}()
	defer context.AfterFunc(ctx, e.Interrupt)()
	if err = do(e); err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s: interrupted: %w", flag, err)
	}
	return err
}

// importFolder makes the VMs of a data folder this host's in the fleet. The folder stays as
// it is.
func (c *command) importFolder(ctx context.Context, stdout, stderr io.Writer) error {
	dir := c.importFrom
	from, err := openToRead("--import", dir)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was read only
	return c.offline(ctx, "--import", stderr, func(e *etcd.Engine) error {
		_, _ = fmt.Fprintf(stderr, "importing %s as the host %q\n", dir, c.hostName())
		var imported, renumbered, leftOut int
		var writeErr error // the first of writing to stdout
		err := store.Import(e, from, func(i store.Imported) {
			what := "imported"
			switch {
			case i.Err != nil:
				leftOut++
				what = "left out: " + oneLine(errors.New(errs.Detail(i.Err)))
			case i.NewIDs:
				renumbered++
				what = "imported, with new numbers of its files"
				fallthrough
			default:
				imported++
			}
			alias := i.Alias
			if alias == "" {
				alias = "-"
			}
			if _, err := fmt.Fprintf(stdout, "%s %q: %s\n", i.UUID, alias, what); writeErr == nil {
				writeErr = err
			}
		})
		_, _ = fmt.Fprintf(stderr, "%d VMs imported, %d of them with new numbers (qid.path) of their files; %d left out\n", imported, renumbered, leftOut)
		switch {
		case err != nil:
			return fmt.Errorf("--import: data folder %s: %s; importing once more goes on", dir, errs.Detail(err))
		case leftOut > 0:
			return fmt.Errorf("--import: %d VMs of %s were left out", leftOut, dir)
		}
		return writeErr
	})
}

// hostName is this host's name in the fleet, which was found before.
func (c *command) hostName() string {
	name, _ := c.config.Cluster.host()
	return name
}

// exportFolder makes a data folder of this host's VMs, for a meta9d that is in no fleet. They
// stay in the fleet.
func (c *command) exportFolder(ctx context.Context, stdout, stderr io.Writer) error {
	dir := c.exportTo
	if err := withoutData("--export", dir); err != nil {
		return err
	}
	if err := creatable(dir); err != nil {
		return misused("--export: %w", err)
	}
	return c.offline(ctx, "--export", stderr, func(e *etcd.Engine) error {
		_, _ = fmt.Fprintf(stderr, "exporting the VMs of the host %q to %s\n", c.hostName(), dir)
		s, err := store.Open(e, store.Config{Log: newLog(stderr)})
		if err != nil {
			return fmt.Errorf("--export: %w", err)
		}
		defer s.Stop()
		if err := bolt.MakeDir(dir); err != nil {
			return misused("--export: %w", err)
		}
		copied, err := os.CreateTemp(dir, "export-")
		if err != nil {
			return misused("--export: %w", err)
		}
		defer copied.Close()
		if err := os.Remove(copied.Name()); err != nil { // it goes with this process, however that ends
			return fmt.Errorf("--export: %w", err)
		}
		if err := s.Backup(copied); err != nil {
			return fmt.Errorf("--export: %w", err)
		}
		is, err := store.CheckBackup(copied)
		if err != nil {
			return fmt.Errorf("--export: %w", err)
		}
		if err := makeFolder("--export", dir, copied, is); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(stdout, "exported %d VMs, %d keys, %d bytes; they are in the fleet still\n", is.VMs, is.Keys, is.Bytes)
		if n := len(s.Salvaged()); n > 0 {
			return fmt.Errorf("--export: %d records are damaged, and their VMs are not in %s; the log names them", n, dir)
		}
		return nil
	})
}
