package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"meta9/cmd/systemd"
	"meta9/cmd/version"
	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/etcd"
	libvirt "meta9/mdbridge/libvirt/server"
	mdata "meta9/mdbridge/mdata/server"
	nocloud "meta9/mdbridge/nocloud/server"
	"meta9/mdbridge/qmp/hosts"
	qmp "meta9/mdbridge/qmp/server"
	vminfo "meta9/mdbridge/vminfo/server"
	"meta9/mdbridge/vminfo/server/mirror"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/fleet"
	"meta9/session/listen"
	"meta9/session/residence"
)

// drainTime is how long the end waits for connections that have begun something.
const drainTime = 15 * time.Second

// silentTime is how long the end waits for a fleet's etcd that does not answer. It is longer than
// drainTime, so that a slow etcd has as long as a disk.
const silentTime = drainTime + 5*time.Second

// daemon is what runs. undo ends it, the last part first.
type daemon struct {
	cfg     config  // as it runs: what a reload has left alone is as it was
	command command // as it was given
	log     zerolog.Logger
	store   *store.Store
	commits prometheus.Histogram // how long they took
	budget  *budget.Budget
	server  *session.Server
	mdata   *mdata.Server
	vminfo  *vminfo.Server
	nocloud *nocloud.Server
	mirror  *mirror.Mirror // nil: the daemon is no mirror
	qmp     *qmp.Server
	hosts   *hosts.Hosts      // nil: no QEMUs are looked for
	libvirt *libvirt.Follower // nil: none is followed
	own     *listen.VMs       // the VMs' own channels
	tallies tallies           // of connections
	denied  listen.Denied     // certificates
	certs   atomic.Pointer[tls.Config]
	admins  int // the group of admins; 0: there is none
	quit    context.CancelFunc
	undo    []func()

	etcd     *etcd.Engine // the fleet's; nil: the VMs are in the data folder
	memberOf string       // as the function's, of the settings that this program began with
	member   *fleet.Member
	fleet    *fleet.Fleet    // nil: this host is in none
	verbs    context.Context // of the verbs that wait for other hosts; it ends before all else
	endVerbs context.CancelFunc
	without  *noCluster // this daemon has no VM, and why; nil: it may have some

	fleetBefore *fleet.Memory // of the program before, in a live update; nil: there was none

	folder        *bolt.Engine // nil: no session outlives the process
	folderID      [16]byte
	restored      residence.Report
	journal       *residence.Journal // nil: none
	boot          string             // the kernel's boot id
	keepsSessions bool               // at the end they are left in the data folder
	left          bool               // and were

	from      *handover // nil: the process has begun with this program
	upgrades  *upgrades
	inherited *listen.Inherited
	opened    chan struct{} // closed when all is there; nothing is served before
	failed    chan struct{} // closed when the start has failed, and this program ends

	mu     sync.Mutex
	shared []*listen.Listener // the configured ones, for Recheck
}

// serve runs the daemon until a signal ends it.
func serve(c command, stdout, stderr io.Writer) error {
	ctx, quit := context.WithCancel(untilSignal())
	defer quit()
	// The memory has the keys of sessions and the secrets of the settings: none of it goes into
	// a core file, whatever core_pattern says (prctl(2)). Debuggers are root's.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it cannot fail
	zerolog.SetGlobalLevel(levels[c.config.LogLevel])
	d := &daemon{
		cfg: c.config, command: c, log: newLog(stderr), quit: quit,
		from: c.from, inherited: new(listen.Inherited), opened: make(chan struct{}), failed: make(chan struct{}), upgrades: newUpgrades(),
	}
	defer d.stop()
	hangups := c.hangups()
	d.upgradesAt(ctx)
	if err := d.inheritSystemd(); err != nil {
		return err
	}
	if d.from != nil {
		watch := time.AfterFunc(readyTime, func() { _ = d.from.back(fmt.Errorf("it did not serve within %v", readyTime)) })
		defer watch.Stop()
	}
	told := d.toldToEnd(ctx)
	err := d.reachCluster(told)
	if err == nil {
		err = d.start(told, c.salvage)
	}
	switch {
	case err == errEnded:
		d.log.Info().Msg("told to end before it has served")
		close(d.failed)
		d.keepsSessions = d.keepsSessions && d.from == nil // else they have connections that go on nowhere, and are in the journal
		return nil
	case err != nil:
		d.startFailed()
		return err
	}
	go d.reloads(ctx, hangups)
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil && c.from == nil {
		return fmt.Errorf("standard output: %w", err)
	}
	systemd.Notify("READY=1")
	go freeMemory(ctx, func() int { return d.server.Stats().Asleep })
	d.wait(ctx)
	if !d.leaves() {
		systemd.Notify("STOPPING=1")
		return nil
	}
	notifyReloading()
	d.stop()
	if ctx.Err() != nil {
		return nil // as at a planned stop: DATA/residence is there
	}
	return d.execute()
}

