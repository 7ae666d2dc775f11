package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"meta9/backoff"
	"meta9/cmd/systemd"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/etcd"
)

// cluster is the etcd of a fleet (docs/fleet.md), and who this host is there.
type cluster struct {
	Endpoints    []string `toml:"endpoints"` // none: there is no fleet, the VMs are in the data folder
	Prefix       string   `toml:"prefix"`
	Host         string   `toml:"host"`     // "": the system's name
	KeyFile      string   `toml:"key_file"` // the fleet's secret
	CA           string   `toml:"ca"`       // "": the system's authorities
	Cert         string   `toml:"cert"`
	Key          string   `toml:"key"`
	User         string   `toml:"user"` // "": etcd knows this host by its certificate, or asks nobody
	PasswordFile string   `toml:"password_file"`
	TTL          span     `toml:"ttl"`        // of this host's lease
	Patience     span     `toml:"patience"`   // of what waits for etcd or for another host
	Reads        string   `toml:"reads"`      // what a read gets whose answer may be old
	WriteRate    size     `toml:"write_rate"` // bytes a second of a VM's guest; 0: no bound
}

// What cluster.reads can be.
const (
	readsStale  = "stale"  // they are answered, and it is told that they may be old
	readsRefuse = "refuse" // they get an error
)

// leastRate is the least write_rate: below it a guest's one large value would take minutes.
const leastRate = 64 << 10

// off says that this host is in no fleet.
func (s *cluster) off() bool { return len(s.Endpoints) == 0 }

// checkCluster refuses what cannot be meant, without asking anybody.
func checkCluster(c *config) error {
	s := &c.Cluster
	if s.off() {
		if s.Host != "" || s.KeyFile != "" || s.User != "" || s.CA != "" || s.Cert != "" {
			return errors.New("cluster.endpoints: none is set, but other settings of [cluster] are")
		}
		return nil
	}
	secure := 0
	for _, text := range s.Endpoints {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Hostname() == "" || u.User != nil || u.Path+u.RawQuery+u.Fragment != "" {
			return fmt.Errorf("cluster.endpoints: %q is not https://HOST:PORT", text)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch _, err := s.host(); {
	case secure != 0 && secure != len(s.Endpoints):
		return errors.New("cluster.endpoints: some are https, and some are not")
	case secure == 0 && s.CA+s.Cert+s.Key != "":
		return errors.New("cluster.ca, cert and key are for endpoints that are https")
	case (s.Cert == "") != (s.Key == ""):
		return errors.New("cluster.cert and cluster.key go together")
	case (s.User == "") != (s.PasswordFile == ""):
		return errors.New("cluster.user and cluster.password_file go together")
	case time.Duration(s.TTL) < 2*time.Second || time.Duration(s.TTL) > time.Minute:
		return fmt.Errorf("cluster.ttl: %s is not from 2s to 1m", time.Duration(s.TTL))
	case time.Duration(s.Patience) < time.Second || time.Duration(s.Patience) > 10*time.Minute:
		return fmt.Errorf("cluster.patience: %s is not from 1s to 10m", time.Duration(s.Patience))
	case s.Reads != readsStale && s.Reads != readsRefuse:
		return fmt.Errorf("cluster.reads: %q is neither %q nor %q", s.Reads, readsStale, readsRefuse)
	case s.WriteRate != 0 && s.WriteRate < leastRate:
		return fmt.Errorf("cluster.write_rate: %d bytes a second is neither 0, for no bound, nor at least 64KiB", s.WriteRate)
	case s.KeyFile == "":
		return errors.New("cluster.key_file is not set: every fleet has a secret of its own, which its hosts share: openssl rand -hex 32 makes one")
	case !validPrefix(s.Prefix):
		return fmt.Errorf("cluster.prefix: %q is not as /meta9/v1/: it begins and ends with a slash, and has at most 128 letters, digits, '.', '-', '_' and '/'", s.Prefix)
	case err != nil:
		return err
	case c.VminfodFrom != "":
		return errors.New("cluster: a host of a fleet cannot be a mirror (vminfod_from)")
	}
	return nil
}

func validPrefix(p string) bool {
	return len(p) > 2 && len(p) <= 128 && p[0] == '/' && p[len(p)-1] == '/' && strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/") == ""
}

// host is this host's name in the fleet.
func (s *cluster) host() (string, error) {
	if s.Host != "" {
		return s.Host, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("cluster.host: it is not set, and %w", err)
	}
	return name, nil
}

// load reads the files that the settings name. nil: there is no fleet.
func (s *cluster) load() (*etcd.Config, error) {
	if s.off() {
		return nil, nil
	}
	host, err := s.host()
	if err != nil {
		return nil, usageError{err}
	}
	key, err := secretIn("cluster.key_file", s.KeyFile)
	if err != nil {
		return nil, err
	}
	c := &etcd.Config{Endpoints: s.Endpoints, Prefix: s.Prefix, Fleet: fleetOf(key), Host: host, User: s.User, CA: s.CA, Cert: s.Cert}
	if s.PasswordFile != "" {
		password, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return nil, misused("cluster.password_file: %w", err)
		}
		if c.Password = string(bytes.TrimRight(password, "\r\n")); c.Password == "" {
			return nil, misused("cluster.password_file: %s is empty", s.PasswordFile)
		}
	}
	c.TLS, err = s.tls()
	return c, err
}

// memberOf is the fleet and the host that the settings say, in one text; "": there is no fleet.
func memberOf(c *etcd.Config) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s %s %s", c.Prefix, c.Fleet, c.Host)
}

