package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meta9/cmd/version"
	"meta9/fs"
	"meta9/session/fleet"
	"meta9/session/listen"
)

// askTime is how long a request may wait for etcd.
const askTime = 5 * time.Second

// join makes this host a member of the fleet. Errors: as fleet.Join's.
func (d *daemon) join(ctx context.Context, host string) error {
	instance, err := d.instance()
	if err != nil {
		return err
	}
	d.member, err = fleet.Join(ctx, fleet.MemberConfig{
		Cluster: d.etcd, Host: host, Addresses: d.adminAddresses(), Version: version.String(), Instance: instance,
		TTL: time.Duration(d.cfg.Cluster.TTL), Log: d.log,
	})
	return err
}

// instance is fleet.MemberConfig's: made of the machine's ID and the run folder, it is the
// same for the next meta9d with that run folder, and two that run at one time differ in it.
func (d *daemon) instance() (string, error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return "", misused("cluster: which machine this is cannot be known: %w", err)
	}
	run, err := filepath.Abs(d.cfg.Run)
	if err != nil {
		return "", err
	}
	// The machine's ID is not to be told to others as it is (machine-id(5)).
	sum := sha256.Sum256([]byte("meta9 instance\x00" + strings.TrimSpace(string(id)) + "\x00" + run))
	return fmt.Sprintf("%x", sum[:16]), nil
}

// adminAddresses are where the admin of other hosts reaches this one: by tls.
func (d *daemon) adminAddresses() (all []string) {
	if d.cfg.TLS.Admin == "" {
		return nil
	}
	for _, text := range d.cfg.Listen {
		a, err := listen.Parse(text)
		if err != nil || a.Net != listen.TLS {
			continue
		}
		host, port, err := net.SplitHostPort(a.Host)
		if err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
			// Others do not reach "every address"; they may know the host by its name.
			name, err := os.Hostname()
			if err != nil {
				continue
			}
			host = name
		}
		all = append(all, "tls:"+net.JoinHostPort(host, port))
	}
	return all
}

// newFleet makes what moves VMs between this host and others. It comes before the store's
// first change.
func (d *daemon) newFleet(tree *fs.Tree) error {
	if d.member != nil || d.without != nil {
		tree.GraftRoot("fleet", d.fleetFolder)
		tree.RootVerb("fleet", d.fleetVerb)
	}
	if d.member == nil {
		return nil
	}
	secret, err := secretIn("cluster.key_file", d.cfg.Cluster.KeyFile)
	if err != nil {
		return err
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "meta9 sessions of a fleet", 32)
	if err != nil {
		return err
	}
	d.fleet = fleet.New(fleet.Config{
		Member: d.member, Store: d.store, Tree: tree, Server: d.server, Key: key,
		Name: d.cfg.Cluster.Prefix, Patience: time.Duration(d.cfg.Cluster.Patience),
		Drop: d.dropVM, Quiet: d.quietVM, Running: d.runsHere, Kept: func() { d.keepJournal(tree) }, Log: d.log,
		Changed: func(uuid string) {
			if own := d.own; own != nil {
				own.Changed(uuid)
			}
		},
	})
	d.verbs, d.endVerbs = context.WithCancel(context.Background())
	return nil
}

// restoreFleet restores the sessions that came with VMs. It changes nothing in etcd: where this is
// a live update that fails, the process before this one goes on, and needs them there.
func (d *daemon) restoreFleet(told context.Context) error {
	if d.fleet == nil {
		return nil
	}
	within := fleetVerbTime
	if d.from != nil { // in a live update connected guests wait; the old process has served them
		within = time.Duration(d.cfg.Cluster.Patience)
	}
	ctx, cancel := context.WithTimeout(told, within)
	defer cancel()
	if err := d.fleet.Restore(ctx); err != nil {
		return notStarted(told, err)
	}
	if d.fleetBefore != nil {
		d.fleet.Remember(ctx, *d.fleetBefore)
	}
	return nil
}

// startFleet comes when there is no way back, before anybody is served.
func (d *daemon) startFleet(told context.Context) error {
	if d.fleet == nil {
		return nil
	}
	ctx := told
	if d.from == nil { // else there are connections that wait, and only this program has their sessions
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(told, fleetVerbTime)
		defer cancel()
	}
	if err := d.fleet.Start(ctx); err != nil {
		return notStarted(told, err)
	}
	return nil
}

// notStarted is the error of a start that has waited for etcd: errEnded once told has ended.
func notStarted(told context.Context, err error) error {
	if told.Err() != nil {
		return errEnded
	}
	return fmt.Errorf("cluster: %w", err)
}

// stopFleet ends claims and hand-overs.
func (d *daemon) stopFleet() {
	if d.fleet != nil {
		d.fleet.Stop()
	}
}

// leaveFleet says that this host does not live any more: others need not wait. A live update
// keeps the lease for the next program.
func (d *daemon) leaveFleet() {
	switch {
	case d.member == nil:
		return
	case d.leaves():
		d.member.StopRefresh()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	if err := d.member.Leave(ctx); err != nil {
		d.log.Warn().Str("error", oneLine(err)).Msg("the lease in etcd ends by itself: it could not be given up")
	}
}
