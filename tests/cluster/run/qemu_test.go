package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta9/mdbridge/qmp"
	"meta9/tests/guest"
	"meta9/tests/guest/machine"
)

// guestLinks is how many links a guest has to its host, each a port of virtio-serial.
const guestLinks = 2

// qemu is a QEMU at one of the hosts.
type qemu struct {
	t    *testing.T
	at   *proc
	cmd  *exec.Cmd
	log  bytes.Buffer
	gone chan struct{}
	mon  *qmp.Client
	out  net.Conn // the guest's port out
}

// machineRoom is what all QEMUs of a guest have in common.
type machineRoom struct {
	t             *testing.T
	dir           string
	image, initrd string
	ports         net.Listener // for the guest's port out
	port          *guest.Port
	n             int
}

func newMachineRoom(t *testing.T, dir string) *machineRoom {
	t.Helper()
	r := &machineRoom{t: t, dir: dir, port: guest.NewPort()}
	r.image, r.initrd = guest.Image(t, r.options(""), dir)
	var err error
	if r.ports, err = net.Listen("unix", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ports.Close() })
	return r
}

// options are the guest's with the links of a host's run folder.
func (r *machineRoom) options(run string) machine.Options {
	return machine.Options{
		Files:   map[string]string{"/bin/meta9": guest.Static(r.t, "cmd/meta9")},
		Connect: "unix:" + filepath.Join(run, vm, "link.sock"), Via: machine.Serial, Ports: guestLinks,
	}
}

// start runs a QEMU at a host: one that boots the guest, or one that waits for it. It is there
// when meta9d has found it, which makes the sockets of the guest's links.
func (r *machineRoom) start(at *proc, more ...string) *qemu {
	r.t.Helper()
	host := filepath.Base(at.run)
	own := filepath.Join(r.dir, fmt.Sprintf("%s%d", host, r.n))
	r.n++
	o := r.options(at.run)
	o.QEMU = append([]string{
		"-uuid", vm, "-name", "guest", "-serial", "file:" + own + ".log",
		"-qmp", "unix:" + monitorPath(r.dir, host) + ",server=on,wait=off",
		"-qmp", "unix:" + own + ",server=on,wait=off",
	}, more...)
	args, err := machine.Arguments(o, r.image, r.initrd, "socket,server=off,path="+r.ports.Addr().String(), "file,path="+own+".status")
	if err != nil {
		r.t.Fatal(err)
	}
	q := &qemu{t: r.t, at: at, cmd: exec.Command("qemu-system-x86_64", args...), gone: make(chan struct{})}
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	q.cmd.Stdout, q.cmd.Stderr = &q.log, &q.log
	if err := q.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = q.cmd.Wait()
		close(q.gone)
	}()
	r.t.Cleanup(q.kill)
	if err := r.ports.(*net.UnixListener).SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	if q.out, err = r.ports.Accept(); err != nil {
		q.kill()
		r.t.Fatalf("QEMU does not come: %v\n%s", err, q.log.String())
	}
	r.port.From(q.out)
	q.eventually("its monitor is there", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		q.mon, err = qmp.Dial(ctx, own, qmp.Config{})
		return err == nil
	})
	r.t.Cleanup(q.mon.Close)
	// QEMU tries once a second.
	q.eventually("the guest's links are connected", func() bool {
		var devices []struct{ Label, Filename string }
		q.ask("query-chardev", nil, &devices)
		n := 0
		for _, d := range devices {
			if d.Label[0] == 'p' && !strings.HasPrefix(d.Filename, "disconnected") {
				n++
			}
		}
		return n == guestLinks
	})
	return q
}

func (q *qemu) kill() {
	_ = q.cmd.Process.Kill()
	<-q.gone
	if q.out != nil {
		_ = q.out.Close()
	}
}

// quit ends it as an operator does.
func (q *qemu) quit() {
	q.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, _ = q.mon.Do(ctx, qmp.Command{Name: "quit"}) // it may be gone before it has answered
	select {
	case <-q.gone:
	case <-ctx.Done():
		q.t.Errorf("QEMU does not end: %s", q.log.String())
	}
	q.kill()
}

// ask runs a command of QMP's, which must succeed.
func (q *qemu) ask(command string, arguments, into any) {
	q.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ret, err := q.mon.Do(ctx, qmp.Command{Name: command, Arguments: arguments})
	if err == nil && into != nil {
		err = json.Unmarshal(ret, into)
	}
	if err != nil {
		q.t.Fatalf("%s: %v\n%s", command, err, q.log.String())
	}
}

func (q *qemu) eventually(what string, ok func() bool) {
	q.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-q.gone:
			q.t.Fatalf("not so: %s; QEMU has ended: %s", what, q.log.String())
		default:
		}
		if time.Now().After(deadline) {
			q.t.Fatalf("not so: %s\n%s\nmeta9d:\n%s", what, q.log.String(), q.at.log.String())
		}
	}
}

// migration is what query-migrate says of it.
type migration struct {
	Status    string
	Downtime  int    // ms
	ErrorDesc string `json:"error-desc"`
}

// migrate begins to send the guest to where another QEMU waits for it, at so many bytes a second.
func (q *qemu) migrate(uri string, bandwidth int64) {
	q.t.Helper()
	q.ask("migrate-set-parameters", map[string]any{"max-bandwidth": bandwidth, "downtime-limit": 300}, nil)
	q.ask("migrate", map[string]any{"uri": uri}, nil)
}

// becomes waits until its migration is so.
func (q *qemu) becomes(status string) (is migration) {
	q.t.Helper()
	q.eventually("the migration is "+status, func() bool {
		q.ask("query-migrate", nil, &is)
		if is.Status != status && (is.Status == "failed" || is.Status == "completed") {
			q.t.Fatalf("the migration is %s, not %s: %s", is.Status, status, is.ErrorDesc)
		}
		return is.Status == status
	})
	return is
}

// stream is what a file tells that never ends, from when it was opened on.
type stream struct {
	cmd *exec.Cmd
	lines
}

// follow reads such a file of the admin's.
func (p *proc) follow(t *testing.T, path string) *stream {
	t.Helper()
	s := &stream{cmd: exec.Command(filepath.Join(bin, "meta9"), "--addr", "unix:"+filepath.Join(p.run, "admin.sock"), "cat", path)}
	s.cmd.Stdout, s.cmd.Stderr = &s.lines, os.Stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	return s
}

// split are the lines that have come.
func (s *stream) split() []string { return strings.Split(strings.TrimSpace(s.all()), "\n") }
