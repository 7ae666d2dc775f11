//go:build !guest

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"meta9/cmd/version"
	"meta9/fs/vm"
	"meta9/session/client"
)

// Bounds below which something is found.
const (
	dataRoom   = 64 << 20            // free bytes of the data folder: some segments of the log
	runRoom    = 16 << 20            // of the run folder: the journal of the sessions
	clockSlack = 5 * time.Second     // by which a file may be younger than now
	certRoom   = 14 * 24 * time.Hour // that a certificate is still good
	healTime   = 3 * time.Second     // in which meta9d makes sockets again that were taken away
)

// examination is one look at a host.
type examination struct {
	*app
	report
	status // of meta9d; empty: it does not answer
	socket string
	run    string // the run folder; "": meta9d is elsewhere
	data   string // "": there is none
	pid    int    // of meta9d; 0: not known
	uid    int    // of meta9d; -1: not known
	apart  bool   // meta9d is in a container: its paths are not ours
	vms    []listed
	qemus  []qemuProcess
	unix   map[string]unixSockets // by the network namespace; nil: they could not be read
}

// examine looks at meta9d and at this host, for as long as ctx lasts: a look at a file of a
// file system that hangs (FUSE, NFS) takes for ever, and is left behind.
func (a *app) examine(ctx context.Context, opt doctorOptions) (*report, error) {
	var r *report
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err = a.look(ctx, opt)
	}()
	select {
	case <-done:
		return r, err
	case <-ctx.Done():
		return nil, fmt.Errorf("doctor is not done in its time (--timeout); a file system of this host may hang (FUSE, NFS): %w", ctx.Err())
	}
}

// look is examine, for as long as it takes.
func (a *app) look(ctx context.Context, opt doctorOptions) (*report, error) {
	addr, err := a.address()
	if errors.Is(err, errNoSocket) || errors.Is(err, errNoEntry) {
		addr, err = systemSocket, nil
	}
	if err != nil {
		return nil, err
	}
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix && strings.Contains(addr, ":") {
		return nil, misused("doctor looks at the host that it runs on: it wants the admin's socket there, and not %s", addr)
	}
	e := &examination{app: a, socket: path, run: filepath.Dir(path), data: opt.data, uid: -1, unix: map[string]unixSockets{}}
	e.Findings, e.Unseen = []finding{}, []string{}
	e.askDaemon(ctx)
	e.checkDaemon(ctx)
	e.checkFolders()
	e.qemus, err = runningQEMUs()
	if err != nil {
		e.unseen("the QEMUs of this host: %v", err)
	}
	e.checkSockets(ctx)
	e.checkQEMUs()
	e.summary = fmt.Sprintf("all is well: meta9d %s, %d VMs, %d QEMUs", e.text("version"), len(e.vms), len(e.qemus))
	return &e.report, ctx.Err()
}

// askDaemon reads what meta9d says of itself and of its VMs.
func (e *examination) askDaemon(ctx context.Context) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", e.socket)
	if err != nil {
		switch {
		case errors.Is(err, os.ErrPermission):
			e.unseen("meta9d: you may not open %s: run doctor as root, or as a member of meta9d's admin_group", e.socket)
		case errors.Is(err, os.ErrNotExist):
			e.found("meta9d does not run: there is no "+e.socket, "start it (systemctl start meta9d), or name its socket with --addr unix:PATH")
		case errors.Is(err, syscall.ECONNREFUSED):
			e.found("meta9d does not run: nobody answers at "+e.socket, "see why it ended (journalctl -u meta9d) and start it (systemctl start meta9d)")
		default:
			e.found(fmt.Sprintf("meta9d does not answer at %s: %v", e.socket, err), "see what it says (journalctl -u meta9d), and restart it")
		}
		return
	}
	listener, uid, err := serverOf(conn.(*net.UnixConn))
	conn.Close()
	if err != nil {
		e.unseen("who serves %s: %v", e.socket, err)
		return
	}
	e.uid = uid
	if !e.trusted() {
		return // what it would say is worth nothing
	}
	c, err := e.connect(ctx, client.Options{})
	if err != nil {
		e.found(fmt.Sprintf("meta9d does not answer at %s: %v", e.socket, err), "see what it says (journalctl -u meta9d), and restart it")
		return
	}
	defer c.Close()
	if e.status, err = readStatus(ctx, c, "/ctl"); err != nil {
		e.unseen("meta9d's status: %v", err)
		return
	}
	if e.text("fleet_etcd") == "ok" {
		e.checkClaimable(ctx, c)
	}
	e.findProcess(listener)
	if e.apart = apart(e.pid); e.apart {
		e.data = ""
		e.unseen("meta9d's settings and its data folder: it is in a container or a chroot, and its paths are of there")
	} else {
		e.data = e.text("data")
		e.run = cmp.Or(e.text("run"), e.run)
	}
	e.vms, err = e.query(ctx, filepath.Join(e.run, "vminfo.sock"),
		[]string{"uuid", vm.PropAlias, vm.Prop9POwner, vm.Prop9PChardev, vm.PropMdataChardev})
	if err != nil {
		e.unseen("the VMs: %v", err)
	}
}

