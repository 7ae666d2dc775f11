package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"meta9/fs/budget"
	"meta9/fs/vm"
	"meta9/session"
	"meta9/session/listen"
)

// config is every setting; docs/meta9d.toml says what each is for and holds the
// defaults.
type config struct {
	Data        string      `toml:"data"`
	Run         string      `toml:"run"`
	Listen      []string    `toml:"listen"`
	Insecure    bool        `toml:"insecure"`
	AdminGroup  string      `toml:"admin_group"` // name or number; "": none
	MdataFrom   string      `toml:"mdata_from"`
	VminfodFrom string      `toml:"vminfod_from"`
	Libvirt     string      `toml:"libvirt"` // its read-only socket; "": the usual one
	LogLevel    string      `toml:"log_level"`
	Trace       bool        `toml:"trace"`
	HTTP        web         `toml:"http"`
	Sockets     sockets     `toml:"sockets"`
	Session     sessions    `toml:"session"`
	Mumble      mumble      `toml:"mumble"`
	TLS         tlsFiles    `toml:"tls"`
	QMP         qmpSettings `toml:"qmp"`
	Cluster     cluster     `toml:"cluster"`
	Limits      limits      `toml:"limits"`
}

// sockets is about the sockets that every VM has in the run folder.
type sockets struct {
	Enabled bool     `toml:"enabled"`
	Mode    fileMode `toml:"mode"`
	Group   string   `toml:"group"` // name or number; "": the daemon's
}

// sessions is about sessions whose transport was lost.
type sessions struct {
	Lifetime span `toml:"lifetime"`
	Journal  bool `toml:"journal"` // they outlive a kill
}

// mumble is who may authenticate by MUMBLE. At most one of the secrets is set.
type mumble struct {
	Secret      string   `toml:"secret"`
	SecretFile  string   `toml:"secret_file"`
	AdminGroups []string `toml:"admin_groups"`
}

// off tells that nobody can authenticate by MUMBLE.
func (m *mumble) off() bool { return m.Secret == "" && m.SecretFile == "" }

// tlsFiles is what tls listeners need: PEM files, and the name by which the
// admin's certificate is known.
type tlsFiles struct {
	Cert  string `toml:"cert"`
	Key   string `toml:"key"`
	CA    string `toml:"ca"`
	Admin string `toml:"admin"` // "": no certificate is the admin's
	Deny  string `toml:"deny"`  // a file of fingerprints; "": none is denied
}

// limits are those of docs/tree.md and docs/meta9d.toml, by what they bound. Sizes are in bytes; 0 is refused, but
// for Bytes. The rooms that keep to them say more of each.
type limits struct {
	// A VM.
	Value      size `toml:"value"`
	VMKeys     size `toml:"vm_keys"`
	VMBytes    size `toml:"vm_bytes"` // names and values
	VMBatch    size `toml:"vm_batch"` // written in one commit
	VMEvents   size `toml:"vm_events"`
	VMConns    size `toml:"vm_connections"`
	VMSessions size `toml:"vm_sessions"` // with a key, live and parked
	VMMemory   size `toml:"vm_memory"`   // bytes in flight

	// The daemon.
	Bytes       size `toml:"bytes"` // of all VMs; 0: no limit
	Events      size `toml:"events"`
	Conns       size `toml:"connections"`
	Parked      size `toml:"parked_sessions"`
	ParkedBytes size `toml:"parked_bytes"`
	Memory      size `toml:"memory"` // bytes in flight of all VMs

	// A connection.
	Msize    size `toml:"msize"`
	Fids     size `toml:"fids"`
	Waiting  size `toml:"waiting"` // requests
	Unsent   size `toml:"unsent"`
	AuthTime span `toml:"auth_time"` // to be nobody's
	TakeOver span `toml:"take_over"` // to wait for what the session's old one has begun
}

// defaults are the settings of a daemon that is told nothing.
func defaults() config {
	v, s, b := vm.DefaultLimits, session.DefaultLimits, budget.Default
	return config{
		Data: "./meta9-data", Run: "./meta9-run", Libvirt: libvirtOff, LogLevel: "info",
		Sockets: sockets{Enabled: true, Mode: 0o660},
		Session: sessions{Lifetime: span(30 * time.Second), Journal: true},
		QMP:     defaultQMP(),
		Cluster: cluster{Prefix: "/meta9/v1/", TTL: span(5 * time.Second), Patience: span(10 * time.Second), Reads: readsStale, WriteRate: 1 << 20},
		Limits: limits{
			Value: size(v.Value), VMKeys: size(v.Keys), VMBytes: size(v.Bytes),
			VMBatch: 1 << 20, VMEvents: 256, VMConns: size(s.VMConns), VMSessions: size(s.VMSessions), VMMemory: size(b.VM),
			Bytes: 4 << 30, Events: 8192, Conns: size(s.Conns),
			Parked: size(s.Parked), ParkedBytes: size(s.ParkedBytes), Memory: size(b.All),
			Msize: size(s.Msize), Fids: size(s.Fids), Waiting: size(s.Waiting), Unsent: size(s.Unsent),
			AuthTime: span(s.AuthTime), TakeOver: span(s.TakeOver),
		},
	}
}

// packaged is where packages have the settings.
const packaged = "/etc/meta9d.toml"

// load reads a settings file over what is set. A setting that is unknown, or
// that cannot have this value, is an error that names it.
//
// The file of packages, packaged, need not be there: their unit names it in any case.
func (c *config) load(file string) error {
	b, err := os.ReadFile(file)
	if file == packaged && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return misused("settings: %w", err)
	}
	md, err := toml.NewDecoder(bytes.NewReader(b)).Decode(c)
	if err != nil {
		return misused("settings in %s: %s", file, settingsText(err))
	}
	// Package toml passes over what should be a table of names, and is none.
	if kind := md.Type("qmp", "bind"); kind != "" && kind != "Hash" {
		return misused("settings in %s: qmp.bind must be %s", file, kinds["table"])
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		names := make([]string, len(unknown))
		for i, key := range unknown {
			names[i] = key.String()
		}
		return misused("settings in %s: unknown: %s", file, strings.Join(names, ", "))
	}
	return nil
}

