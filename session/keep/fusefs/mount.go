//go:build (linux && !386 && !arm) || freebsd || darwin

package fusefs

import (
	"errors"
	"log"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/rs/zerolog"
)

// Options are what Mount is told.
type Options struct {
	Source string // as the table of mounts is to show it
	Dir    string // an absolute path
	// Direct mounts by mount(2) alone; otherwise fusermount3 or fusermount does.
	Direct bool
	// Flags are mount(2)'s, for Direct; Words are the same as options of fusermount's.
	Flags uintptr
	Words []string
	// AllowOther lets other users in than the one who mounts, as far as modes do.
	AllowOther bool
	// Data is how many bytes one read or write may have.
	Data int
	Log  zerolog.Logger
}

// errFusermount is when fusermount3 or fusermount did not mount: it says why on the standard error,
// which is this process's.
var errFusermount = errors.New("fusermount has refused, as it says above")

// background is how many requests the kernel may have that no program waits for.
const background = 12

// Mount mounts, and serves the kernel until it is unmounted; done is closed then.
func (f *FS) Mount(o Options) (done <-chan struct{}, err error) {
	server, err := fuse.NewServer(f, o.Dir, &fuse.MountOptions{
		FsName: o.Source, Name: f.String(), AllowOther: o.AllowOther,
		DirectMountStrict: o.Direct, DirectMountFlags: o.Flags, Options: append(o.Words, "default_permissions"),
		MaxWrite: o.Data, MaxBackground: background, EnableLocks: true, DisableReadDirPlus: true, DisableXAttrs: true,
		DisableSplice:     true, // what is read is in memory: go-fuse would put each answer's header into a pipe first, and throw it away
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC, Logger: log.New(o.Log, "", 0),
	})
	if err != nil {
		if strings.HasPrefix(err.Error(), "fusermount exited") {
			err = errFusermount
		}
		return nil, err
	}
	f.begin(server)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Serve()
	}()
	return ended, nil
}
