package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/cmd/version"
	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/ring"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/session/fleet"
	"meta9/session/listen"
	"meta9/session/packet"
)

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
		Drop: d.dropVM, Quiet: d.quietVM, Running: d.runsHere, Kept: func() error { return d.keepJournal(tree) }, Log: d.log,
		Changed: func(uuid string) {
			if own := d.own; own != nil {
				own.Changed(uuid)
			}
		},
	})
	d.verbs, d.endVerbs = context.WithCancel(context.Background())
	tree.GraftRoot("fleet", d.fleetFolder)
	tree.RootVerb("fleet", d.fleetVerb)
	return nil
}

// startFleet takes up what came with VMs, before anybody is served.
func (d *daemon) startFleet() error {
	if d.fleet == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), fleetVerbTime)
	defer cancel()
	if err := d.fleet.Start(ctx); err != nil {
		return err
	}
	if d.fleetBefore != nil {
		d.fleet.Remember(ctx, *d.fleetBefore)
	}
	return nil
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

// runsHere tells that a QEMU of this host runs the VM, by QMP.
func (d *daemon) runsHere(uuid string) bool { return d.hosts != nil && d.hosts.Runs(uuid) }

// seen is called when a hypervisor of this host has a VM that this meta9d does not have.
// state is in QEMU's words (RunState of qapi/run-state.json). A VM that runs is claimed; one
// that waits for its migration to this host gets its sockets. elsewhere: some host of the
// fleet has the VM, so no new one must be created.
func (d *daemon) seen(ctx context.Context, uuid, state string) (elsewhere bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if state == "inmigrate" {
		err = d.fleet.Expect(ctx, uuid)
	} else {
		_, err = d.fleet.Where(ctx, uuid)
	}
	if errors.Is(err, errs.NotFound) {
		return false, nil
	}
	if err == nil && state == "running" {
		d.fleet.Appears(uuid, "its hypervisor says that it runs here")
	}
	return err == nil, err
}

// quietVMTime is how long a VM's requests by other protocols than 9P may delay its move to
// another host.
const quietVMTime = 2 * time.Second

// quietVM ends a VM's connections of other protocols than 9P before the VM moves. Whole
// requests by the metadata protocol are answered first, so that none fails. The guest
// connects again, and is served after again was called, or on the other host.
func (d *daemon) quietVM(uuid string) (again func()) {
	ctx, cancel := context.WithTimeout(context.Background(), quietVMTime)
	defer cancel()
	again = d.mdata.Quiet(ctx, uuid)
	d.nocloud.DropVM(uuid)
	return again
}

// dropVM ends all connections of a VM.
func (d *daemon) dropVM(uuid string) {
	d.server.DropVM(uuid)
	d.mdata.DropVM(uuid)
	d.nocloud.DropVM(uuid)
}

// vmHere is the VM as it is now. Where another host has it and this one expects it
// (fleet.Fleet.Expect), it is the VM as it was when that began. nil: neither.
func (d *daemon) vmHere(uuid string) *vm.VM {
	if v := d.vm(uuid); v != nil || d.fleet == nil {
		return v
	}
	return d.fleet.Expected(uuid)
}

// arrives waits until the VM whose guest has come by c is here; false: c is not to be
// served. It is closed then, or a live update hands it over.
func (d *daemon) arrives(c net.Conn, w waitingConn) bool {
	if d.fleet == nil || w.VM == "" {
		return true
	}
	u := d.upgrades
	u.mu.Lock()
	if u.arriving == nil {
		u.arriving = make(map[net.Conn]waitingConn)
	}
	u.arriving[c] = w
	u.mu.Unlock()
	err := d.fleet.Arrive(c, w.VM)
	_, link := c.(*packet.Link)
	if err != nil && d.leaves() && !link {
		return false
	}
	u.mu.Lock()
	delete(u.arriving, c)
	u.mu.Unlock()
	if err != nil {
		d.log.Debug().Str("vm", w.VM).Err(err).Msg("a guest's connection is closed: its VM is not here")
		_ = c.Close()
		return false
	}
	return true
}

