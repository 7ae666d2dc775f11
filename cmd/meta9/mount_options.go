//go:build linux

package main

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"meta9/fs/vm"
)

const mountOptionsHelp = `version=9p2000.L, 9p2000.u or 9p2000   the dialect (9p2000.L; by FUSE no other)
cache=none, mmap, loose, fscache, ...  what the kernel may keep (none; by FUSE nothing else)
msize=BYTES                            the largest message, 4096 to 1048576 (131072)
aname=PATH                             mount that part of the tree
uid=N, gid=N, mode=OCTAL               who owns the files, and their mode (folders get x for r);
                                       without them what the VM's 9p_uid, 9p_gid, 9p_mode say
umask=OCTAL, allow_other               bits that no mode has; other users may in (root's mounts let
                                       them in by themselves): by FUSE only
nocache                                ask the host each time: by FUSE what the host has told is kept
                                       until an event says that it has changed
access=, uname=, dfltuid=, dfltgid=, posixacl, context=, ...   as v9fs has them
ro, noexec, nosuid, nodev, noatime, sync, dirsync, ...         as everywhere
mumble=FILE, cert=FILE, key=FILE, ca=FILE   as the options of all commands
_netdev, nofail, defaults, auto, user, x-..., comment=...      are not looked at`

// mountOptions is what -o says.
type mountOptions struct {
	flags   uintptr  // MS_ of mount(2)
	data    []string // for v9fs
	version string   // of v9fs: 9p2000.L
	msize   uint32

	mumble, cert, key, ca string // files

	aname          string
	uid, gid, mode string // how files look; "": as the host says

	words      []string // the general options, as they were given
	umask      string   // octal; "": 0
	allowOther bool
	noCache    bool
}

const (
	// defaultMsize is what Linux takes by itself. It allocates every message in one
	// piece: with 512 KiB and more, a guest of 128 MiB whose memory is in pieces gets
	// ENOMEM for reads and writes that would have worked.
	defaultMsize = 128 << 10
	minMsize     = 4096
	maxMsize     = 1 << 20 // Linux's own limit for trans=fd
)

// generalOptions are those of every file system: the flags that each sets, or
// clears if clear says so.
var generalOptions = map[string]struct {
	flag  uintptr
	clear bool
}{
	"ro": {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true},
	"noexec": {unix.MS_NOEXEC, false}, "exec": {unix.MS_NOEXEC, true},
	"nosuid": {unix.MS_NOSUID, false}, "suid": {unix.MS_NOSUID, true},
	"nodev": {unix.MS_NODEV, false}, "dev": {unix.MS_NODEV, true},
	"noatime": {unix.MS_NOATIME, false}, "atime": {unix.MS_NOATIME, true},
	"nodiratime": {unix.MS_NODIRATIME, false}, "diratime": {unix.MS_NODIRATIME, true},
	"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
	"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true},
	"nosymfollow": {unix.MS_NOSYMFOLLOW, false}, "symfollow": {unix.MS_NOSYMFOLLOW, true},
	"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true},
	"dirsync": {unix.MS_DIRSYNC, false},
	"mand":    {unix.MS_MANDLOCK, false}, "nomand": {unix.MS_MANDLOCK, true},
	"iversion": {unix.MS_I_VERSION, false}, "noiversion": {unix.MS_I_VERSION, true},
	"lazytime": {unix.MS_LAZYTIME, false}, "nolazytime": {unix.MS_LAZYTIME, true},
	"silent": {unix.MS_SILENT, false}, "loud": {unix.MS_SILENT, true},
}

