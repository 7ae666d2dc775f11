// Package errs is the closed list of error kinds that meta9 answers with. One
// table gives each kind its exact 9P2000 text (which Linux maps back to an
// errno by exact match, see net/9p/error.c) and its Linux errno.
//
// A Kind is itself an error, so errors.Is(err, errs.NotFound) works; Error adds
// a detail for people. Nothing here is mutable: the package has no locks.
package errs

import (
	"errors"
	"fmt"

	"github.com/hugelgupf/p9/linux"
)

// Kind is one row of the table of error kinds. The zero Kind is no error kind.
type Kind uint8

// The kinds. The comment says when; the table below says what a client sees.
const (
	_               Kind = iota
	NotFound             // there is no such name
	Exists               // the name is taken
	Permission           // this principal may not
	NotPermitted         // nobody may
	WstatProhibited      // nobody may change this with wstat
	NotDir               // a folder is needed here
	IsDir                // a file is needed here
	NotEmpty             // the folder has entries
	NameTooLong          // a name is longer than 255 bytes
	Invalid              // an argument is out of its range, or a name is no name
	TooLarge             // the value is past its limit
	NoSpace              // the VM, the daemon or the disk is full
	Quota                // too many keys
	TooManyFids          // the connection has too many fids
	ReadOnly             // a read-only place
	CrossDevice          // a rename to another folder; a program copies instead
	Unsupported          // not in this server
	UnknownFid           // no such fid
	FidInUse             // the fid is taken
	BadUse               // the fid is not open, or open in another way
	BadOffset            // no such offset in a folder
	Gone                 // the file was removed while this fid had it open
	Stale                // the fid could not be restored
	Moved                // another host owns the VM now
	IO                   // storage failed, or an upstream is silent
	Busy                 // in use
	Again                // nothing is ready now
	Interrupted          // flushed
	AuthFailed           // not authenticated
	Protocol             // a malformed message
	Canceled             // a condition of a transaction does not hold
	CannotResume         // Tsession: no such session for this principal
	TooBig               // a macro's answer does not fit a message
	numKinds
)

// row is what a client sees of a kind. errnoL is the errno in 9P2000.L where it
// differs from the one in 9P2000.u.
type row struct {
	text   string
	errno  linux.Errno
	errnoL linux.Errno
}

// Moved has Stale's text, since for who reads it the file has gone. EIDRM (removed for good)
// would not be true of a VM that lives; a program that gets ESTALE opens the file anew.
var table = [numKinds]row{
	NotFound:        {text: "file does not exist", errno: linux.ENOENT},
	Exists:          {text: "file already exists", errno: linux.EEXIST},
	Permission:      {text: "permission denied", errno: linux.EACCES},
	NotPermitted:    {text: "Operation not permitted", errno: linux.EPERM},
	WstatProhibited: {text: "wstat prohibited", errno: linux.EPERM},
	NotDir:          {text: "not a directory", errno: linux.ENOTDIR},
	IsDir:           {text: "Is a directory", errno: linux.EISDIR},
	NotEmpty:        {text: "directory is not empty", errno: linux.ENOTEMPTY},
	NameTooLong:     {text: "File name too long", errno: linux.ENAMETOOLONG},
	Invalid:         {text: "Invalid argument", errno: linux.EINVAL},
	TooLarge:        {text: "File too large", errno: linux.EFBIG},
	NoSpace:         {text: "No space left on device", errno: linux.ENOSPC},
	Quota:           {text: "Disk quota exceeded", errno: linux.EDQUOT},
	TooManyFids:     {text: "Too many open files", errno: linux.EMFILE},
	ReadOnly:        {text: "read only file system", errno: linux.EROFS},
	CrossDevice:     {text: "Invalid cross-device link", errno: linux.EXDEV},
	Unsupported:     {text: "Operation not supported", errno: linux.EOPNOTSUPP},
	UnknownFid:      {text: "fid unknown or out of range", errno: linux.EBADF},
	FidInUse:        {text: "fid already in use", errno: linux.EBADF},
	BadUse:          {text: "bad use of fid", errno: linux.EBADF},
	BadOffset:       {text: "bad offset in directory read", errno: linux.ESPIPE},
	Gone:            {text: "file does not exist", errno: linux.ENOENT, errnoL: linux.ESTALE},
	Stale:           {text: "file has been removed", errno: linux.EIDRM, errnoL: linux.ESTALE},
	Moved:           {text: "file has been removed", errno: linux.ESTALE},
	IO:              {text: "i/o error", errno: linux.EIO},
	Busy:            {text: "Device or resource busy", errno: linux.EBUSY},
	Again:           {text: "Resource temporarily unavailable", errno: linux.EAGAIN},
	Interrupted:     {text: "Interrupted system call", errno: linux.EINTR},
	AuthFailed:      {text: "authentication failed", errno: linux.ECONNREFUSED},
	Protocol:        {text: "protocol botch", errno: linux.EPROTO},
	Canceled:        {text: "Operation canceled", errno: linux.ECANCELED},
	CannotResume:    {text: "cannot recover", errno: linux.ESTALE},
	TooBig:          {text: "too big", errno: linux.EMSGSIZE},
}

