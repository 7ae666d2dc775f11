package errs_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"meta9/fs/errs"
)

// kinds is every kind there is: TooBig is the last.
func kinds() []errs.Kind {
	var list []errs.Kind
	for k := errs.Kind(1); k <= errs.TooBig; k++ {
		list = append(list, k)
	}
	return list
}

// twins are the kinds that have their text from another one, and why it is the
// other that the text is read as: a client cannot tell them apart in 9P2000.
var twins = map[errs.Kind]errs.Kind{
	errs.Gone:  errs.NotFound, // to a plain client a removed file does not exist
	errs.Moved: errs.Stale,    // and one that is at another host has gone as one that could not be restored
}

func TestTexts(t *testing.T) {
	seen := map[string]errs.Kind{}
	for _, k := range kinds() {
		first, taken := seen[k.Text()]
		switch {
		case k.Text() == "":
			t.Errorf("kind %d has no text", k)
		case taken && twins[k] != first:
			t.Errorf("%q is the text of %d and %d", k.Text(), first, k)
		case !taken && twins[k] != 0:
			t.Errorf("%q is no longer a twin", k.Text())
		}
		if !taken {
			seen[k.Text()] = k
		}
		if k.Error() != k.Text() {
			t.Errorf("%q is the error %q", k.Text(), k.Error())
		}
	}
}

func TestFromText(t *testing.T) {
	for _, k := range kinds() {
		want := k
		if twin, ok := twins[k]; ok {
			want = twin
		}
		for _, text := range []string{k.Text(), k.Text() + ": why", k.Text() + ":"} {
			if got := errs.FromText(text); got != want {
				t.Errorf("%q is %q", text, got)
			}
		}
		for _, text := range []string{"x" + k.Text(), k.Text() + " why", k.Text()[1:]} {
			if got := errs.FromText(text); got != 0 {
				t.Errorf("%q is %q", text, got)
			}
		}
	}
	if got := errs.FromText(""); got != 0 {
		t.Errorf("no text is %q", got)
	}
}

// TestTable is the table of the protocol notes: the texts that Linux's client
// maps to these errnos by exact match.
func TestTable(t *testing.T) {
	for _, c := range []struct {
		kind  errs.Kind
		text  string
		u, dl linux.Errno
	}{
		{errs.NotFound, "file does not exist", linux.ENOENT, linux.ENOENT},
		{errs.Exists, "file already exists", linux.EEXIST, linux.EEXIST},
		{errs.Permission, "permission denied", linux.EACCES, linux.EACCES},
		{errs.NotPermitted, "Operation not permitted", linux.EPERM, linux.EPERM},
		{errs.WstatProhibited, "wstat prohibited", linux.EPERM, linux.EPERM},
		{errs.NotDir, "not a directory", linux.ENOTDIR, linux.ENOTDIR},
		{errs.IsDir, "Is a directory", linux.EISDIR, linux.EISDIR},
		{errs.NotEmpty, "directory is not empty", linux.ENOTEMPTY, linux.ENOTEMPTY},
		{errs.NameTooLong, "File name too long", linux.ENAMETOOLONG, linux.ENAMETOOLONG},
		{errs.Invalid, "Invalid argument", linux.EINVAL, linux.EINVAL},
		{errs.TooLarge, "File too large", linux.EFBIG, linux.EFBIG},
		{errs.NoSpace, "No space left on device", linux.ENOSPC, linux.ENOSPC},
		{errs.Quota, "Disk quota exceeded", linux.EDQUOT, linux.EDQUOT},
		{errs.TooManyFids, "Too many open files", linux.EMFILE, linux.EMFILE},
		{errs.ReadOnly, "read only file system", linux.EROFS, linux.EROFS},
		{errs.Unsupported, "Operation not supported", linux.EOPNOTSUPP, linux.EOPNOTSUPP},
		{errs.UnknownFid, "fid unknown or out of range", linux.EBADF, linux.EBADF},
		{errs.FidInUse, "fid already in use", linux.EBADF, linux.EBADF},
		{errs.BadUse, "bad use of fid", linux.EBADF, linux.EBADF},
		{errs.BadOffset, "bad offset in directory read", linux.ESPIPE, linux.ESPIPE},
		{errs.Gone, "file does not exist", linux.ENOENT, linux.ESTALE},
		{errs.Stale, "file has been removed", linux.EIDRM, linux.ESTALE},
		{errs.Moved, "file has been removed", linux.ESTALE, linux.ESTALE},
		{errs.IO, "i/o error", linux.EIO, linux.EIO},
		{errs.Busy, "Device or resource busy", linux.EBUSY, linux.EBUSY},
		{errs.Again, "Resource temporarily unavailable", linux.EAGAIN, linux.EAGAIN},
		{errs.Interrupted, "Interrupted system call", linux.EINTR, linux.EINTR},
		{errs.AuthFailed, "authentication failed", linux.ECONNREFUSED, linux.ECONNREFUSED},
		{errs.Protocol, "protocol botch", linux.EPROTO, linux.EPROTO},
		{errs.Canceled, "Operation canceled", linux.ECANCELED, linux.ECANCELED},
		{errs.CannotResume, "cannot recover", linux.ESTALE, linux.ESTALE},
		{errs.TooBig, "too big", linux.EMSGSIZE, linux.EMSGSIZE},
	} {
		if got := c.kind.Text(); got != c.text {
			t.Errorf("%q, want %q", got, c.text)
		}
		if c.kind.Errno() != c.u || c.kind.ErrnoL() != c.dl {
			t.Errorf("%s: errno %d and %d, want %d and %d", c.text, c.kind.Errno(), c.kind.ErrnoL(), c.u, c.dl)
		}
	}
}

