package bolt

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"syscall"

	berrors "go.etcd.io/bbolt/errors"
)

// guard turns a panic, and a fault in the memory map, into an error. Use:
//
//	defer guard(&err)()
func guard(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = fmt.Errorf("damaged: %v", r)
		}
	}
}

// noRoom is what a write that finds no room ends with.
var noRoom = [...]error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}

// outOfRoom says that err is that there was no room: to make the file longer, to write
// to it, or, where the file system says so no earlier, at a sync. Whether the file is as
// it was before is another question (Engine.before): bbolt syncs the pages of a
// transaction, which take the place of free ones, before it writes the page that makes
// them count. What memory has of them after a failed sync nobody reads before it is
// written anew.
func outOfRoom(err error) bool {
	return errors.Is(err, berrors.ErrMaxSizeReached) || isAny(err, noRoom[:]) || growFailed(err)
}

func isAny(err error, targets []error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// growFailed knows the error of a file that could not be made longer by its
// text: bbolt formats it (db.go, grow).
func growFailed(err error) bool {
	if text := err.Error(); !strings.HasPrefix(text, "file resize error: ") && !strings.HasPrefix(text, "file sync error: ") {
		return false
	}
	for _, e := range noRoom {
		if strings.HasSuffix(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}