// trusted tells whether the process behind the socket is one that may be the admin's
// server: root's, the caller's, or that of the user who owns the data folder.
func (e *examination) trusted() bool {
	if e.uid == 0 || e.uid == os.Geteuid() {
		return true
	}
	if st, err := statOf(e.data); err == nil && int(st.Uid) == e.uid {
		return true
	}
	e.found(fmt.Sprintf("user %d serves %s, who is neither root, nor you, nor the owner of %s, and could read and change all that passes", e.uid, e.socket, e.data),
		"use another socket (--addr), or name meta9d's own data folder with --data; and see who can write to "+filepath.Dir(e.socket))
	return false
}

// up tells whether meta9d has said how it is.
func (e *examination) up() bool { return len(e.status) > 0 }

// checkDaemon looks at what meta9d says, and at its process.
func (e *examination) checkDaemon(ctx context.Context) {
	if !e.up() {
		return
	}
	if health := e.text("health"); health != "ok" {
		e.found("meta9d is not well: "+health, e.mends(health))
	}
	if here, there := version.String(), e.text("version"); here != there {
		e.found(fmt.Sprintf("meta9d is %s, and this meta9 is %s", there, here), "'meta9 upgrade' takes the meta9d that is installed, without a restart; else install both of one version")
	}
	if limit, needed := e.number("descriptors_limit"), e.number("descriptors_needed"); limit < needed {
		e.found(fmt.Sprintf("meta9d may open %d files, and needs %d when it has all connections that its limits allow, and the sockets of its VMs", limit, needed),
			fmt.Sprintf("LimitNOFILE=%d in its unit (systemctl edit meta9d), or a lower limits.connections", needed))
	}
	if bytes, limit := e.number("bytes"), e.number("bytes_limit"); limit > 0 && bytes > limit/10*9 {
		e.found(fmt.Sprintf("names and values have %s of the %s that they may have", size(bytes), size(limit)), "raise limits.bytes, or remove what nobody needs")
	}
	if from, stale := strings.CutSuffix(e.text("upstream"), " stale"); stale {
		e.found("the mirror lags: "+from+" does not answer, or its events do not come", "see whether it runs and can be reached from here, and what meta9d says (journalctl -u meta9d)")
	}
	if n := e.number("mumble_secrets_short"); n > 0 {
		e.found(many(int(n), "the MUMBLE secret of VM "+e.text("mumble_secret_short_vm")+" is too short, and proves nobody"),
			"write 16 bytes or more to its internal/mumble_secret_pw: openssl rand -hex 32")
	}
	e.checkCertificate()
	e.checkMonitors()
	e.checkProcess(ctx)
}

// mends is what mends what the health of ctl says.
func (e *examination) mends(health string) string {
	switch {
	case e.number("fleet_fenced") > 0:
		return "start meta9d anew (systemctl restart meta9d): somebody has fenced this host ('meta9 fleet fence'), and until then it is out of the fleet"
	case !strings.HasPrefix(health, "fleet: "):
		return "mend the cause and restart meta9d: until then writes are refused"
	case e.text("fleet_etcd") == "ok" && e.number("fleet_damaged") > 0:
		return "put the records back from a snapshot of etcd, or delete the VM's keys there (docs/fleet.md, \"What happens when what fails\"); the log names all such VMs"
	}
	return "see what 'meta9 fleet status' says, and whether etcd's members run and can be reached from here; meta9d goes on by itself when etcd answers"
}

// checkClaimable looks for VMs of the fleet that no living host has.
func (e *examination) checkClaimable(ctx context.Context, c *client.Client) {
	is, err := readClaimable(ctx, c)
	if err != nil {
		e.unseen("the VMs that no host of the fleet serves: %v", err)
	}
	if len(is.vms) > 0 {
		e.found("VMs of the fleet are served by no host: "+is.String(),
			"start meta9d on their host, or take them here: 'meta9 fleet where' lists them, and 'meta9 fleet claim VM' takes one")
	}
}

// checkCertificate looks how long the one of the tls listeners is still good.
func (e *examination) checkCertificate() {
	until, err := time.Parse(time.RFC3339, e.text("tls_until"))
	if err != nil {
		return // there is none
	}
	const mend = "write a new one to the files of tls.cert and tls.key, and 'systemctl reload meta9d'"
	switch left := time.Until(until); {
	case left <= 0:
		e.found("the certificate of the tls listeners has ended, on "+until.Format(time.DateOnly), mend)
	case left < certRoom:
		e.found("the certificate of the tls listeners ends on "+until.Format(time.DateOnly), mend)
	}
}