// fleetOf is what a fleet's prefix in etcd is marked with: it tells a secret from another
// one, and nothing of it.
func fleetOf(key []byte) string {
	sum := sha256.Sum256(append([]byte("meta9 fleet\x00"), key...))
	return hex.EncodeToString(sum[:8])
}

// tls is nil where etcd is spoken to in the clear. Certificate and key are read again for
// each connection, so that they may be renewed at any time.
func (s *cluster) tls() (*tls.Config, error) {
	if !strings.HasPrefix(s.Endpoints[0], "https:") {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, misused("cluster.ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, misused("cluster.ca: no certificate is in %s", s.CA)
		}
	}
	if s.Cert == "" {
		return conf, nil
	}
	cert, key := s.Cert, s.Key
	pair := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(cert, key)
		return &c, err
	}
	if _, err := pair(nil); err != nil {
		return nil, misused("cluster.cert and cluster.key: %s and %s: %w", cert, key, err)
	}
	conf.GetClientCertificate = pair
	return conf, nil
}

// inTheClear says that what VMs have passes a network that anybody may listen to.
func (s *cluster) inTheClear() bool {
	for _, text := range s.Endpoints {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" {
			continue
		}
		if addr, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
			return true
		}
	}
	return false
}

// checkFolder refuses what is done with a data folder.
func (c *command) checkFolder() error {
	if c.config.Cluster.off() {
		for name, dir := range map[string]string{"--import": c.importFrom, "--export": c.exportTo} {
			if dir != "" {
				return misused("%s is about a fleet, and [cluster] is not set (docs/fleet.md)", name)
			}
		}
		return nil
	}
	for name, given := range map[string]bool{"--check": c.check, "--salvage": c.salvage, "--restore": c.restore != ""} {
		if given {
			return misused("%s is about a data folder, and [cluster] is set: the VMs are in etcd (docs/fleet.md)", name)
		}
	}
	return nil
}

// errEnded is why a start ends that was told to, and would wait for etcd. In a live update
// there is no way back then.
var errEnded = errors.New("told to end")

// clusterPauses are those between the tries to reach an etcd that is away.
var clusterPauses = backoff.Backoff{First: 500 * time.Millisecond, Last: 5 * time.Second}

// reachCluster opens the fleet's etcd, if there is a fleet. If it cannot be used at the first
// try, meta9d ends with a usage error. If it does not answer, or is full, meta9d serves the admin without
// VMs and tries again until etcd is back; later errors are only logged, and in fleet status.
func (d *daemon) reachCluster(ctx context.Context) error {
	s := &d.cfg.Cluster
	cfg, err := s.load()
	if cfg == nil {
		return err
	}
	cfg.Log, d.memberOf = d.log, memberOf(cfg)
	if s.inTheClear() {
		d.log.Warn().Strs("endpoints", s.Endpoints).Msg("cluster: all that VMs have passes to etcd and back in the clear; use https")
	}
	for setting, file := range map[string]string{"key_file": s.KeyFile, "password_file": s.PasswordFile, "key": s.Key} {
		if st, err := os.Stat(file); err == nil && st.Mode().Perm()&0o007 != 0 {
			d.log.Warn().Str("file", file).Str("mode", fmt.Sprintf("%04o", st.Mode().Perm())).Msg("cluster." + setting + ": every user of this system has access to it; give it to meta9d's user alone (chmod 600)")
		}
	}
	if d.cfg.Data != "" && usable(d.cfg.Data, os.O_RDONLY) == nil {
		d.log.Warn().Str("data", d.cfg.Data).Msg("the data folder has VMs, and none of them is served: this host is one of a fleet, whose VMs are in etcd (docs/fleet.md)")
	}
	d.log.Info().Str("host", cfg.Host).Msg("one of a fleet")
	err = d.openCluster(ctx, cfg)
	switch {
	case ctx.Err() != nil:
		return errEnded
	case errors.Is(err, errs.Busy), errors.Is(err, errs.NoSpace): // it will mend without new settings
		return d.awaitCluster(ctx, *cfg, err)
	case err != nil:
		return misused("cluster: %s", errs.Detail(err))
	}
	return nil
}