// The files of fleet/ have no VM: their numbers come from their names.
func fleetPath(name string) uint64 { return fs.DerivedPath(0, "fleet", name) }

// fleetFolder is fleet/ of the admin's root.
func (d *daemon) fleetFolder(_ fs.Principal, v *fs.View) fs.Node {
	return fs.NewFolder(fleetPath(""), func() []fs.NamedNode {
		return []fs.NamedNode{
			{Name: "hosts", Node: fs.NewFile(fleetPath("hosts"), 0o400, func() ([]byte, error) { return d.fleetHosts(v) })},
			{Name: "vms", Node: &fleetVMs{d: d, v: v}},
			{Name: "names", Node: &fleetVMs{d: d, v: v, names: true}},
			{Name: "events", Node: fs.NewStream(fleetPath("events"), 0o400, fleetEvents{d.fleet.Events()})},
		}
	})
}

// askTime is how long a request may wait for etcd.
const askTime = 5 * time.Second

// fleetHosts is fleet/hosts: a line of JSON for each host that lives or is fenced.
func (d *daemon) fleetHosts(v *fs.View) ([]byte, error) {
	all, err := fs.Ask(v, "fleet/hosts", func() ([]store.HostInfo, error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		return d.fleet.Hosts(ctx)
	})
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, h := range all {
		b = appendLine(b, struct {
			Host      string   `json:"host"`
			State     string   `json:"state"` // "lives" or "fenced"
			Here      bool     `json:"here,omitempty"`
			Addresses []string `json:"addresses"`
			Version   string   `json:"version,omitempty"`
		}{h.Host, map[bool]string{false: "lives", true: "fenced"}[h.Fenced], h.Host == d.fleet.Status().Host, orEmpty(h.Addresses), h.Version})
	}
	return b, nil
}

// orEmpty makes JSON say [] and not null.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func appendLine(b []byte, v any) []byte {
	line, _ := json.Marshal(v) // strings, numbers and bools
	return append(append(b, line...), '\n')
}

// fleetVMs is fleet/vms, and fleet/names: a file for each VM of the fleet, whosever it is, by its
// UUID or its alias. It lists none: they may be a hundred thousand, and etcd would be asked
// for all. vms/ and names/ list this host's.
type fleetVMs struct {
	d     *daemon
	v     *fs.View
	names bool
}

func (n *fleetVMs) name() string {
	if n.names {
		return "names"
	}
	return "vms"
}

func (n *fleetVMs) QID() p9.QID { return p9.QID{Type: p9.TypeDir, Path: fleetPath(n.name())} }

// Stat is fs.Node's.
func (n *fleetVMs) Stat(st *fs.Stat) error {
	*st = fs.Stat{QID: n.QID(), Mode: 0o755, Name: n.name()}
	return nil
}

// Walk leads to the file of any UUID or alias; whether a host has the VM is found when it is
// read.
func (n *fleetVMs) Walk(name string) (fs.Node, error) {
	alias, err := vm.KeyName(name)
	if err != nil || !n.names && vm.ValidUUID(name) != nil {
		return nil, errs.NotFound
	}
	if !n.names {
		alias = ""
	}
	return fs.NewFile(fleetPath(n.name()+"/"+name), 0o400, func() ([]byte, error) { return n.d.whereIs(n.v, name, alias) }), nil
}

// List lists nothing.
func (n *fleetVMs) List(uint64, func(uint64, *fs.Stat) bool) error { return nil }

// whereAbouts is what etcd says of a VM.
type whereAbouts struct {
	uuid, host string
	epoch      uint64
	addresses  []string // of the host, where it lives
}

