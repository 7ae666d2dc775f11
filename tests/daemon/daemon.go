// Package daemon builds meta9d from the tree and runs it as a process of its
// own, for the tests (through testenv) and for the bench.
package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meta9/session/wire"
	"meta9/tests/proc"
	"meta9/tests/raw"
)

// Root is the folder of the product's module, found upwards from the working
// directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module meta9\n")) {
			return dir, nil
		}
	}
	return "", errors.New("not inside meta9's source tree")
}

// Build builds a command of the product (meta9d, meta9) into dir and gives the
// binary's path; flags go to go build.
func Build(dir, command string, flags ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	return BuildIn(root, dir, command, flags...)
}

// BuildIn is Build of the source tree at root.
func BuildIn(root, dir, command string, flags ...string) (string, error) {
	bin := filepath.Join(dir, command)
	args := append([]string{"build", "-trimpath", "-o", bin}, flags...)
	cmd := exec.Command("go", append(args, "./cmd/"+command)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/%s: %w\n%s", command, err, out)
	}
	return bin, nil
}

// Options say how meta9d is started.
type Options struct {
	Bin    string   // meta9d
	Dir    string   // its data, run folder and configuration go in here
	Config string   // TOML; "" for none
	TCP    []string // who a loopback listener each is bound to: "" (nobody), "as=admin", "as=vm:UUID"
	Memory bool     // --data "": nothing on disk
	Args   []string // further arguments
	Env    []string // further environment, NAME=VALUE
	Wrap   []string // a command that runs it, such as strace and its flags
}

// Daemon is a running meta9d.
type Daemon struct {
	*proc.Proc
	Options
	TCPAddrs []string // HOST:PORT of each of Options.TCP
}

// startTime is how long meta9d may take to be ready: a folder of a million keys
// may be under it, on a busy machine.
const startTime = 60 * time.Second

// Start runs meta9d in o.Dir, which may hold the data of an earlier run.
func Start(o Options) (*Daemon, error) {
	d := &Daemon{Options: o}
	args, err := d.args()
	if err != nil {
		return nil, err
	}
	argv := append(append(append([]string{}, o.Wrap...), o.Bin), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), o.Env...)
	d.Proc, err = proc.Start(cmd, startTime)
	return d, err
}

func (d *Daemon) args() ([]string, error) {
	args := []string{"--run", d.Run(), "--data", d.Data()}
	if d.Memory {
		args[3] = ""
	}
	var err error
	if d.TCPAddrs, err = FreeAddrs(len(d.TCP)); err != nil {
		return nil, err
	}
	for i, as := range d.TCP {
		args = append(args, "--listen", strings.TrimSuffix("tcp:"+d.TCPAddrs[i]+","+as, ","))
	}
	if slices.ContainsFunc(d.TCP, func(as string) bool { return as != "" }) {
		args = append(args, "--insecure")
	}
	if d.Config != "" {
		file := filepath.Join(d.Dir, "meta9d.toml")
		if err := os.WriteFile(file, []byte(d.Config), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--config", file)
	}
	return append(args, d.Args...), nil
}

// FreeAddrs are so many addresses of the loopback that nobody listens at now. No two are
// one, since all are taken before any is given back.
func FreeAddrs(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// Data is the data folder.
func (d *Daemon) Data() string { return filepath.Join(d.Dir, "data") }

// Run is the run folder.
func (d *Daemon) Run() string { return filepath.Join(d.Dir, "run") }

// Admin is the path of the admin's socket.
func (d *Daemon) Admin() string { return filepath.Join(d.Run(), "admin.sock") }

// VM is the path of a VM's own 9P socket.
func (d *Daemon) VM(uuid string) string { return filepath.Join(d.Run(), uuid, "9p.sock") }

// Dial connects to the admin's socket, negotiates 9P2000.e and attaches fid 0
// to aname.
func (d *Daemon) Dial(aname string) (*raw.Conn, error) {
	c, err := raw.Dial("unix", d.Admin())
	if err != nil {
		return nil, err
	}
	if err := Hello(c, "9P2000.e", aname); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Hello negotiates version, which must be granted, and attaches fid 0 to aname.
func Hello(c *raw.Conn, version, aname string) error {
	_, got, err := c.Version(wire.MaxMsize, version)
	if err != nil {
		return err
	}
	if got != version {
		return fmt.Errorf("asked for %s, was granted %s", version, got)
	}
	return c.Attach(0, aname)
}

// Create makes a VM of a payload, by the admin's ctl.
func (d *Daemon) Create(payload []byte) error { return d.Ctl("create " + string(payload)) }

// Ctl writes one line to the admin's ctl.
func (d *Daemon) Ctl(line string) error {
	c, err := d.Dial("")
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Swrite(0, []byte(line+"\n"), "ctl")
}
