package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/httpunix"
	"meta9/tests/peers"
	"meta9/tests/proc"
	"meta9/tests/raw"
)

// The rows of a host of a fleet, whose VMs are in etcd: three members on this machine, each a
// process, and their clients in another one (tests/cluster/etcd).

// batchVMs is how many VMs are written to at once.
const batchVMs = 64

// inEtcd is a small fleet's host.
var inEtcd = fleet{1000, 50}

// inFleet is an entry of a meta9d that knows fleets.
func inFleet(e entry) entry {
	e.needs = "fs/store/etcd"
	return e
}

// etcdWrite is what a write costs that only its VM's owner can make, and only once.
func etcdWrite() row {
	const plain, same, fenced = "plain put", "same transaction", "meta9d Tswrite"
	return row{
		name: "etcdwrite", title: "a durable Tswrite to a VM that is in etcd, one at a time, beside a put by a client of it", unit: "writes/s", base: plain, free: true,
		entries: []entry{
			theirs(plain, func(b *bench) (figure, error) { return b.etcdLoad("put", 1) }),
			theirs(same, func(b *bench) (figure, error) { return b.etcdLoad("txn", 1) }),
			inFleet(ours(fenced, func(b *bench) (figure, error) { return b.writeVMs(1) })),
		},
		bars: []bar{{entry: fenced, text: "of a plain put", bound: 0.7, at: ratio(fenced, plain)}},
	}
}

// etcdBatch is what it costs that a host's writes go side by side in batches.
func etcdBatch() row {
	const plain, clients, vms = "64 plain puts", "64 clients", "64 VMs"
	return row{
		name: "etcdbatch", title: "64 VMs of one host that are written to at once, beside 64 clients of etcd, each with the same transaction", unit: "writes/s", base: clients, free: true,
		entries: []entry{
			theirs(clients, func(b *bench) (figure, error) { return b.etcdLoad("txn", batchVMs) }),
			inFleet(ours(vms, func(b *bench) (figure, error) { return b.writeVMs(batchVMs) })),
			theirs(plain, func(b *bench) (figure, error) { return b.etcdLoad("put", batchVMs) }),
		},
		bars: []bar{{entry: vms, text: "of 64 clients", bound: 0.9, at: ratio(vms, clients)}},
	}
}

// etcdRead is what a read costs at the host that owns the VM.
func etcdRead() row {
	const folder, fleet, folderPath, fleetPath = "data folder", "etcd", "data folder, by path", "etcd, by path"
	return row{
		name: "etcdread", title: "reads of a VM that is in etcd, at its owner, beside one in a data folder: 32 in flight on an open fid, and one at a time by path", unit: "reads/s", base: folder,
		entries: []entry{
			loaded(folder, sMeta9, 1, 32, openRead),
			inFleet(loaded(fleet, sFleet, 1, 32, openRead)),
			loaded(folderPath, sMeta9, 1, 1, byMacro),
			inFleet(loaded(fleetPath, sFleet, 1, 1, byMacro)),
		},
		bars: []bar{
			{entry: fleet, text: "of the data folder's", bound: 0.95, at: ratio(fleet, folder)},
			{entry: fleetPath, text: "of the data folder's", bound: 0.95, at: ratio(fleetPath, folderPath)},
		},
	}
}

func etcdStart() row {
	r := atMost("etcdstart", "from exec to ready, 1,000 VMs of 50 keys that are in etcd (a tenth if -short)", "s", 2, (*bench).etcdTime)
	r.entries[0] = inFleet(r.entries[0])
	return r
}

// etcdCluster is the cluster of a run.
type etcdCluster struct {
	proc      *proc.Proc
	http      *http.Client
	endpoints []string
	prefixes  int
}

// cluster gives the run's etcd, which is built and started when it is first asked for.
func (b *bench) cluster() (*etcdCluster, error) {
	if b.etcds != nil {
		return b.etcds, nil
	}
	if b.etcd == "" {
		b.etcd = filepath.Join(b.tmp, "etcd")
		cmd := exec.Command("go", "build", "-o", b.etcd, "./etcd")
		cmd.Dir = filepath.Join(b.tree.root, "tests", "cluster")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build tests/cluster/etcd: %w\n%s", err, said)
		}
	}
	dir, err := b.dirFor("etcd")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "socket")
	c := &etcdCluster{http: httpunix.Client(socket)}
	if err := b.startOn(&b.cpus.all, func() error { // whatever is measured just now
		c.proc, err = proc.Start(exec.Command(b.etcd, "-dir", filepath.Join(dir, "data"), "-socket", socket), time.Minute)
		return err
	}); err != nil {
		return nil, err
	}
	b.etcds = c
	return c, c.get("/endpoints", &c.endpoints)
}