// otherKind is what package toml says where a setting has a value of another kind, in Go's words.
var otherKind = regexp.MustCompile(`^(line \d+) \(last key "(.*)"\): (?:incompatible types: TOML value has type (.+); destination has type (.+)|type mismatch for .+: expected (table) but found (.+))$`)

// kinds are the words for Go's kinds of values, as they are said to who writes settings.
var kinds = map[string]string{
	"string": "a text in quotes", "boolean": "true or false", "bool": "true or false", "int64": "a number", "integer": "a number",
	"float64": "a number with a point", "slice": `a list, as in ["one", "two"]`, "[]any": "a list", "primitive (string-like)": "a number or a text in quotes",
	"table": "a section of settings", "map": "a section of settings", "map[string]any": "a section of settings", "[]map[string]any": "a list of sections",
	"time.Time": "a date",
}

// settingsText is what is wrong with settings, for who writes them.
func settingsText(err error) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	m := otherKind.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	said := func(kind string) string { return cmp.Or(kinds[kind], kind) }
	return fmt.Sprintf("%s: %s is %s, and must be %s", m[1], m[2], said(m[3]+m[6]), said(m[4]+m[5]))
}

// validate says what cannot be meant.
func (c *config) validate() error {
	for _, ok := range []func(*config) error{
		checkLevel, checkListen, checkHTTP, checkMirror, checkMdata, checkMumble, checkTLS, checkQMP, checkLibvirt, checkCluster, checkLimits,
	} {
		if err := ok(c); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// checkFiles reads what the settings name: files, and groups of the system. Validate has
// found the settings good.
func (c *config) checkFiles() error {
	if _, err := c.Mumble.load(); err != nil {
		return err
	}
	if _, err := c.TLS.load(); err != nil {
		return err
	}
	if _, err := new(listen.Denied).Load(c.TLS.Deny); err != nil {
		return usageError{fmt.Errorf("tls.deny: %w", err)}
	}
	if _, err := groupID("admin_group", c.AdminGroup); err != nil {
		return err
	}
	if _, err := c.Cluster.load(); err != nil {
		return err
	}
	_, err := c.Sockets.perm()
	return err
}

func checkLevel(c *config) error {
	if _, ok := levels[c.LogLevel]; !ok {
		return fmt.Errorf("log level %q: it is debug, info, warn or error", c.LogLevel)
	}
	return nil
}

// checkListen reads every address, and finds out now what would be refused when
// some of them are already open.
func checkListen(c *config) error {
	if c.Run == "" {
		return errors.New("run: a folder is needed, for the admin's socket")
	}
	if n, err := strconv.Atoi(c.AdminGroup); err == nil && n <= 0 {
		return fmt.Errorf("admin_group %q: it is a group's name, or its number above 0: root's group has many members who are not root", c.AdminGroup)
	}
	if err := listen.CheckRun(c.Run, c.Sockets.Enabled); err != nil {
		if listen.CheckRun(c.Run, false) == nil {
			err = fmt.Errorf("%w; where VMs need no sockets there, sockets.enabled = false does", err)
		}
		return fmt.Errorf("run: %w", err)
	}
	for _, text := range c.Listen {
		a, err := listen.Parse(text)
		if err != nil {
			return err
		}
		if err := a.Usable(c.Insecure); err != nil {
			return fmt.Errorf("listener %s: %w", text, err)
		}
		if a.Net == listen.TLS && c.TLS.Cert == "" {
			return fmt.Errorf("listener %s: tls.cert, tls.key and tls.ca are not set", text)
		}
	}
	return nil
}

// minSecret is the shortest secret, in bytes. Whoever has seen a MUMBLE message, or what a
// fleet's prefix is marked with, can try secrets on it, as fast as his machines compute.
const minSecret = 16

// shortSecret is why a secret of n bytes is refused.
func shortSecret(n int) error {
	return fmt.Errorf("%d bytes; at least %d are needed, as 'openssl rand -hex 32' makes them", n, minSecret)
}

// checkMumble refuses what would let in more than was meant.
func checkMumble(c *config) error {
	m := &c.Mumble
	if m.Secret != "" && m.SecretFile != "" {
		return errors.New("mumble.secret and mumble.secret_file are both set")
	}
	if m.Secret != "" && len(m.Secret) < minSecret {
		return fmt.Errorf("mumble.secret: %w", shortSecret(len(m.Secret)))
	}
	if slices.Contains(m.AdminGroups, "") {
		return errors.New(`mumble.admin_groups: "" is the group of whoever names none`)
	}
	if len(m.AdminGroups) > 0 && m.off() {
		return errors.New("mumble.admin_groups: without a secret nobody can prove to be in one")
	}
	return nil
}

// checkTLS: an admin who is named like a VM could be taken for one.
func checkTLS(c *config) error {
	t := &c.TLS
	if set := (t.Cert != "") == (t.Key != "") && (t.Key != "") == (t.CA != ""); !set {
		return errors.New("tls: cert, key and ca go together")
	}
	if t.Deny != "" && t.Cert == "" {
		return errors.New("tls.deny: tls.cert, tls.key and tls.ca are not set")
	}
	if t.Admin != "" && vm.ValidUUID(strings.ToLower(t.Admin)) == nil {
		return errors.New("tls.admin: a UUID is a VM's name")
	}
	return nil
}
