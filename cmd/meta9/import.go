//go:build !guest && !plan9

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// importing is what `meta9 import` is told, and what it has done.
type importing struct {
	*app
	replace, skip                   bool
	made, replaced, skipped, failed int
}

// newImport is `meta9 import`.
func newImport(a *app) *cobra.Command {
	im := importing{app: a}
	cmd := &cobra.Command{
		Use:   "import [--replace | --skip-existing] [FILE]",
		Short: "make VMs of what 'meta9 export' has written",
		Long: `Make the VMs of an export, from FILE or standard input, with their properties, their keys
and the modes, times and authors of those. The whole is read first: where it is cut or of
another format, or has a VM that is here already, nothing is done. With --replace such a
VM becomes what the export says, and keys that it has beyond that go; with
--skip-existing it stays as it is. Each VM is made whole or not at all, and a line says
what became of it; where one fails, the others are made all the same.`,
		Example: `meta9 import /root/web0.jsonl
meta9 import --replace /root/all.jsonl
ssh other meta9 export web0 | meta9 import`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if im.replace && im.skip {
				return misused("--replace and --skip-existing are two answers to one question")
			}
			in, name, end, err := a.importFile(cmd.Context(), args)
			if err != nil {
				return err
			}
			defer end()
			if err := im.run(cmd.Context(), in); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&im.replace, "replace", false, "replace VMs that are here already")
	f.BoolVar(&im.skip, "skip-existing", false, "leave VMs that are here already as they are")
	return cmd
}

// importFile opens the export. One that comes by a pipe is copied, since it is read twice,
// to a file that has no name: it has secrets, and goes with this process, however that ends.
func (a *app) importFile(ctx context.Context, args []string) (f *os.File, name string, end func(), err error) {
	if len(args) == 1 && args[0] != "-" {
		f, err = os.Open(args[0])
		return f, args[0], func() { f.Close() }, err
	}
	f, err = os.CreateTemp("", "meta9-import-") // mode 0600
	if err != nil {
		return nil, "", nil, err
	}
	nameless := os.Remove(f.Name()) == nil // Windows removes no file that is open
	end = func() {
		f.Close()
		if !nameless {
			_ = os.Remove(f.Name())
		}
	}
	copied := make(chan error, 1)
	go func() { // a read of standard input cannot be ended
		_, err := io.Copy(f, a.in)
		copied <- err
	}()
	select {
	case err = <-copied:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		end()
		return nil, "", nil, fmt.Errorf("standard input: %w", err)
	}
	return f, "standard input", end, nil
}

// run looks through the export, and then makes its VMs.
func (im *importing) run(ctx context.Context, in io.ReadSeeker) error {
	c, err := im.connect(ctx, client.Options{Notify: im.progress.connection})
	if err != nil {
		return err
	}
	defer c.Close()
	here, err := im.here(ctx, c)
	if err != nil {
		return err
	}
	if err := im.check(in, here); err != nil {
		return fmt.Errorf("%w; nothing was done", err)
	}
	err = readExport(in, func(v exported) error { return im.take(ctx, c, v, here[v.uuid]) })
	fmt.Fprintf(im.err, "%d VMs made, %d replaced, %d skipped, %d failed\n", im.made, im.replaced, im.skipped, im.failed)
	return err
}

// here are the VMs that there are.
func (im *importing) here(ctx context.Context, c *client.Client) (map[string]bool, error) {
	ctx, cancel := im.withTimeout(ctx)
	defer cancel()
	list, err := c.ReadDir(ctx, vmPath(""))
	if err != nil {
		return nil, err
	}
	here := make(map[string]bool, len(list))
	for _, i := range list {
		here[i.Name] = true
	}
	return here, nil
}

// check reads the export once: it is whole, and has no VM twice or that is in the way. in
// is at its beginning again then.
func (im *importing) check(in io.ReadSeeker, here map[string]bool) error {
	seen, both, one := map[string]bool{}, 0, ""
	err := readExport(in, func(v exported) error {
		if seen[v.uuid] {
			return fmt.Errorf("VM %s is in it twice", v.uuid)
		}
		seen[v.uuid] = true
		if here[v.uuid] {
			both, one = both+1, v.uuid
		}
		return nil
	})
	if err == nil && both > 0 && !im.replace && !im.skip {
		err = fmt.Errorf("%d of its VMs are here already, %s is one: --replace makes them what the export says, --skip-existing leaves them as they are", both, one)
	}
	if err == nil {
		_, err = in.Seek(0, io.SeekStart)
	}
	return err
}

// take makes one VM. An error ends the import: there is no connection any more, or the user
// has had enough.
func (im *importing) take(ctx context.Context, c *client.Client, v exported, here bool) error {
	if here && im.skip {
		im.skipped++
		im.tell(v, "skipped, it is here already")
		return nil
	}
	one, cancel := im.withTimeout(ctx)
	defer cancel()
	line := v.line
	if here {
		line = append([]byte("replace "), line...)
	}
	err := verb(one, c, "/ctl", "import", line)
	switch {
	case err == nil && here:
		im.replaced++
		im.tell(v, "replaced")
	case err == nil:
		im.made++
		im.tell(v, "made")
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrUnknown), ctx.Err() != nil:
		return about(v.uuid, err)
	default:
		im.failed++
		im.fail(about(v.uuid, err))
	}
	return nil
}

func (im *importing) tell(v exported, what string) {
	fmt.Fprintf(im.out, "%s %s: %s\n", v.uuid, printable(orDash(v.alias)), what)
}
