//go:build !guest

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/client"
)

// ownSockets are the sockets that each VM has in the run folder.
var ownSockets = []string{"9p.sock", "link.sock", "mdata.sock"}

// checkSockets finds VMs whose sockets, or folders, are not as meta9d makes them.
func (e *examination) checkSockets(ctx context.Context) {
	if e.number("vm_sockets") == 0 {
		return
	}
	missing := e.missingSockets(e.vms)
	if len(missing) > 0 {
		// meta9d may be making them at this moment; and the VM may just have been deleted.
		select {
		case <-ctx.Done():
			return
		case <-time.After(healTime):
		}
		missing = e.stillThere(ctx, e.missingSockets(missing))
	}
	if len(missing) > 0 {
		dir := filepath.Join(e.run, missing[0].word("uuid"))
		e.found(many(len(missing), "sockets of VM "+missing[0].word("uuid")+" are missing in "+dir+": a guest cannot be connected there"),
			"see in the log what is in their way (journalctl -u meta9d | grep -F "+dir+"), and remove that: meta9d makes them again")
	}
	for _, v := range e.vms {
		dir := filepath.Join(e.run, v.word("uuid"))
		if st, err := statOf(dir); err == nil && st.Mode&0o022 != 0 {
			e.found(fmt.Sprintf("others can write to the folder of VM %s, %s (mode %04o), and put sockets of their own there", v.word("uuid"), dir, st.Mode&0o7777), "chmod g-w,o-w "+dir)
		}
	}
}

// missingSockets are those of vms that have not all of their sockets.
func (e *examination) missingSockets(vms []listed) (missing []listed) {
	sockets := e.daemonSockets()
	for _, v := range vms {
		for _, name := range ownSockets {
			path := filepath.Join(e.run, v.word("uuid"), name)
			i, err := os.Lstat(path)
			if errors.Is(err, os.ErrPermission) {
				e.unseen("the sockets of VMs in %s: run doctor as root", e.run)
				return nil
			}
			if err != nil || i.Mode().Type() != os.ModeSocket || sockets != nil && e.pid > 0 && !sockets.boundBy(e.pid, path).listening() {
				missing = append(missing, v)
				break
			}
		}
	}
	return missing
}

// stillThere are those of vms that meta9d still has.
func (e *examination) stillThere(ctx context.Context, vms []listed) (there []listed) {
	if len(vms) == 0 {
		return nil
	}
	c, err := e.connect(ctx, client.Options{})
	if err != nil {
		return vms
	}
	defer c.Close()
	for _, v := range vms {
		if _, err := c.Stat(ctx, vmPath(v.word("uuid"))); !errors.Is(err, errs.NotFound) {
			there = append(there, v)
		}
	}
	return there
}

// qemuProcess is a QEMU that runs on this host.
type qemuProcess struct {
	pid     int
	uuid    string   // "": it has none
	sockets []string // the paths of unix sockets in its arguments
	servers []string // those of them on which it listens
}

// runningQEMUs finds QEMUs by the names of their programs.
func runningQEMUs() (all []qemuProcess, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue // it has ended, or is the kernel's
		}
		if q := readQEMU(strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")); q != nil {
			q.pid = pid
			all = append(all, *q)
		}
	}
	return all, nil
}

// socketArg is a unix socket in an argument of a QEMU: path=PATH of -chardev, unix:PATH of
// others. QEMU writes a comma in a path as two.
var socketArg = regexp.MustCompile(`(?:^unix:|,path=)(/(?:[^,]|,,)*)`)

// readQEMU reads the command line of a process; nil: it is no QEMU's.
func readQEMU(args []string) *qemuProcess {
	name := filepath.Base(args[0])
	if !strings.HasPrefix(name, "qemu-system-") && name != "qemu-kvm" && name != "kvm" {
		return nil
	}
	q := new(qemuProcess)
	for i, arg := range args {
		if i > 0 && (args[i-1] == "-uuid" || args[i-1] == "--uuid") {
			q.uuid, _ = vm.ParseUUID(arg)
		}
		for _, m := range socketArg.FindAllStringSubmatch(arg, -1) {
			path := strings.ReplaceAll(m[1], ",,", ",")
			q.sockets = append(q.sockets, path)
			if strings.Contains(arg, ",server") && !strings.Contains(arg, "server=off") {
				q.servers = append(q.servers, path)
			}
		}
	}
	return q
}

// checkQEMUs looks at each QEMU, and at the VM that it is.
func (e *examination) checkQEMUs() {
	ours := map[string]bool{}
	for _, v := range e.vms {
		ours[v.word("uuid")] = true
	}
	running := map[string]int{} // the processes, by UUID
	for _, q := range e.qemus {
		if q.uuid == "" {
			continue
		}
		if first, ok := running[q.uuid]; ok && ours[q.uuid] {
			e.found(fmt.Sprintf("two QEMUs have the UUID %s, the processes %d (user %s) and %d (user %s): if both are QEMUs, both are this VM, with its secrets", q.uuid, first, processUser(first), q.pid, processUser(q.pid)),
				"end one of them, or give one another -uuid")
		}
		running[q.uuid] = q.pid
	}
	for _, q := range e.qemus {
		e.checkClient(&q)
	}
	for _, v := range e.vms {
		pid, ok := running[v.word("uuid")]
		if !ok {
			continue // it is switched off, or runs elsewhere
		}
		for _, name := range []string{vm.Prop9PChardev, vm.PropMdataChardev} {
			if text := v.word(name); text != "" {
				e.checkDevice(v, pid, name, strings.TrimSuffix(strings.TrimPrefix(text, "unix:"), ",link"))
			}
		}
	}
}

