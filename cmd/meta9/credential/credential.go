//go:build linux

// Package credential gives systemd keys as credentials of units: LoadCredential=NAME:SOCKET
// of systemd.exec(5), where SOCKET is this service's.
//
// systemd connects to the socket, from an abstract address that says for which unit and
// which credential, and reads to the end. It has no word for "there is none": no bytes at
// all are an empty credential, with which the unit starts. So what may not be had, or is
// not to be had now, gets more bytes than a credential may have, which systemd refuses,
// and the unit does not start.
//
// Concurrency: each connection is answered in a goroutine of its own, of which there are
// at most maxAtOnce.
package credential

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"meta9/cmd/meta9/trust"
	"meta9/fs/vm"
	"meta9/mdbridge/said"
	"meta9/rarelog"
)

const (
	// MaxSize is the longest credential that systemd takes, in bytes (systemd.exec(5)).
	MaxSize = 1 << 20

	// maxAtOnce is how many are answered at once; others wait in the socket's queue.
	maxAtOnce = 32

	// maxMap is how long a map may be, in bytes.
	maxMap = 1 << 20
)

// Map says which units may have which keys. What it does not name nobody may have.
type Map struct {
	// ByName are units that may have each key credential.UNIT.NAME as the credential NAME.
	ByName []string `toml:"by_name"`
	// Unit has, by unit and by credential, the path of a key as `meta9 cat` takes it; a
	// name alone is one in keys/.
	Unit map[string]map[string]string `toml:"unit"`
}

// Load reads a Map from a file in TOML. Whoever writes it chooses who may have which
// secret, so it must be root's or the caller's alone. One that is not there is empty.
func Load(file string) (*Map, error) {
	m := new(Map)
	text, err := trust.Read(file, maxMap)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	md, err := toml.Decode(string(text), m)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf(`%s: unknown: %s; there are by_name = ["UNIT"] and [unit."UNIT"] with NAME = "KEY"`, file, unknown[0])
	}
	for _, unit := range m.ByName {
		if !validUnit(unit) {
			return nil, fmt.Errorf("%s: by_name: %q is no name of a unit", file, unit)
		}
	}
	for unit, of := range m.Unit {
		if !validUnit(unit) {
			return nil, fmt.Errorf("%s: unit: %q is no name of a unit", file, unit)
		}
		for name, key := range of {
			if !validName(name) {
				return nil, fmt.Errorf("%s: unit %s: %q is no name of a credential", file, unit, name)
			}
			if _, err := keyPath(key); err != nil {
				return nil, fmt.Errorf("%s: unit %s: credential %s: %w", file, unit, name, err)
			}
		}
	}
	return m, nil
}

// Key is the path of the key that a unit may have as a credential. A template
// (app@.service) stands for all of its instances, but for those that the map names: they
// have what it says of them alone, which may be nothing.
func (m *Map) Key(unit, name string) (string, bool) {
	names := []string{unit}
	if at, dot := strings.IndexByte(unit, '@'), strings.LastIndexByte(unit, '.'); at >= 0 && dot > at {
		names = append(names, unit[:at+1]+unit[dot:])
	}
	for _, n := range names {
		of, named := m.Unit[n]
		if key, ok := of[name]; ok {
			path, err := keyPath(key)
			return path, err == nil
		}
		if slices.Contains(m.ByName, n) {
			return "keys/" + vm.FileName("credential."+unit+"."+name), true
		}
		if named {
			break
		}
	}
	return "", false
}

func keyPath(key string) (string, error) {
	if !strings.Contains(key, "/") {
		key = "keys/" + key
	}
	if clean := path.Clean("/" + key)[1:]; clean != key || path.Base(key) == "" {
		return "", fmt.Errorf("%q is no path of a key as 'meta9 cat' takes it", key)
	}
	return key, nil
}

// validUnit and validName are what systemd takes (systemd.unit(5), systemd.exec(5)), as far
// as it matters here: neither leads elsewhere.
func validUnit(s string) bool {
	return validName(s) && strings.ContainsRune(s, '.')
}

func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '/' || r < ' ' || r == 0x7f || r > 0x7f
	})
}