// Text is the exact text of the kind in a 9P2000 Rerror (protocol notes:
// docs/protocol.md; Linux: net/9p/error.c).
func (k Kind) Text() string {
	if k == 0 || k >= numKinds {
		return table[IO].text
	}
	return table[k].text
}

// Error makes a Kind an error; it is Text.
func (k Kind) Error() string { return k.Text() }

// Errno is the kind's errno in 9P2000.u.
func (k Kind) Errno() linux.Errno {
	if k == 0 || k >= numKinds {
		return linux.EIO
	}
	return table[k].errno
}

// ErrnoL is the kind's errno in 9P2000.L, which a Linux program sees as it is.
func (k Kind) ErrnoL() linux.Errno {
	if k != 0 && k < numKinds && table[k].errnoL != 0 {
		return table[k].errnoL
	}
	return k.Errno()
}

// Error is a kind with a detail for people: what was wrong, what is allowed.
type Error struct {
	Kind   Kind
	Detail string
	Size   int // of what is too big, in bytes; 0: not known
}

// Error is the kind's text, a colon and the detail.
func (e *Error) Error() string { return e.Kind.Text() + ": " + e.Detail }

// Unwrap gives the Kind, so that errors.Is finds it.
func (e *Error) Unwrap() error { return e.Kind }

// New makes an Error; the detail is formatted as by fmt.Sprintf.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Detail: fmt.Sprintf(format, args...)}
}

// Big is a TooBig for something of size bytes where room bytes fit.
func Big(size, room int) error {
	return &Error{Kind: TooBig, Detail: fmt.Sprintf("%d bytes, and %d fit", size, room), Size: size}
}

// SizeOf is the size of what err says is too big, in bytes, or 0.
func SizeOf(err error) int {
	if e, ok := err.(*Error); ok && e.Kind == TooBig {
		return e.Size
	}
	return 0
}

// KindOf finds the kind of any error. An error that carries no Kind is IO. It is
// asked on the way of every read, so that it allocates only for what others wrapped.
func KindOf(err error) Kind {
	switch err := err.(type) {
	case nil:
		return IO
	case Kind:
		return err
	case *Error:
		return err.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return IO
}

// Detail is what err says beyond its kind's text, or "".
func Detail(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Detail
	}
	if _, ok := err.(Kind); ok || err == nil {
		return ""
	}
	return err.Error()
}

// FromErrno finds the kind that a server's Rlerror names best; several have one
// errno, and the first, which is the plainest, is taken. It is 0 when none has it.
func FromErrno(e linux.Errno) Kind {
	for k := Kind(1); k < numKinds; k++ {
		if k.ErrnoL() == e {
			return k
		}
	}
	return 0
}

// FromText finds the kind that a server's Rerror text names: the whole text, or
// the part before a colon. It is 0 when no kind has that text.
func FromText(text string) Kind {
	for k := Kind(1); k < numKinds; k++ {
		t := table[k].text
		if text == t || (len(text) > len(t) && text[:len(t)] == t && text[len(t)] == ':') {
			return k
		}
	}
	return 0
}
