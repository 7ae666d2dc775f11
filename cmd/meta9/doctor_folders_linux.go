//go:build !guest

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// checkFolders looks at the run folder and the data folder.
func (e *examination) checkFolders() {
	if st, err := statOf(e.run); err == nil {
		e.checkOwner(e.run, st)
		if st.Mode&0o022 != 0 {
			e.found(fmt.Sprintf("others can write to the run folder %s (mode %04o), and put sockets of their own there", e.run, st.Mode&0o7777), "chmod 0755 "+e.run)
		}
		e.checkAbove(e.run)
		e.checkRoom(e.run, runRoom, "sessions would not outlive a kill, and new VMs get no sockets")
	} else if e.up() {
		e.unseen("the run folder: %v", err)
	}
	if e.data == "" {
		return // all is in memory
	}
	st, err := statOf(e.data)
	switch {
	case errors.Is(err, os.ErrNotExist) && !e.up():
		return // nothing says that it is meta9d's
	case err != nil:
		e.unseen("the data folder: %v", err)
		return
	}
	e.checkOwner(e.data, st)
	switch {
	case st.Mode&0o022 != 0:
		e.found(fmt.Sprintf("others can write to the data folder %s (mode %04o)", e.data, st.Mode&0o7777), "chmod 0700 "+e.data)
	case st.Mode&0o005 == 0o005 || st.Mode&0o050 == 0o050:
		e.checkReadable(st.Mode)
	}
	e.checkAbove(e.data)
	e.checkRoom(e.data, dataRoom, "writes are refused when it is full")
	e.checkClock()
	e.checkAside()
}

// statOf is what the system knows of a file.
func statOf(path string) (st unix.Stat_t, err error) {
	err = unix.Stat(path, &st)
	if err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, err
}

// checkOwner finds a folder that is neither root's nor meta9d's user's.
func (e *examination) checkOwner(dir string, st unix.Stat_t) {
	if e.uid >= 0 && st.Uid != 0 && int(st.Uid) != e.uid {
		e.found(fmt.Sprintf("%s belongs to user %d, who is neither root nor meta9d's user %d, and can change all that is in it", dir, st.Uid, e.uid), fmt.Sprintf("chown %d %s", e.uid, dir))
	}
}

// checkAbove finds a folder above dir that lets others put another folder in its place.
func (e *examination) checkAbove(dir string) {
	for dir != "/" && dir != "." {
		dir = filepath.Dir(dir)
		if st, err := statOf(dir); err == nil && st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
			e.found(fmt.Sprintf("others can write to %s (mode %04o), and put other folders in place of meta9d's", dir, st.Mode&0o7777), "chmod o-w "+dir)
			return
		}
	}
}

// checkReadable finds data files that others can read.
func (e *examination) checkReadable(folder uint32) {
	files, _ := filepath.Glob(filepath.Join(e.data, "*"))
	for _, file := range files {
		st, err := statOf(file)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o044 != 0 && (st.Mode&0o004 != 0 && folder&0o001 != 0 || st.Mode&0o040 != 0 && folder&0o010 != 0) {
			e.found(fmt.Sprintf("others can read %s (mode %04o), which has the secrets of all VMs", file, st.Mode&0o7777), "chmod 0700 "+e.data+"; chmod 0600 "+file)
			return
		}
	}
}

// checkRoom finds a file system that is full, or nearly.
func (e *examination) checkRoom(dir string, least uint64, then string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		e.unseen("the room in %s: %v", dir, err)
		return
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < least {
		e.found(fmt.Sprintf("the disk of %s has only %s free: %s", dir, size(int64(free)), then), "make room there: "+size(int64(least))+" at least")
	}
	if fs.Files > 0 && fs.Ffree == 0 {
		e.found(fmt.Sprintf("the disk of %s has no inode free: %s", dir, then), "remove files there")
	}
}

// checkClock finds a clock that is behind: revisions, and the times of data files, are no
// later than now otherwise.
func (e *examination) checkClock() {
	now := time.Now()
	newest := time.UnixMicro(e.number("rev")) // a store begins with the time, and makes far fewer a second
	files, _ := filepath.Glob(filepath.Join(e.data, "meta9.*"))
	for _, file := range files {
		if i, err := os.Stat(file); err == nil && i.ModTime().After(newest) {
			newest = i.ModTime()
		}
	}
	if behind := newest.Sub(now); behind > clockSlack {
		e.found(fmt.Sprintf("the clock is behind by %v or more: the data folder is of %s", behind.Round(time.Second), newest.UTC().Format(time.RFC3339)),
			"set the clock (timedatectl set-ntp true, chronyc makestep): MUMBLE messages, certificates and the times of keys go by it")
	}
}

// checkAside finds what a start has set aside, since it could not be used.
func (e *examination) checkAside() {
	left, _ := filepath.Glob(filepath.Join(e.data, "residence.aside-*"))
	more, _ := filepath.Glob(filepath.Join(e.run, "journal.aside"))
	if left = append(left, more...); len(left) > 0 {
		e.found(many(len(left), "a start has set aside "+left[0]+", and with it sessions"), "see in the log why, and remove it")
	}
}
