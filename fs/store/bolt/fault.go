package bolt

import (
	"errors"
	"fmt"
	"os"
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

// outOfRoom says that err is from growing the file or from writing to it, which
// comes before anything that a transaction does to what is there already. An
// error of a sync never is: after it the page cache may lie.
func outOfRoom(err error) bool {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return true
	}
	var write *os.PathError
	if errors.As(err, &write) && write.Op == "write" {
		return isAny(write.Err, noRoom[:])
	}
	return growFailed(err)
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
	if !strings.HasPrefix(err.Error(), "file resize error: ") {
		return false
	}
	for _, e := range noRoom {
		if strings.HasSuffix(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}
