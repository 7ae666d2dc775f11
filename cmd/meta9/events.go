package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"meta9/session/client"
)

// place is what a command is told of: a path in what a connection shows, or in a mount of
// meta9's.
type place struct {
	mount string // its folder; "": the connection
	path  string
}

// String is the path as the user knows it: of a mount, that of the file system.
func (p place) String() string {
	if p.mount == "" {
		return p.path
	}
	return filepath.Join(p.mount, p.path)
}

// placeFlag adds --mount to a command.
func placeFlag(cmd *cobra.Command, mount *string) {
	cmd.Flags().StringVar(mount, "mount", "", "read PATH at the mount of 'meta9 mount' on `DIR`, by no connection of this command's own")
	_ = cmd.RegisterFlagCompletionFunc("mount", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return mountsOfOurs(), cobra.ShellCompDirectiveNoFileComp
	})
}

// placeOf finds what name, the argument of a command, is: with --mount a path there. Else, one
// that begins as those of the file system do, and leads into a mount, is that; --addr says that
// it is the connection's all the same.
func (a *app) placeOf(ctx context.Context, mount, name string) (place, error) {
	switch {
	case mount != "" && a.addr != "":
		return place{}, misused("--mount and --addr: which of the two?")
	case mount != "":
		at, err := mountedPlace(ctx, filepath.Join(mount, path.Clean("/"+name)))
		if err == nil && at.mount == "" {
			err = notMounted(ctx, mount)
		}
		return at, err
	case a.addr != "" || !isLocal(name):
		return place{path: name}, nil
	}
	if at, err := mountedPlace(ctx, name); err == nil && at.mount != "" {
		return at, nil
	}
	return place{path: name}, nil
}

// notMounted is that a folder is not there, or is in no mount of meta9's, and which there are.
func notMounted(ctx context.Context, dir string) error {
	if _, err := within(ctx, func() (os.FileInfo, error) { return os.Stat(dir) }); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: there is no such folder", dir)
	}
	if there := mountsOfOurs(); len(there) > 0 {
		return fmt.Errorf("%s: not in a mount of meta9's; those here: %s", dir, strings.Join(there, ", "))
	}
	return fmt.Errorf("%s: not in a mount of meta9's, and there is none here: 'meta9 mount' makes one", dir)
}

// isLocal tells whether a path is written as those of the file system are: from its root, or
// from the current folder.
func isLocal(name string) bool {
	return strings.HasPrefix(name, "/") || name == "." || name == ".." || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../")
}

// source is where events are read, and the files that they tell of. Its errors for what is not
// there are errs.NotFound and errs.NotDir.
type source interface {
	// open opens an events file: a stream that begins there and then.
	open(ctx context.Context, file string) (stream, error)

	// read reads a file whole.
	read(ctx context.Context, file string) ([]byte, error)

	// settle returns when whoever reads the same source from then on sees nothing older than
	// what read has given of files that an events file tells of.
	settle(ctx context.Context, events string) error

	Close() error
}

// stream is an open events file. errs.Stale: it is lost, and is to be opened again.
type stream interface {
	// ReadAt reads on at off, or gives the last bytes again.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Close() error
}

// source opens the source of a place.
func (a *app) source(ctx context.Context, at place, news *outages) (source, error) {
	if at.mount != "" {
		a.progress.say("waiting for the mount on " + at.mount)
		return openMount(at.mount), nil
	}
	c, err := a.connect(ctx, client.Options{Patience: -1, Notify: func(s client.State) {
		a.progress.connection(s)
		news.tell(s)
	}})
	if err != nil {
		return nil, err
	}
	return connection{c}, nil
}

// connection is the source that meta9d is.
type connection struct{ *client.Client }

func (c connection) open(ctx context.Context, file string) (stream, error) { return c.Open(ctx, file) }

func (c connection) read(ctx context.Context, file string) ([]byte, error) {
	return c.ReadFile(ctx, file)
}

// settle has nothing to wait for: a server does not go back.
func (c connection) settle(context.Context, string) error { return nil }

// completePlaces completes the first argument to paths in a mount, if it begins with one or
// --mount says so, or as the connection has them.
func (a *app) completePlaces(mount *string) completer {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		dir := typed[:strings.LastIndexByte(typed, '/')+1]
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		at, err := a.placeOf(ctx, *mount, dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		if at.mount != "" {
			list, _ := within(ctx, func() ([]os.DirEntry, error) { return os.ReadDir(at.String()) })
			for _, e := range list {
				names = append(names, folderName(e.Name(), e.IsDir()))
			}
			return completed(dir, typed, names)
		}
		for _, i := range a.names(cmd, dir) {
			names = append(names, dir+folderName(i.Name, i.IsDir()))
		}
		if isLocal(typed) {
			for _, m := range mountsOfOurs() {
				names = append(names, m+"/")
			}
		}
		return completed("", typed, names)
	}
}

// within does what may wait for as long as a mount's server is away, and leaves it alone when
// ctx ends: no call of the kernel's ends with a context.
func within[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