// toldToEnd ends when a start is to wait for etcd no more: with ctx, or, where the program before
// has handed over what nobody else has, as late as an etcd is silent.
func (d *daemon) toldToEnd(ctx context.Context) context.Context {
	if d.from == nil {
		return ctx
	}
	told, end := context.WithCancel(context.Background())
	context.AfterFunc(ctx, func() { time.AfterFunc(silentTime, end) })
	return told
}

// start brings up each part on those below it. Once told has ended it waits for no etcd:
// errEnded.
func (d *daemon) start(told context.Context, salvage bool) error {
	keys, err := d.keyring()
	if err != nil {
		return err
	}
	if d.without == nil { // which has no sessions of VMs: what a killed meta9d has left stays until etcd is back
		d.openJournal()
	}
	if err := d.openStore(told, salvage); err != nil {
		return err
	}
	d.log.Info().Str("version", version.String()).Str("data", d.cfg.Data).Str("run", d.cfg.Run).
		Int("vms", d.store.Count()).Int64("bytes", d.store.Bytes()).Msg("meta9d")
	d.budget = budget.New(d.cfg.Limits.budget())
	d.atEnd(paceGC(d.budget))
	d.store.CPU().LendThreads()
	tree := fs.New(d.store, fs.Config{
		Budget: d.budget, Log: d.log, Version: version.String(), Status: d.status, Trouble: d.trouble, VMStatus: d.vmStatus, Made: d.made,
	})
	d.atEnd(func() { d.leave(tree) })
	noHypervisor(tree)
	tree.RootVerb("upgrade", d.upgradeVerb)
	if err := d.newMirror(); err != nil {
		return err
	}
	d.newVminfo()
	d.mdata = d.newMdata(tree)
	d.newNoCloud()
	d.graftUpstream(tree)
	d.newQMP(tree)
	d.newLibvirt()
	d.newServer(tree, keys)
	if err := d.newFleet(tree); err != nil {
		return err
	}
	if err := d.restore(tree); err != nil {
		return err
	}
	if err := d.restoreFleet(told); err != nil {
		return err
	}
	d.atEnd(d.stopFleet)
	if err := d.listen(); err != nil {
		return err
	}
	if err := d.serveHTTP(); err != nil {
		return err
	}
	if err := d.startQMP(); err != nil {
		return err
	}
	if err := d.beginServing(told); err != nil {
		return err
	}
	d.follow()
	d.warnDescriptors()
	return nil
}

// follow begins to learn of VMs from others: the mirror's upstream, QEMUs, libvirt. It comes
// after all else, as what they say makes commits.
func (d *daemon) follow() {
	d.runMirror()
	if d.hosts != nil {
		d.hosts.Start()
	}
	if d.libvirt != nil {
		d.libvirt.Start()
	}
}