// checkMonitors looks for monitors at which meta9d waits in vain.
func (e *examination) checkMonitors() {
	n := int(e.number("qemus_unresponsive"))
	if n == 0 {
		return
	}
	e.found(many(n, "the QEMU at "+e.text("qemu_unresponsive_socket")+" does not answer meta9d: another client holds this monitor, which QEMU serves to one at a time, or the QEMU hangs"),
		"give the QEMU a monitor for meta9d alone (-qmp unix:PATH,server=on,wait=off), and name that in qmp.sockets or qmp.dirs")
}

// findProcess finds meta9d's process and its user. listener is who listened on the socket:
// meta9d, or systemd for it (meta9d.socket). What meta9d says of itself is of its own PID
// namespace, and a process may say of itself what it likes: it has to hold the socket.
func (e *examination) findProcess(listener int) {
	e.uid = -1
	said := int(e.number("pid"))
	for _, pid := range []int{listener, said} {
		if pid <= 0 || programOf(pid) != "meta9d" || pid != listener && !e.holds(pid) {
			continue
		}
		user, _, _, err := identity(pid)
		if err != nil {
			e.unseen("meta9d's process %d: %v", pid, err)
			return
		}
		e.pid, e.uid = pid, user
		return
	}
	e.unseen("meta9d's process, its settings and the owners of its folders: it says that its process is %d, and here that is no meta9d that has %s, or you may not see it (it is in a container, or doctor is not root)", said, e.socket)
}

// programOf is the name of a process' program; "": it cannot be seen.
func programOf(pid int) string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
}

// apart tells whether a process is in a container or a chroot. A unit of systemd has mounts
// of its own too, so that those tell nothing.
func apart(pid int) bool {
	link := func(of int, name string) string {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/%s", of, name))
		return to
	}
	here := os.Getpid()
	return pid > 0 && (link(pid, "ns/pid") != link(here, "ns/pid") || link(pid, "root") != link(here, "root"))
}

// holds tells whether a process has the admin's socket open, of which others listen too.
func (e *examination) holds(pid int) bool {
	listeners := map[string]bool{}
	for _, of := range []int{os.Getpid(), pid} {
		for _, inode := range e.sockets(of).boundBy(pid, e.socket).listeners {
			listeners["socket:["+inode+"]"] = true
		}
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && listeners[to] {
			return true
		}
	}
	return false
}

// checkProcess looks at meta9d's program and at the settings that it was started with.
func (e *examination) checkProcess(ctx context.Context) {
	if e.pid == 0 {
		return // that was said
	}
	proc := fmt.Sprintf("/proc/%d/", e.pid)
	exe, err := os.Readlink(proc + "exe")
	if err != nil {
		e.unseen("meta9d's process %d: %v", e.pid, err)
		return
	}
	if path, gone := strings.CutSuffix(exe, " (deleted)"); gone {
		e.found("meta9d runs a program that is no longer at "+path, "'meta9 upgrade' takes the one that is there now, without a restart")
	}
	line, err := os.ReadFile(proc + "cmdline")
	if err != nil {
		e.unseen("meta9d's command line: %v", err)
		return
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	if e.apart {
		return // that was said
	}
	// What another user runs is his, and is not executed as root, or as the caller.
	if !safeUser(e.uid) {
		e.unseen("meta9d's settings: it runs as user %s; as that user 'meta9d %s' looks at them", userName(e.uid), strings.Join(append(args[1:], "--check-config"), " "))
		return
	}
	if st, err := statOf(proc + "exe"); err != nil || !safeUser(int(st.Uid)) || st.Mode&0o022 != 0 {
		e.unseen("meta9d's settings: its program is one that others can write to, and is not executed")
		return
	}
	// The program that runs, and not the one that has its path now: it was trusted already.
	check := exec.CommandContext(ctx, proc+"exe", append(args[1:], "--check-config")...)
	check.Dir = proc + "cwd"
	said, err := check.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		e.found("meta9d could not start with its settings as they are now: "+lines[len(lines)-1],
			"mend them, and look with 'meta9d --check-config "+strings.Join(args[1:], " ")+"'")
	case err != nil:
		e.unseen("meta9d's settings: %v", err)
	}
}

// safeUser tells whether the caller may execute what is this user's.
func safeUser(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// many is a finding of n things alike, of which one is told.
func many(n int, one string) string {
	if n > 1 {
		return fmt.Sprintf("%s; and %d more like it", one, n-1)
	}
	return one
}
