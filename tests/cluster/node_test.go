package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/cluster/link"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

var program = flag.String("meta9d", "", "the meta9d to look at in place of the tree's")

// patience is how long a test waits for what must come, however busy the machine is.
const patience = time.Minute

// The times of a node that is told no others.
const (
	nodeTTL      = 2 * time.Second
	nodePatience = 2 * time.Second
)

// node is a host whose meta9d is a process of its own, with a link of its own to each member.
type node struct {
	*testenv.Server
	t     *testing.T
	name  string
	links []*link.Link
	admin string // the path of its admin's socket
	run   string // its run folder
}

// node starts a host, which ends with the test. more are lines of its settings in [cluster].
// Its way to the first member goes by a proxy, if there is one.
func (c *cluster) node(t *testing.T, name string, by *proxy, more string) *node {
	t.Helper()
	n := &node{t: t, name: name}
	for i, m := range c.Configs {
		to := m.Client
		if i == 0 && by != nil {
			to = by.url
		}
		n.links = append(n.links, link.New(t, to))
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a secret of this test's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var endpoints []string
	for _, k := range n.links {
		endpoints = append(endpoints, k.URL())
	}
	config := fmt.Sprintf("[cluster]\nhost = %q\nendpoints = [\"%s\"]\nkey_file = %q\n", name, strings.Join(endpoints, `", "`), key)
	if !strings.Contains(more, "ttl") {
		config += fmt.Sprintf("ttl = %q\n", nodeTTL)
	}
	config += fmt.Sprintf("patience = %q\n%s", nodePatience, more)
	n.Server = testenv.Start(t, daemon.Options{Bin: *program, Memory: true, Config: config})
	n.admin, n.run = n.Admin(), n.Run()
	return n
}

// socket is a VM's own.
func (n *node) socket(uuid string) string { return filepath.Join(n.run, uuid, "9p.sock") }

// cut cuts the node off from all members.
func (n *node) cut() {
	for _, k := range n.links {
		k.Cut()
	}
}

// connect undoes cut.
func (n *node) connect() {
	for _, k := range n.links {
		k.Open()
	}
}

// try asks for something at the admin's ctl, and at most that long for the answer.
func (n *node) try(line string, long time.Duration) error {
	c, err := n.attach("")
	if err != nil {
		return err
	}
	defer c.Close()
	c.Timeout = long
	return c.Swrite(0, []byte(line+"\n"), "ctl")
}

// attach is a connection of the admin's to a part of the tree.
func (n *node) attach(aname string) (*raw.Conn, error) {
	c, err := raw.Dial("unix", n.admin)
	if err != nil {
		return nil, err
	}
	if err := daemon.Hello(c, "9P2000.e", aname); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// must is try for what must be done, and what a fault may be in the way of: it is tried again.
func (n *node) must(line string) {
	n.t.Helper()
	until(n.t, "host "+n.name+": "+line, func() error { return n.try(line, patience) })
}

// until does what must succeed at last.
func until(t *testing.T, what string, do func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// read reads a file of the admin's.
func (n *node) read(names ...string) (string, error) {
	c, err := n.attach("")
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := c.Sread(0, names...)
	return string(b), err
}

// says is what a line of the admin's ctl says; "": there is none.
func (n *node) says(name string) string {
	text, _ := n.read("ctl")
	return line(text, name)
}

func line(text, name string) string {
	for l := range strings.Lines(text) {
		if first, rest, _ := strings.Cut(strings.TrimSpace(l), " "); first == name {
			return rest
		}
	}
	return ""
}

// well tells whether the node surely has its lease.
func (n *node) well() error {
	if how := n.says("fleet_etcd"); how != "ok" {
		return fmt.Errorf("host %s says %q", n.name, how)
	}
	return nil
}

// where is the host that owns a VM; "": none.
func (n *node) where(uuid string) (string, error) {
	text, err := n.read("fleet", "vms", uuid)
	var is struct{ Host string }
	if err == nil {
		err = json.Unmarshal([]byte(text), &is)
	}
	return is.Host, err
}

// gone waits until the node has nothing of a VM any more.
func (n *node) gone(uuid string) {
	n.t.Helper()
	until(n.t, "the end of the VM at host "+n.name, func() error {
		if _, err := n.read("vms", uuid, "keys"); !refused(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}

// refused tells that the server has answered no.
func refused(err error) bool { return errors.As(err, new(*raw.Error)) }

// reach connects to a socket of whichever host lead names, as soon as that has it.
func reach(ctx context.Context, lead func() string) (net.Conn, string, error) {
	for {
		path := lead()
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, path, nil
		}
		select {
		case <-ctx.Done():
			return nil, path, err
		case <-time.After(2 * time.Millisecond):
		}
	}
}