// newServer makes the 9P server. When memory is short, the tree gives back of what it holds
// before the server does.
func (d *daemon) newServer(tree *fs.Tree, keys *auth.Keyring) {
	cfg := session.Config{
		Tree:     tree,
		Limits:   d.cfg.Limits.session(),
		Budget:   d.budget,
		Lifetime: time.Duration(d.cfg.Session.Lifetime),
		Auth:     keys,
		Fresh:    d.fresh(),
		Trace:    d.trace(d.cfg.Trace),
		Log:      d.log,
	}
	if d.journal != nil {
		cfg.Journal = d.journal
	}
	d.server = session.New(cfg)
	d.budget.OnShortage(tree.GiveBack)
	d.budget.OnShortage(d.server.GiveBack)
}

// waitOpen waits until all is there. It says false where that will not be: the start has
// failed.
func (d *daemon) waitOpen() bool {
	select {
	case <-d.opened:
		return true
	case <-d.failed:
		return false
	}
}

// atEnd adds what is to be done at the end, before all that was added earlier.
func (d *daemon) atEnd(f func()) { d.undo = append(d.undo, f) }

// stop undoes what start did, also where start got only half the way.
func (d *daemon) stop() {
	if d.fleet != nil {
		d.endVerbs()
	}
	if d.etcd != nil && d.store != nil {
		// etcd may be silent, and each part awaits what it has begun there: that is done or
		// not, and the next start finds out.
		late := time.AfterFunc(silentTime, d.store.Interrupt)
		defer late.Stop()
	}
	for len(d.undo) > 0 {
		last := len(d.undo) - 1
		undo := d.undo[last]
		d.undo = d.undo[:last]
		undo()
	}
}

// wait waits for the end, which may be a live update's (leaves), and says so if the store
// fails before it: then, as when the daemon is told to end, there is no live update.
func (d *daemon) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-d.upgrades.ready:
	case <-d.store.Failed():
	}
	if err := d.store.Err(); err != nil && ctx.Err() == nil {
		d.upgrades.refuse("the store has failed, a restart is needed: " + oneLine(err))
		d.log.Error().Err(err).Msg("the store failed; writes are refused, reads go on; restart when the cause is mended")
		systemd.Notify("STATUS=storage failed, writes are refused: " + oneLine(err))
		<-ctx.Done()
	}
	if ctx.Err() == nil {
		return
	}
	d.upgrades.refuse("meta9d is ending")
	d.log.Info().Msg("ending")
}

// drain lets what has begun be answered, for a while, and keeps the sessions where that
// is possible.
func (d *daemon) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	d.store.Hurry()
	end := d.endConns
	if d.leaves() {
		end = d.handConns
	}
	if err := end(ctx); err != nil {
		d.log.Warn().Err(err).Msg("not all connections ended by themselves")
	}
}

// endConns ends all connections.
func (d *daemon) endConns(ctx context.Context) error {
	other := make(chan error, 1)
	go func() { other <- d.mdata.Drain(ctx) }()
	end := d.server.Drain
	if d.keepsSessions {
		end = d.server.Freeze
	}
	return errors.Join(end(ctx), <-other)
}

// storeConfig is what the settings say of the store.
func (d *daemon) storeConfig(salvage bool) store.Config {
	l := &d.cfg.Limits
	cfg := store.Config{
		Limits: l.vm(), TotalBytes: int64(l.Bytes), BatchBytes: int64(l.VMBatch),
		Reserve:  store.Reserve{Keys: 256, Bytes: 1 << 20, Total: 16 << 20},
		VMEvents: int(l.VMEvents), RootEvents: int(l.Events),
		FirstRev: uint64(time.Now().UnixMicro()), // no store has commits faster
		Salvage:  salvage, ReadOnly: d.readOnly(), Log: d.log,
		Patience: time.Duration(d.cfg.Cluster.Patience), WriteRate: int64(d.cfg.Cluster.WriteRate),
	}
	if cfg.WriteRate == 0 {
		cfg.WriteRate = -1
	}
	if d.journal != nil {
		cfg.Journal = d.journal
	}
	return cfg
}