// openCluster opens etcd, and takes this host's place in the fleet there.
func (d *daemon) openCluster(ctx context.Context, cfg *etcd.Config) (err error) {
	if d.etcd, err = etcd.Open(ctx, *cfg); err != nil {
		return err
	}
	if err = d.join(ctx, cfg.Host); err != nil {
		_ = d.etcd.Close()
	}
	return err
}

// awaitCluster is reachCluster of an etcd that was away, and says why.
func (d *daemon) awaitCluster(ctx context.Context, cfg etcd.Config, why error) error {
	without := &noCluster{since: time.Now()}
	without.why.Store(&why)
	d.log.Error().Str("error", detail(why)).Msg("cluster: etcd is away; there is no VM until it is back")
	if d.from == nil { // else the listeners are taken over with the VMs, and who is connected waits
		idle, err := d.withoutVMs(ctx, without)
		if err != nil {
			return err
		}
		defer idle.stop()
		systemd.Notify("READY=1\nSTATUS=without VMs: etcd is away")
	}
	for tries := 1; clusterPauses.Wait(ctx, tries); tries++ {
		err := d.openCluster(ctx, &cfg)
		if err == nil {
			d.log.Info().Dur("after", time.Since(without.since)).Msg("cluster: etcd is back")
			systemd.Notify("STATUS=")
			return nil
		}
		if was := without.why.Swap(&err); ctx.Err() == nil && (*was).Error() != err.Error() {
			d.log.Error().Str("error", detail(err)).Msg("cluster: etcd cannot be used")
		}
	}
	return errEnded
}

// detail is an error's text for the log, in one line and without the errno's, which is for
// clients.
func detail(err error) string { return oneLine(errors.New(errs.Detail(err))) }

// withoutVMs serves the admin's socket and the metrics from a daemon that has no VM.
func (d *daemon) withoutVMs(ctx context.Context, e *noCluster) (*daemon, error) {
	idle := &daemon{
		cfg: d.cfg, command: d.command, log: d.log.Level(zerolog.ErrorLevel), quit: d.quit, without: e, memberOf: d.memberOf,
		opened: make(chan struct{}), failed: make(chan struct{}), upgrades: newUpgrades(),
	}
	cfg, none := &idle.cfg, defaults()
	cfg.Data, cfg.Listen, cfg.MdataFrom, cfg.Libvirt, cfg.QMP, cfg.HTTP.Listen = "", nil, "", libvirtOff, none.QMP, nil
	var err error
	if idle.inherited, err = d.inherited.Again(); err == nil {
		err = idle.start(ctx, false)
	}
	if err != nil {
		close(idle.failed)
		idle.stop()
	}
	return idle, err
}

// noCluster is the engine of a host whose etcd is away: there is no VM, and none can be made.
type noCluster struct {
	since time.Time
	why   atomic.Pointer[error]
}

func (e *noCluster) Scan(func(key, value []byte) error) error { return nil }

// Apply refuses all.
func (e *noCluster) Apply(groups []store.Group) []error {
	return store.AllFailed(groups, store.Unchanged(errs.New(errs.Busy, "%s", e)))
}

func (e *noCluster) Number(string) uint64 { return 0 }

func (e *noCluster) Close() error { return nil }

// away is the error of all that wants the fleet while etcd is away at the start; nil: it is not.
func (d *daemon) away() error {
	if d.without == nil {
		return nil
	}
	return errs.New(errs.Busy, "%s", d.without)
}

// String says why there is no VM.
func (e *noCluster) String() string {
	return fmt.Sprintf("no VM is here until etcd is back, which cannot be used since %s: %s", e.since.UTC().Format(time.RFC3339), errs.Detail(*e.why.Load()))
}