// find asks etcd for a VM, by its alias where that is not "".
func (d *daemon) find(ctx context.Context, uuid, alias string) (is whereAbouts, err error) {
	if alias != "" {
		if uuid, err = d.fleet.Named(ctx, alias); errors.Is(err, errs.NotFound) {
			if here := d.uuidHere("", alias); here != "" { // without a link: etcd does not have the alias
				uuid, err = here, nil
			}
		}
		if err != nil {
			return is, err
		}
	}
	owner, err := d.fleet.Where(ctx, uuid)
	if err != nil {
		return is, err
	}
	hosts, err := d.fleet.Hosts(ctx)
	is = whereAbouts{uuid: uuid, host: owner.Host, epoch: owner.Epoch}
	for _, h := range hosts {
		if h.Host == owner.Host {
			is.addresses = h.Addresses
		}
	}
	return is, err
}

// whereIs is a VM's file in fleet/vms or fleet/names.
func (d *daemon) whereIs(v *fs.View, name, alias string) ([]byte, error) {
	is, err := fs.Ask(v, "fleet/"+alias+"/"+name, func() (whereAbouts, error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		return d.find(ctx, name, alias)
	})
	since, stale := d.member.Since()
	if _, pending := fs.AsPending(err); err != nil && !pending && stale {
		// As it was the last time that etcd answered.
		if uuid := d.uuidHere(name, alias); uuid != "" {
			is, err = whereAbouts{uuid: uuid, host: d.member.Host()}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	here := d.vm(is.uuid) != nil
	if !here || !stale {
		since = time.Time{}
	}
	return appendLine(nil, struct {
		UUID      string   `json:"uuid"`
		Host      string   `json:"host"`            // "": nobody's
		Epoch     uint64   `json:"epoch,omitempty"` // 0: etcd does not answer
		Here      bool     `json:"here"`
		Since     string   `json:"stale_since,omitempty"` // what is here may be old
		Addresses []string `json:"addresses,omitempty"`   // of the host, where it lives and is reached by others
	}{is.uuid, is.host, is.epoch, here, stampOrNone(since), is.addresses}), nil
}

// uuidHere is the VM that is here, by its alias where that is not ""; "": it is not.
func (d *daemon) uuidHere(uuid, alias string) string {
	if alias != "" {
		cell := d.store.Alias(alias)
		if cell == nil {
			return ""
		}
		uuid = cell.UUID()
	}
	if d.vm(uuid) == nil {
		return ""
	}
	return uuid
}

// stampOrNone is stamp, and "" for the zero time.
func stampOrNone(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t)
}

// fleetEvents is the content of fleet/events: a line of JSON for each fleet.Event.
type fleetEvents struct{ ring *ring.Ring[fleet.Event] }

func (s fleetEvents) Last() uint64 { return s.ring.Last() }

// Wait is the ring's.
func (s fleetEvents) Wait(after uint64, wake func()) (cancel func(), ready bool) {
	return s.ring.Wait(after, wake)
}

// Lines is fs.Source's.
func (s fleetEvents) Lines(after uint64, room int) (buf []byte, to uint64, ended bool) {
	found := make([]fleet.Event, 0, 16)
	for to = after; ; {
		events, lost := s.ring.After(to, cap(found), found[:0])
		if lost != 0 {
			buf, to = fs.AppendLost(buf, to+1, lost), lost
		}
		if len(events) == 0 {
			return buf, to, false
		}
		for i := range events {
			e := &events[i]
			line := len(buf)
			buf = appendLine(buf, struct {
				Position uint64 `json:"position"`
				Date     string `json:"date"`
				Type     string `json:"type"`
				VM       string `json:"vm,omitempty"`
				From     string `json:"from,omitempty"`
				To       string `json:"to,omitempty"`
				Sessions int    `json:"sessions,omitempty"`
				TookMS   int64  `json:"took_ms,omitempty"`
				Since    string `json:"since,omitempty"`
				What     string `json:"what,omitempty"`
			}{e.Position, stamp(e.Date), e.Type, e.VM, e.From, e.To, e.Sessions, e.Took.Milliseconds(), stampOrNone(e.Since), e.What})
			if line > 0 && len(buf) > room {
				return buf[:line], to, false
			}
			to = e.Position
		}
	}
}

// fleetVerbTime is how long a verb may take that waits for other hosts, where its caller
// sets no shorter time.
const fleetVerbTime = 2 * time.Minute

// fleetVerb is the root's verb "fleet WHAT ...", for the admin. Each may wait for other
// hosts, and runs in a goroutine of its own.
func (d *daemon) fleetVerb(c fs.Call, done func(error)) {
	words := strings.Fields(c.Arg)
	what := ""
	if len(words) > 0 {
		what, words = words[0], words[1:]
	}
	v, known := fleetVerbs[what]
	switch {
	case !known:
		done(errs.New(errs.Invalid, "fleet %.32q: there is claim UUID, release UUID [HOST], expect UUID, unexpect UUID, drain, undrain, fence HOST", what))
		return
	case len(words) < v.least || len(words) > v.most:
		done(errs.New(errs.Invalid, "it is fleet %s", v.usage))
		return
	}
	if v.ofVM {
		uuid, err := vm.ParseUUID(words[0])
		if err != nil {
			done(err)
			return
		}
		words[0] = uuid
	}
	go func() {
		ctx, cancel := context.WithTimeout(d.verbs, fleetVerbTime)
		defer cancel()
		said, err := v.do(d, ctx, words)
		if err == nil && said != nil && c.Answer != nil {
			c.Answer(appendLine(nil, said))
		}
		done(err)
	}()
}

// fleetVerbs are what may follow the root's verb fleet. said, if not nil, becomes a line of
// JSON that the caller reads from ctl.
var fleetVerbs = map[string]struct {
	usage       string
	least, most int // words after the verb
	ofVM        bool
	do          func(d *daemon, ctx context.Context, words []string) (said any, err error)
}{
	"claim": {"claim UUID", 1, 1, true, func(d *daemon, ctx context.Context, w []string) (any, error) {
		return nil, d.fleet.Claim(ctx, w[0])
	}},
	"release": {"release UUID [HOST]", 1, 2, true, func(d *daemon, ctx context.Context, w []string) (any, error) {
		to := ""
		if len(w) > 1 {
			to = w[1]
		}
		return nil, d.fleet.Release(ctx, w[0], to)
	}},
	"expect": {"expect UUID", 1, 1, true, func(d *daemon, ctx context.Context, w []string) (any, error) {
		if err := d.fleet.Expect(ctx, w[0]); err != nil {
			return nil, err
		}
		made := make(chan struct{})
		d.made(w[0], func() { close(made) })
		select {
		case <-made:
			return nil, nil
		case <-ctx.Done():
			return nil, errs.New(errs.IO, "its sockets are not there yet")
		}
	}},
	"unexpect": {"unexpect UUID", 1, 1, true, func(d *daemon, _ context.Context, w []string) (any, error) {
		d.fleet.Unexpect(w[0])
		return nil, nil
	}},
	"drain": {"drain", 0, 0, false, func(d *daemon, ctx context.Context, _ []string) (any, error) {
		gone, stay, err := d.fleet.Drain(ctx)
		why := ""
		if err != nil {
			why = oneLine(err)
		}
		return struct {
			Gone int    `json:"gone"`
			Stay int    `json:"stay"`
			Why  string `json:"why,omitempty"` // of the first that stays
		}{gone, stay, why}, nil
	}},
	"undrain": {"undrain", 0, 0, false, func(d *daemon, _ context.Context, _ []string) (any, error) {
		d.fleet.Undrain()
		return nil, nil
	}},
	"fence": {"fence HOST", 1, 1, false, func(d *daemon, ctx context.Context, w []string) (any, error) {
		return nil, d.fleet.Fence(ctx, w[0])
	}},
}
