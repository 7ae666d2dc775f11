package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/peers"
	"meta9/tests/proc"
	"meta9/tests/raw"
)

// instance is a running server that a load can dial.
type instance struct {
	server
	proc   *proc.Proc
	socket string
	daemon *daemon.Daemon // of meta9d
}

// server is how a peer is served and spoken to.
type server struct {
	name   string
	serve  peers.Serve // nil: meta9d itself
	speech speech
}

// speech is the dialect of a server, as far as the loads need it.
type speech struct {
	version string // of Tversion; "" where nothing is negotiated
	aname   string
	linux   bool // Tlopen for Topen, n_uname in Tattach
}

var (
	plain  = speech{version: "9P2000"}
	linux  = speech{version: "9P2000.L", linux: true}
	plainE = speech{version: "9P2000.e", aname: "vms/" + benchVM + "/keys"}
	oursL  = speech{version: "9P2000.L", aname: plainE.aname, linux: true}
	none   = speech{}
)

// The servers. Their files are the same.
const (
	sEcho    = "echo"
	sBursts  = "echo in bursts"
	sMeta9   = "meta9d"
	sMeta9L  = "meta9d 9P2000.L"
	sMany    = "meta9d 4,096 keys"
	sFleet   = "meta9d in a fleet"
	sMdata   = "meta9d mdata"
	sStatic  = "p9 staticfs"
	sLocal   = "p9 localfs"
	sLionkov = "lionkov/go9p"
	sKnus    = "knusbaum/go9p"
	sDocker  = "docker/go-p9p"
	sHTTP    = "net/http"
)

var servers = []server{
	{sEcho, peers.Echo, none},
	{sBursts, peers.Bursts, none},
	{sMeta9, nil, plainE},
	{sMeta9L, nil, oursL},
	{sMany, nil, plainE},
	{sFleet, nil, plainE},
	{sMdata, nil, none},
	{sStatic, peers.Static, linux},
	{sLocal, peers.Local, linux},
	{sLionkov, peers.Lionkov, plain},
	{sKnus, peers.Knusbaum, plain},
	{sDocker, peers.Docker, plain},
	{sHTTP, peers.HTTP, none},
}

// foreign are the 9P servers that others wrote.
var foreign = []string{sStatic, sLocal, sLionkov, sKnus, sDocker}

func serverOf(name string) (server, error) {
	for _, s := range servers {
		if s.name == name {
			return s, nil
		}
	}
	return server{}, fmt.Errorf("no server %q", name)
}

// servePeer is what a process of a peer does.
func servePeer(name, socket string) error {
	s, err := serverOf(name)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println(proc.Ready)
	return s.serve(l, files())
}

// start starts a server in a folder of its own.
func (b *bench) start(name string) (*instance, error) {
	s, err := serverOf(name)
	if err != nil {
		return nil, err
	}
	dir, err := b.dirFor("server")
	if err != nil {
		return nil, err
	}
	if s.serve == nil {
		return b.startMeta9(s, dir)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "socket")
	in := &instance{server: s, socket: socket}
	return in, b.startOn(&b.cpus.server, func() (err error) {
		in.proc, err = proc.Start(exec.Command(self, "-serve", name, "-socket", socket), 20*time.Second)
		return err
	})
}

// mostKeys is how many keys a VM may have by default.
const mostKeys = 4096

// benchVM is the VM whose keys are the files.
const benchVM = "11111111-1111-4111-8111-111111111111"

func (b *bench) startMeta9(s server, dir string) (*instance, error) {
	var d *daemon.Daemon
	o := daemon.Options{Bin: b.build().meta9d, Dir: dir}
	if s.name == sFleet {
		c, err := b.cluster()
		if err == nil {
			o.Config, err = c.settings(dir)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := b.startOn(&b.cpus.server, func() (err error) {
		d, err = daemon.Start(o)
		return err
	}); err != nil {
		return nil, err
	}
	in := &instance{server: s, proc: d.Proc, socket: d.Admin(), daemon: d}
	if s.name == sMdata {
		in.socket = filepath.Join(d.Run(), benchVM, "mdata.sock")
	}
	keys := files()
	for i := nFiles; s.name == sMany && i < mostKeys; i++ {
		keys[fmt.Sprintf("more%04d", i)] = fileValue()
	}
	if err := d.Create(payload(benchVM, keys)); err != nil || s.name != sFleet {
		return in, err
	}
	return in, createOwnVMs(d)
}

// payload is what makes a VM with these keys.
func payload(uuid string, keys peers.Files) []byte {
	b, err := json.Marshal(map[string]any{"uuid": uuid, "customer_metadata": keys})
	if err != nil {
		panic(err) // strings only
	}
	return b
}

// dial connects and attaches fid 0 to the folder of the files.
func (in *instance) dial() (*raw.Conn, error) {
	c, err := raw.Dial("unix", in.socket)
	if err != nil || in.speech.version == "" {
		return c, err
	}
	if err := in.hello(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// hello negotiates and attaches. msize is what every peer grants.
func (in *instance) hello(c *raw.Conn) error {
	_, got, err := c.Version(65535, in.speech.version)
	if err != nil {
		return err
	}
	if got != in.speech.version {
		return fmt.Errorf("asked for %s, granted %s", in.speech.version, got)
	}
	attach := []any{uint32(0), raw.NoFid, "root", in.speech.aname}
	if in.speech.linux {
		attach = append(attach, uint32(0))
	}
	_, err = c.RPC(wire.Tattach, 0, attach...)
	return err
}

// open is the frame that opens fid for reading.
func (s speech) open(tag uint16, fid uint32) []byte {
	if s.linux {
		return raw.Frame(wire.Tlopen, tag, fid, uint32(0))
	}
	return raw.Frame(wire.Topen, tag, fid, uint8(0))
}
