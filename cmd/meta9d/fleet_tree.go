package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/ring"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/session/fleet"
)

// The files of fleet/ have no VM: their numbers come from their names.
func fleetPath(name string) uint64 { return fs.DerivedPath(0, "fleet", name) }

// fleetFolder is fleet/ of the admin's root.
func (d *daemon) fleetFolder(_ fs.Principal, v *fs.View) fs.Node {
	file := func(name string, content func() ([]byte, error)) fs.NamedNode {
		return fs.NamedNode{Name: name, Node: fs.NewFile(fleetPath(name), 0o400, func() ([]byte, error) {
			if err := d.away(); err != nil {
				return nil, err
			}
			return content()
		})}
	}
	return fs.NewFolder(fleetPath(""), func() []fs.NamedNode {
		events := file("events", nil) // where d.away is an error
		if d.fleet != nil {
			events.Node = fs.NewStream(fleetPath("events"), 0o400, fleetEvents{d.fleet.Events()})
		}
		return []fs.NamedNode{
			file("hosts", func() ([]byte, error) { return d.fleetHosts(v) }),
			file("claimable", func() ([]byte, error) { return d.fleetClaimable(v) }),
			{Name: "vms", Node: &fleetVMs{d: d, v: v}},
			{Name: "names", Node: &fleetVMs{d: d, v: v, names: true}},
			events,
		}
	})
}

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
			Draining  bool     `json:"draining,omitempty"`
			Addresses []string `json:"addresses"`
			Version   string   `json:"version,omitempty"`
		}{h.Host, map[bool]string{false: "lives", true: "fenced"}[h.Fenced], h.Host == d.fleet.Status().Host, h.Draining, orEmpty(h.Addresses), h.Version})
	}
	return b, nil
}

// mostClaimable is how many VMs fleet/claimable lists: some 800 KB.
const mostClaimable = 10_000

// fleetClaimable is fleet/claimable: a line of JSON for each VM that no living host has, and one
// more where there are more of them.
func (d *daemon) fleetClaimable(v *fs.View) ([]byte, error) {
	return fs.Ask(v, "fleet/claimable", func() (b []byte, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		all, more, err := d.etcd.Claimable(ctx, mostClaimable)
		for _, c := range all {
			b = appendLine(b, struct {
				UUID string `json:"uuid"`
				Host string `json:"host"` // "": nobody's
			}{c.UUID, c.Host})
		}
		if more {
			b = appendLine(b, struct {
				More bool `json:"more"`
			}{true})
		}
		return b, err
	})
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
	if err := d.away(); err != nil {
		return nil, err
	}
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
		Own       bool     `json:"own,omitempty"`         // this host's, whether it is here already or not
		Since     string   `json:"stale_since,omitempty"` // what is here may be old
		Addresses []string `json:"addresses,omitempty"`   // of the host, where it lives and is reached by others
	}{is.uuid, is.host, is.epoch, here, is.host == d.member.Host(), stampOrNone(since), is.addresses}), nil
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
