package qmptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"meta9/mdbridge/qmp"
)

// QEMU answers QMP as a QEMU 7.2 does, as far as discovery asks: one client of its
// socket at a time, the others wait for its greeting.
type QEMU struct {
	Path string

	t       testing.TB
	l       *net.UnixListener
	uuid    string
	name    string
	running sync.WaitGroup

	mu     sync.Mutex
	status string
	conn   net.Conn // of the client that is served
	served int      // clients ever
	greets chan struct{}
	hangs  bool // commands are not answered
	held   []byte
	half   bool // the next command is answered in part
	device string
}

// Start makes one that serves a socket at path and is running. Without a UUID it
// answers as a QEMU that was given none.
func Start(t testing.TB, path, uuid, name string) *QEMU {
	t.Helper()
	if uuid == "" {
		uuid = "00000000-0000-0000-0000-000000000000"
	}
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	q := &QEMU{Path: path, t: t, l: l, uuid: uuid, name: name, status: "running", greets: make(chan struct{}, 1)}
	q.greets <- struct{}{}
	q.running.Go(q.serve)
	t.Cleanup(q.Kill)
	return q
}

// Kill ends it as kill -9 does: the socket's file stays.
func (q *QEMU) Kill() {
	_ = q.l.Close()
	q.mu.Lock()
	if q.conn != nil {
		_ = q.conn.Close()
	}
	select {
	case q.greets <- struct{}{}:
	default:
	}
	q.mu.Unlock()
	q.running.Wait()
}

// Mute makes it greet nobody until Unmute.
func (q *QEMU) Mute() { <-q.greets }

// Unmute undoes Mute.
func (q *QEMU) Unmute() { q.greets <- struct{}{} }

// Hang makes it answer no more commands, until GoOn.
func (q *QEMU) Hang() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hangs = true
}

// GoOn undoes Hang, and answers what was asked since.
func (q *QEMU) GoOn() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hangs = false
	if q.conn != nil {
		_, _ = q.conn.Write(q.held)
	}
	q.held = nil
}

// DieInAnswer makes it die in the middle of the next answer.
func (q *QEMU) DieInAnswer() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.half = true
}

// Served tells whether it ever had a client.
func (q *QEMU) Served() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.served > 0
}

// Label makes it answer query-chardev, with its socket under that label, and with the
// monitor of libvirt (charmonitor) elsewhere unless that is the label.
func (q *QEMU) Label(label string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.device = label
}

// Set gives it another status, and tells its client the event.
func (q *QEMU) Set(status, event string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.set(status, event)
}

func (q *QEMU) set(status, event string) {
	q.status = status
	if q.conn != nil {
		e := qmp.Event{Name: event, Timestamp: qmp.Stamp{Seconds: 1, Microseconds: 2}}
		_, _ = q.conn.Write(qmp.AppendEvent(nil, &e))
	}
}

func (q *QEMU) serve() {
	for {
		conn, err := q.l.Accept()
		if err != nil {
			return
		}
		<-q.greets
		q.greets <- struct{}{}
		q.talk(conn)
		_ = conn.Close()
	}
}

func (q *QEMU) talk(conn net.Conn) {
	const version = `{"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}`
	if _, err := conn.Write([]byte(`{"QMP": {"version": ` + version + `, "capabilities": ["oob"]}}` + "\r\n")); err != nil {
		return
	}
	q.mu.Lock()
	q.conn = conn
	q.served++
	q.mu.Unlock()
	d := qmp.NewDecoder(conn, 1<<20)
	for {
		text, err := d.Next()
		if err != nil || q.command(text) != nil {
			break
		}
	}
	q.mu.Lock()
	q.conn = nil
	q.mu.Unlock()
}

// command answers one.
func (q *QEMU) command(text []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var r struct {
		Execute string
		ID      json.RawMessage
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	answer := qmp.AppendError(nil, &qmp.Error{Class: qmp.CommandNotFound, Desc: "The command " + r.Execute + " has not been found"}, r.ID)
	if ret := q.run(r.Execute); ret != "" {
		answer = qmp.AppendReturn(nil, []byte(ret), r.ID)
	}
	switch {
	case q.hangs:
		q.held = append(q.held, answer...)
		return nil
	case q.half:
		_, _ = q.conn.Write(answer[:len(answer)/2])
		_ = q.l.Close()
		return errors.New("died")
	}
	_, err := q.conn.Write(answer)
	if r.Execute == "quit" {
		_ = q.l.Close()
		return errors.New("quit")
	}
	return err
}

// run is what a command returns; "" for one that is not known.
func (q *QEMU) run(name string) string {
	switch name {
	case "qmp_capabilities", "system_powerdown", "system_reset", "quit":
	case "query-commands":
		return `[{"name": "query-name"}, {"name": "query-status"}, {"name": "quit"}, {"name": "stop"}]`
	case "query-uuid":
		return fmt.Sprintf(`{"UUID": %q}`, q.uuid)
	case "query-name":
		if q.name != "" {
			return `{"name": ` + string(qmp.AppendString(nil, q.name)) + `}`
		}
	case "query-chardev":
		if q.device == "" {
			return ""
		}
		other := ""
		if q.device != "charmonitor" {
			other = `, {"label": "charmonitor", "filename": "unix:/nowhere/monitor.sock,server=on", "frontend-open": true}`
		}
		return fmt.Sprintf(`[{"label": %q, "filename": "unix:%s,server=on", "frontend-open": true}%s]`, q.device, q.Path, other)
	case "query-status":
		return fmt.Sprintf(`{"status": %s, "singlestep": false, "running": %v}`, qmp.AppendString(nil, q.status), q.status == "running")
	case "stop":
		if q.status == "running" {
			q.set("paused", "STOP")
		}
	case "cont":
		if q.status != "running" {
			q.set("running", "RESUME")
		}
	default:
		return ""
	}
	return "{}"
}