// checkDevice looks at a socket of the VM's QEMU to which meta9d is to connect.
func (e *examination) checkDevice(v listed, pid int, property, path string) {
	uuid := v.word("uuid")
	said := fmt.Sprintf("VM %s runs (process %d), but its %s, %s, ", uuid, pid, property, path)
	mend := "give the QEMU a socket there ('meta9 vm attach " + uuid + "' prints the lines; libvirt: --live), or correct " + property
	i, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrPermission):
		e.unseen("%s of VM %s: %v", property, uuid, err)
	case err != nil:
		e.found(said+"is not there", mend)
	case i.Mode().Type() != os.ModeSocket:
		e.found(said+"is no socket", mend)
	}
	if err != nil || i.Mode().Type() != os.ModeSocket {
		return
	}
	its, ours := e.sockets(pid), e.daemonSockets()
	switch {
	case its != nil && !its.boundBy(pid, path).listening():
		e.found(said+"is one on which nobody listens", mend)
	case e.pid > 0 && ours != nil && ours.boundBy(pid, path).connected == 0:
		e.found(said+"is not connected to meta9d", "see why in the log (journalctl -u meta9d), and whether another client has it")
	}
}

// checkClient looks at the sockets of meta9d that a QEMU is to connect to: whether its user
// may, and whether it has.
func (e *examination) checkClient(q *qemuProcess) {
	run := withoutLinks(e.run)
	for _, path := range q.sockets {
		uuid := filepath.Base(filepath.Dir(path))
		if vm.ValidUUID(uuid) != nil || withoutLinks(filepath.Dir(filepath.Dir(path))) != run {
			continue
		}
		if q.uuid != "" && q.uuid != uuid {
			e.found(fmt.Sprintf("the QEMU of VM %s (process %d) has the socket of another VM, %s", q.uuid, q.pid, path), "give it "+filepath.Join(e.run, q.uuid, filepath.Base(path)))
			continue
		}
		who, err := q.may(path)
		its := e.sockets(q.pid)
		switch {
		case errors.Is(err, errNotAsked):
			e.unseen("whether the QEMU of VM %s may open %s: run doctor as root", uuid, path)
		case errors.Is(err, unix.ENOENT):
			e.found(fmt.Sprintf("the QEMU of VM %s (process %d) does not see %s: it is missing, or not in the mounts of the QEMU", uuid, q.pid, path),
				"if it is there, mount "+e.run+" where the QEMU runs")
		case err != nil:
			e.found(fmt.Sprintf("the QEMU of VM %s (process %d), user %s, may not open %s: %v", uuid, q.pid, who, path, err),
				fmt.Sprintf("meta9 vm update %s 9p_owner=%s, and let that user enter %s", uuid, who, e.run))
		case e.up() && its != nil && its.boundBy(e.pid, path).connected == 0:
			e.found(fmt.Sprintf("the QEMU of VM %s (process %d) is not connected to %s", uuid, q.pid, path),
				"add reconnect=1 to its -chardev (from QEMU 9.2 on reconnect-ms=1000) and start it anew; 'meta9 vm attach "+uuid+"' prints the line")
		}
	}
}

// errNotAsked is why it is not known whether somebody may open a file.
var errNotAsked = errors.New("only root can ask that")

// may asks the system whether the QEMU's user may connect to the socket at path, as the
// QEMU sees it: through its own mounts, with ACLs and groups. who is that user.
//
// A thread of this process takes the user's identity for files (setfsuid(2)) and ends
// after it. What an AppArmor or SELinux policy forbids the QEMU is not seen.
func (q *qemuProcess) may(path string) (who string, err error) {
	uid, gid, groups, err := identity(q.pid)
	if err != nil {
		return "", err
	}
	who = userName(uid)
	if os.Geteuid() != 0 {
		if uid != os.Geteuid() {
			return who, errNotAsked
		}
		return who, unix.Access(path, unix.W_OK)
	}
	asked := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		asked <- q.ask(uid, gid, groups, path)
	}()
	return who, <-asked
}

// ask is may, in a thread that is not used any more after it.
func (q *qemuProcess) ask(uid, gid int, groups []int, path string) error {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", q.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := asUser(uid, gid, groups); err != nil {
		return fmt.Errorf("%w: %v", errNotAsked, err)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(root, path, &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Faccessat2(fd, "", unix.W_OK, unix.AT_EACCESS|unix.AT_EMPTY_PATH)
}

// asUser makes this thread, and no other, the user's as far as files are concerned; with
// root's number go root's capabilities for files (capabilities(7)).
func asUser(uid, gid int, groups []int) error {
	if err := unix.Setgroups(groups); err != nil {
		return err
	}
	if err := unix.Setfsgid(gid); err != nil {
		return err
	}
	return unix.Setfsuid(uid)
}

// userName is the user's name, or number.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// processUser is the name of a process' user.
func processUser(pid int) string {
	uid, _, _, err := identity(pid)
	if err != nil {
		return "not known"
	}
	return userName(uid)
}

// identity is the user and the groups by which the system judges the process' files. The
// owner of its folder in /proc is root also where the process forbids to be looked at
// (PR_SET_DUMPABLE), and says nothing.
func identity(pid int) (uid, gid int, groups []int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, nil, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		words := strings.Fields(rest)
		switch name {
		case "Uid": // real, effective, saved, for files
			uid, err = strconv.Atoi(words[3])
		case "Gid":
			gid, err = strconv.Atoi(words[3])
		case "Groups":
			for _, word := range words {
				n, _ := strconv.Atoi(word)
				groups = append(groups, n)
			}
		}
		if err != nil {
			return 0, 0, nil, err
		}
	}
	return uid, gid, groups, nil
}