// TestNoKind: what is no kind is answered as a failure of ours.
func TestNoKind(t *testing.T) {
	for _, k := range []errs.Kind{0, errs.TooBig + 1, 255} {
		if k.Text() != "i/o error" || k.Errno() != linux.EIO || k.ErrnoL() != linux.EIO {
			t.Errorf("kind %d is %q, %d, %d", k, k.Text(), k.Errno(), k.ErrnoL())
		}
	}
}

func TestErrors(t *testing.T) {
	made := errs.New(errs.NoSpace, "%d bytes is the limit", 7)
	wrapped := fmt.Errorf("vm x: %w", made)
	for _, c := range []struct {
		err          error
		kind         errs.Kind
		text, detail string
	}{
		{made, errs.NoSpace, "No space left on device: 7 bytes is the limit", "7 bytes is the limit"},
		{wrapped, errs.NoSpace, "vm x: No space left on device: 7 bytes is the limit", "7 bytes is the limit"},
		{errs.NotFound, errs.NotFound, "file does not exist", ""},
		{fmt.Errorf("a: %w", errs.NotFound), errs.NotFound, "a: file does not exist", "a: file does not exist"},
		{io.ErrUnexpectedEOF, errs.IO, "unexpected EOF", "unexpected EOF"},
	} {
		if c.err.Error() != c.text || errs.KindOf(c.err) != c.kind || errs.Detail(c.err) != c.detail {
			t.Errorf("%q: kind %q, detail %q", c.err, errs.KindOf(c.err), errs.Detail(c.err))
		}
	}
	if !errors.Is(wrapped, errs.NoSpace) || errors.Is(wrapped, errs.NotFound) {
		t.Error("errors.Is does not find the kind, or another")
	}
	var e *errs.Error
	if !errors.As(wrapped, &e) || e.Kind != errs.NoSpace {
		t.Error("errors.As does not find the Error")
	}
	if errs.Detail(nil) != "" {
		t.Error("no error has a detail")
	}
}

// TestFromErrno: the kind that is found has the errno, and every errno is found.
func TestFromErrno(t *testing.T) {
	for _, k := range kinds() {
		if got := errs.FromErrno(k.ErrnoL()); got.ErrnoL() != k.ErrnoL() || got > k {
			t.Errorf("%d (%q) is %q", k.ErrnoL(), k, got)
		}
	}
	if got := errs.FromErrno(0); got != 0 {
		t.Errorf("0 is %q", got)
	}
	if got := errs.FromErrno(linux.ESTALE); got != errs.Gone {
		t.Errorf("ESTALE is %q", got)
	}
}