// otherPrograms' options are read by mount(8), systemd and the like.
var otherPrograms = []string{"defaults", "_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "owner", "group", "comment"}

// kernelOptions are v9fs's own, and those of the kernel's security modules.
var kernelOptions = []string{
	"cache", "access", "uname", "dfltuid", "dfltgid", "posixacl", "debug", "cachetag", "locktimeout",
	"noextend", "nodevmap", "noxattr", "ignoreqv", "directio", "afid",
	"context", "fscontext", "defcontext", "rootcontext", "smackfsdef", "smackfsroot",
}

// keeperOptions would make another transport than the keeper's.
var keeperOptions = []string{"trans", "port", "rfdno", "wfdno", "rq", "sq", "timeout", "privport"}

// otherActions are no mounting.
var otherActions = []string{"remount", "bind", "rbind", "move"}

// parseMountOptions reads -o. sloppy: what nobody knows is left out.
func parseMountOptions(list string, sloppy bool) (mountOptions, error) {
	o := mountOptions{version: "9p2000.L", msize: defaultMsize, data: []string{"cache=none"}}
	for _, word := range strings.Split(list, ",") {
		if err := o.parse(word, sloppy); err != nil {
			return o, err
		}
	}
	return o, o.checkLook()
}

// checkLook refuses what the host would refuse once the kernel mounts, when it could
// only say EINVAL.
func (o *mountOptions) checkLook() error {
	for name, id := range map[string]string{"uid": o.uid, "gid": o.gid} {
		if _, ok := vm.ParseID(id); id != "" && !ok {
			return misused("-o %s=%s: a number from 0 to %d", name, id, uint32(vm.MaxID))
		}
	}
	if _, ok := vm.ParseMode(o.mode); o.mode != "" && !ok {
		return misused("-o mode=%s: three or four octal digits, up to 0777", o.mode)
	}
	if _, err := strconv.ParseUint(o.umask, 8, 9); o.umask != "" && err != nil {
		return misused("-o umask=%s: octal digits, up to 0777", o.umask)
	}
	return nil
}

// ownedBy makes the files a user's, unless the options say whose they are: the kernel
// would let nobody else than root in otherwise.
func (o *mountOptions) ownedBy(uid, gid int) {
	if o.uid == "" {
		o.uid = strconv.Itoa(uid)
	}
	if o.gid == "" {
		o.gid = strconv.Itoa(gid)
	}
}

// fuse refuses what goes with a mount by v9fs alone; v9fs what goes with FUSE alone.
func (o *mountOptions) fuse() error {
	for _, word := range o.data {
		if word != "cache=none" {
			return misused("-o %s: an option of the kernel's 9P client, and this mount is by FUSE", word)
		}
	}
	if o.version != "9p2000.L" {
		return misused("-o version=%s: a mount by FUSE speaks 9p2000.L", o.version)
	}
	return nil
}

func (o *mountOptions) v9fs() error {
	if o.umask != "" || o.allowOther {
		return misused("-o umask= and allow_other go with --fuse; for the kernel's 9P client there are mode= and access=")
	}
	if last := o.data[len(o.data)-1]; o.noCache && strings.HasPrefix(last, "cache=") && last != "cache=none" {
		return misused("-o nocache and %s: one of them", last)
	}
	return nil
}

// look are the options for v9fs that make files look as uid, gid and mode want. An
// aname is all that reaches the host from a mount; plain 9P2000 has no numbers, so
// that there the kernel itself must be told.
func (o *mountOptions) look() (data []string) {
	for _, word := range []struct{ value, plain string }{{o.uid, "dfltuid"}, {o.gid, "dfltgid"}} {
		if word.value != "" && o.version == "9p2000" {
			data = append(data, word.plain+"="+word.value)
		}
	}
	if aname := o.fullAname(); aname != "" {
		data = append(data, "aname="+aname)
	}
	return data
}

// fullAname is what the host is told, and how files are to look.
func (o *mountOptions) fullAname() (aname string) {
	for _, word := range []struct{ name, value string }{{"uid", o.uid}, {"gid", o.gid}, {"mode", o.mode}} {
		if word.value != "" {
			aname += word.name + "=" + word.value + "/"
		}
	}
	return aname + strings.TrimPrefix(o.aname, "/")
}

// parse reads one option.
func (o *mountOptions) parse(word string, sloppy bool) error {
	name, value, _ := strings.Cut(word, "=")
	general, ok := generalOptions[name]
	switch {
	case word == "", slices.Contains(otherPrograms, name), strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"):
	case ok && general.clear:
		o.flags &^= general.flag
		o.words = append(o.words, word)
	case ok:
		o.flags |= general.flag
		o.words = append(o.words, word)
	case word == "allow_other":
		o.allowOther = true
	case word == "nocache":
		o.noCache = true
	case name == "version":
		return o.setVersion(value)
	case name == "msize":
		return o.setMsize(value)
	case slices.Contains(kernelOptions, name):
		o.data = append(o.data, word) // of several, the kernel takes the last
	case o.own(name) != nil:
		*o.own(name) = value
	case slices.Contains(keeperOptions, name):
		return misused("-o %s: 'meta9 mount' makes the transport itself", word)
	case slices.Contains(otherActions, name):
		return misused("-o %s: not of a mount of meta9's; umount and mount again", word)
	case !sloppy:
		return misused("-o %s: there is no such option", word)
	}
	return nil
}

// own is where the value of an option of meta9's goes; nil: it is none.
func (o *mountOptions) own(name string) *string {
	switch name {
	case "mumble":
		return &o.mumble
	case "cert":
		return &o.cert
	case "key":
		return &o.key
	case "ca":
		return &o.ca
	case "aname":
		return &o.aname
	case "uid":
		return &o.uid
	case "gid":
		return &o.gid
	case "mode":
		return &o.mode
	case "umask":
		return &o.umask
	}
	return nil
}

func (o *mountOptions) setVersion(s string) error {
	if !slices.Contains([]string{"9p2000.L", "9p2000.u", "9p2000"}, s) {
		return misused("-o version=%s: it is 9p2000.L, 9p2000.u or 9p2000", s)
	}
	o.version = s
	return nil
}

func (o *mountOptions) setMsize(s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < minMsize || n > maxMsize {
		return misused("-o msize=%s: from %d to %d", s, minMsize, maxMsize)
	}
	o.msize = uint32(n)
	return nil
}

// dialect is version as 9P has it.
func (o *mountOptions) dialect() string { return "9P" + strings.TrimPrefix(o.version, "9p") }