// openStore opens the data folder, memory or the fleet's etcd, and loads what is there.
func (d *daemon) openStore(told context.Context, salvage bool) error {
	e, err := d.engine(salvage)
	if err != nil {
		return err
	}
	// What is loaded stays, nearly all of it: collections would look through it again
	// and again and find nothing. GOMEMLIMIT holds all the same.
	collects := debug.SetGCPercent(-1)
	d.commits = newCommits()
	uninterrupted := func() bool { return true }
	if d.etcd != nil { // which may be silent; what is half done then is the next start's, as after a kill
		uninterrupted = context.AfterFunc(told, d.etcd.Interrupt)
	}
	d.store, err = store.Open(timed(e, d.commits), d.storeConfig(salvage))
	debug.SetGCPercent(collects)
	ended := !uninterrupted()
	if err != nil {
		closed := e.Close()
		switch {
		case ended:
			return errEnded
		case d.etcd != nil:
			return errors.Join(fmt.Errorf("cluster: %w", err), closed)
		}
		return errors.Join(fmt.Errorf("data folder %s: %w", d.cfg.Data, err), closed)
	}
	d.atEnd(func() {
		d.store.Stop()
		d.leaveFleet()
		if err := d.store.Close(); err != nil {
			d.log.Error().Err(err).Msg("closing the store")
		}
	})
	if ended {
		return errEnded
	}
	if err := d.claimFolder(); err != nil {
		return err
	}
	d.identify()
	if n := len(d.store.Salvaged()); n > 0 {
		d.log.Warn().Int("skipped", n).Msg("started without what is damaged")
	}
	return nil
}

// engine is the fleet's, or the data folder's, or one that keeps nothing. What the daemon
// may not use is an error of who started it; damage and another meta9d are not.
func (d *daemon) engine(salvage bool) (store.Engine, error) {
	switch {
	case d.without != nil:
		return d.without, nil
	case d.etcd != nil:
		return d.etcd, nil
	case d.cfg.Data == "":
		d.log.Warn().Msg("all is kept in memory only, and lost at the end")
		return store.NewMemory(), nil
	}
	err := usable(d.cfg.Data, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		err = creatable(d.cfg.Data)
	}
	if err != nil {
		return nil, misused("data: %w", err)
	}
	e, err := openData(d.cfg.Data, bolt.Options{Salvage: salvage})
	if err != nil {
		return nil, err
	}
	d.folder = e
	for _, remark := range e.Remarks() {
		d.log.Warn().Msg(remark)
	}
	return e, nil
}

// openToRead opens a data folder only to read it; name is the flag or the setting that names it.
func openToRead(name, dir string) (*bolt.Engine, error) {
	if err := usable(dir, os.O_RDONLY); err != nil {
		return nil, misused("%s: %w", name, err)
	}
	return openData(dir, bolt.Options{ReadOnly: true})
}

// openData opens the data file.
func openData(dir string, o bolt.Options) (*bolt.Engine, error) {
	e, err := bolt.Open(dir, o)
	switch {
	case errors.Is(err, errs.Busy):
		return nil, fmt.Errorf("data folder %s: in use by another meta9d", dir)
	case err != nil:
		return nil, fmt.Errorf("data folder %s: %w", dir, err)
	}
	return e, nil
}

// usable says why the data file is not there or may not be used, which the
// engine would say of a damaged one.
func usable(dir string, flag int) error {
	f, err := os.OpenFile(filepath.Join(dir, bolt.FileName), flag, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// creatable says why nothing can be made in dir, or dir where its parents end.
func creatable(dir string) error {
	err := unix.Access(dir, unix.W_OK|unix.X_OK)
	if up := filepath.Dir(dir); err == unix.ENOENT && up != dir {
		return creatable(up)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// trace is what is done with each message, if anything is.
func (d *daemon) trace(on bool) func(line string) {
	if !on {
		return nil
	}
	return func(line string) { d.log.Log().Msg(line) }
}
