package mdata

import (
	"net"
	"strings"
	"testing"
	"time"

	"meta9/mdbridge/mdata"
	"meta9/tests/testenv"
)

// A device that is not there is one line in the log, not ten a second.
func TestChardevNeverThere(t *testing.T) {
	h := newHost(t, chardevIs("/nonexistent/mdata.chardev"))
	missing := func() int { return strings.Count(h.Log(), "/nonexistent/mdata.chardev") }
	testenv.Eventually(t, "the log tells of the device", func() bool { return missing() > 0 })
	time.Sleep(time.Second) // ten attempts
	if n := missing(); n != 1 {
		t.Errorf("%d lines:\n%s", n, h.Log())
	}
}

// The device comes, goes and comes again, as when the VM is started anew, and is
// another one when the property is.
func TestChardevComesAndGoes(t *testing.T) {
	d, other := newChardev(t), newChardev(t)
	h := newHost(t, chardevIs(d.path))
	for range 3 {
		greet(t, d.path)
	}
	if err := h.Ctl(`update ` + recorded + ` {"mdata_chardev":"unix:` + other.path + `"}`); err != nil {
		t.Fatal(err)
	}
	greet(t, other.path)
}

// greet is a hypervisor that starts, says an empty line for its guest, and ends.
func greet(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("half a line of the guest before\n")); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, len("FAILURE\n"))
	if _, err := c.Read(reply); err != nil || string(reply) != "FAILURE\n" {
		t.Errorf("%q, %v", reply, err)
	}
}

// Several programs of a guest share the line: each locks it, and finds it clean.
func TestChardevShared(t *testing.T) {
	d := newChardev(t)
	newHost(t, chardevIs(d.path))
	d.make()
	c, err := mdata.Dial(within(t), d.tty)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Put(within(t), "shared", []byte("\x00\xff\n")); err != nil {
		t.Error(err)
	}
	if out := meta9(t, "--timeout", "500ms", "mdata", "get", "--dev", d.tty, "shared"); out.code != 2 || !strings.Contains(out.stderr, "in use: process") {
		t.Errorf("%+v", out)
	}
	c.Close()
	if out := meta9(t, "mdata", "get", "--dev", d.tty, "shared"); out.code != 0 || out.stdout != "\x00\xff\n" {
		t.Errorf("%+v", out)
	}
}

// An answer comes well within 100 ms: ignition takes a silence of that for the end.
func TestQuickAnswer(t *testing.T) {
	c := newHost(t, "").dial()
	took := make([]time.Duration, 0, 50)
	for range cap(took) {
		began := time.Now()
		if _, err := c.Write([]byte("NEGOTIATE V2\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slow := 0
	for _, d := range took {
		if d > 100*time.Millisecond {
			slow++
		}
	}
	if slow > len(took)/10 { // a busy machine may be to blame for a few
		t.Errorf("answers took %v", took)
	}
}