// Server answers systemd.
type Server struct {
	// Map gives the map for each who asks, so that one that is mended counts at once. Its
	// error is why nobody may have anything.
	Map func() (*Map, error)
	// Read reads the value of a key, of at most MaxSize bytes.
	Read func(ctx context.Context, path string) ([]byte, error)
	Time time.Duration // for Read; 0: no limit
	Log  rarelog.Log   // a line a minute for each credential of each unit
}

// Serve answers whoever connects, until ctx ends, or until nobody has for idle (0: never).
// It closes l, and waits for those whom it answers.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener, idle time.Duration) error {
	l.SetUnlinkOnClose(false)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }() // systemd has it, too
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, maxAtOnce)
	for {
		places <- struct{}{}
		if idle > 0 {
			_ = l.SetDeadline(time.Now().Add(idle))
		}
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			<-places
			if len(places) > 0 { // one that stands still; others may come meanwhile
				continue
			}
			return nil
		case err != nil:
			return err
		}
		running.Go(func() {
			defer func() { <-places }()
			_ = s.Answer(ctx, c) // it is in the log
		})
	}
}

// Answer answers one connection and closes it. The error is why the unit got nothing; it
// is in the log, too.
//
// It waits for a peer that stands still, for as long as that does: a connection that is
// closed before all is written is, for systemd, the end of a credential, with which the unit
// would start, cut or made of the refusal's zeros.
func (s *Server) Answer(ctx context.Context, c *net.UnixConn) error {
	defer c.Close()
	err := checkPeer(c)
	if err != nil { // no answer at all: it is not systemd
		s.Log.Warn("").Msg(err.Error())
		return err
	}
	unit, name, err := Asked(c.RemoteAddr())
	var value []byte
	if err == nil {
		value, err = s.value(ctx, unit, name)
	}
	if err != nil {
		s.Log.Warn(unit + "/" + name).Msg(err.Error())
		_, _ = c.Write(make([]byte, MaxSize+1)) // refused by systemd, see the package comment
		return err
	}
	_, err = c.Write(value)
	if err != nil {
		err = fmt.Errorf("unit %s, credential %s: %w", unit, name, err)
		s.Log.Warn(unit + "/" + name).Msg(err.Error())
	}
	return err
}

// value is the credential of a unit.
func (s *Server) value(ctx context.Context, unit, name string) ([]byte, error) {
	m, err := s.Map()
	if err != nil {
		return nil, fmt.Errorf("unit %s, credential %s: nobody may have one, as the map is wrong: %w", unit, name, err)
	}
	key, ok := m.Key(unit, name)
	if !ok {
		return nil, fmt.Errorf("unit %s may have no credential %s: nothing in the map says so", unit, name)
	}
	if s.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Time)
		defer cancel()
	}
	value, err := s.Read(ctx, key)
	if err == nil && len(value) > MaxSize {
		err = fmt.Errorf("%s has %d bytes, and a credential at most %d", key, len(value), MaxSize)
	}
	if err != nil { // the host's text may be in it
		return nil, fmt.Errorf("unit %s, credential %s: %s", unit, name, said.Text(err.Error()))
	}
	return value, nil
}

// checkPeer refuses others than root and the user whom this service runs as: the socket's
// mode is another's to set, and an abstract address anybody's to take.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("a process of user %d asks for a credential, which only systemd may", cred.Uid)
	}
	return nil
}

// Asked is the unit and the credential that a peer asks for by its address, which is NUL
// RANDOM "/unit/" UNIT "/" NAME (systemd.exec(5), LoadCredential=). Go writes the NUL as @.
func Asked(addr net.Addr) (unit, name string, err error) {
	a, _ := addr.(*net.UnixAddr)
	if a == nil {
		a = &net.UnixAddr{}
	}
	parts := strings.Split(a.Name, "/")
	if len(parts) != 4 || len(parts[0]) < 2 || parts[0][0] != '@' || parts[1] != "unit" || !validUnit(parts[2]) || !validName(parts[3]) {
		return "", "", fmt.Errorf("a peer at %q asks for no credential of a unit, as LoadCredential= of systemd 247 and later does", a.Name)
	}
	return parts[2], parts[3], nil
}