func (c *etcdCluster) get(path string, into any) error {
	code, body, err := httpunix.Get(c.http, path)
	if err == nil && code != http.StatusOK {
		err = errors.New(strings.TrimSpace(body))
	}
	if err != nil {
		return fmt.Errorf("etcd %s: %w", path, err)
	}
	return json.Unmarshal([]byte(body), into)
}

// settings are a meta9d's that is a fleet's only host, in dir, with VMs of its own.
func (c *etcdCluster) settings(dir string) (string, error) {
	c.prefixes++
	key := filepath.Join(dir, "fleet.key")
	err := os.WriteFile(key, []byte("a secret of the bench's fleet\n"), 0o600)
	return fmt.Sprintf("[cluster]\nendpoints = [\"%s\"]\nprefix = \"/bench%d/\"\nhost = \"bench\"\nkey_file = %q\n",
		strings.Join(c.endpoints, `", "`), c.prefixes, key), err
}

// etcdTimes is how much longer writes to etcd are measured than other loads: each waits for
// several processes.
const etcdTimes = 4

// etcdLoad has clients of etcd write to it, by themselves.
func (b *bench) etcdLoad(kind string, clients int) (figure, error) {
	c, err := b.cluster()
	if err != nil {
		return figure{}, err
	}
	q := url.Values{"kind": {kind}, "clients": {strconv.Itoa(clients)}, "ms": {strconv.Itoa(int((etcdTimes * b.time).Milliseconds()))}}
	var rep struct {
		Ops     int           `json:"ops"`
		Elapsed time.Duration `json:"elapsed_ns"`
		P50     time.Duration `json:"p50_ns"`
		P99     time.Duration `json:"p99_ns"`
	}
	if err := c.get("/load?"+q.Encode(), &rep); err != nil {
		return figure{}, err
	}
	if rep.Ops == 0 {
		return figure{}, errors.New("not one write was done")
	}
	return figure{value: float64(rep.Ops) / rep.Elapsed.Seconds(), p50: rep.P50, p99: rep.P99}, nil
}

// writeVMs has as many connections write to a fleet's host, each to a VM of its own.
func (b *bench) writeVMs(vms int) (figure, error) {
	in, err := b.instance(sFleet)
	if err != nil {
		return figure{}, err
	}
	loaders := make([]*loader, vms)
	for i := range loaders {
		if loaders[i], err = newLoader(in, i, 1, toOwnVM); err != nil {
			return figure{}, err
		}
		defer loaders[i].c.Close()
	}
	return drive(loaders, etcdTimes*b.time)
}

// toOwnVM is byWrite to connection i's VM.
func toOwnVM(_ *instance, c *raw.Conn, i int) (s script, err error) {
	if err := c.Attach(1, "vms/"+scaleUUID(i)+"/keys"); err != nil {
		return s, err
	}
	s.add(wire.Rswrite, raw.Frame(wire.Tswrite, 1, uint32(1), []string{fileName(i)}, raw.Data(fileValue())))
	return s, nil
}

// createOwnVMs makes the VMs that toOwnVM writes to.
func createOwnVMs(d *daemon.Daemon) error {
	for i := range batchVMs {
		if err := d.Create(payload(scaleUUID(i), peers.Files{fileName(i): fileValue()})); err != nil {
			return err
		}
	}
	return nil
}

// etcdData gives the folder and the settings of a host that has VMs in etcd, made once a run
// and build.
func (b *bench) etcdData() (o daemon.Options, err error) {
	u := b.build()
	if u.etcd.Dir != "" {
		return u.etcd, nil
	}
	c, err := b.cluster()
	if err != nil {
		return o, err
	}
	o.Bin = u.meta9d
	if o.Dir, err = b.dirFor("host"); err != nil {
		return o, err
	}
	if o.Config, err = c.settings(o.Dir); err != nil {
		return o, err
	}
	o.Config = scaleConfig + o.Config
	d, err := daemon.Start(o)
	if err != nil {
		return o, err
	}
	defer d.Kill()
	if err := b.createVMs(d, inEtcd); err != nil {
		return o, err
	}
	u.etcd = o
	return o, d.Stop(time.Minute)
}

// etcdTime starts meta9d as a host that has VMs in etcd.
func (b *bench) etcdTime() (figure, error) {
	o, err := b.etcdData()
	if err != nil {
		return figure{}, err
	}
	begin := time.Now()
	d, err := daemon.Start(o)
	if err != nil {
		return figure{}, err
	}
	took := time.Since(begin)
	defer d.Kill()
	c, err := d.Dial("vms/" + scaleUUID(b.scaled(inEtcd.vms)-1) + "/keys")
	if err != nil {
		return figure{}, err
	}
	defer c.Close()
	got, err := c.Sread(0, "key049")
	if err == nil && string(got) != fileValue() {
		err = fmt.Errorf("a key of the last VM is %.40q", got)
	}
	return figure{value: took.Seconds()}, err
}
