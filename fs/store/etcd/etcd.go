// Package etcd is the engine of a fleet: several hosts' stores over one etcd cluster,
// each with the VMs that it owns. The names of keys are in keys.go.
//
// # Why no change is lost, made twice or made by two
//
// Every transaction of a VM compares the revisions of own/UUID and q/UUID with those that
// this engine has seen last, and writes q/UUID. The first compare fences a host that no
// longer owns the VM: whoever takes it writes own/UUID. The second lets one transaction
// follow on the one before, so that a copy of one that comes late, or again, does nothing.
// Therefore a transaction whose outcome is not known (a timeout, a member that died) is sent
// again until it is known: if a copy was made, the compare fails, and q/UUID holds what
// this transaction alone writes. "Outcome unknown" never leaves the engine. Where it is refused
// meanwhile, because etcd takes none of its size any more, or a VM has its alias, a small transaction with
// the same compares writes q/UUID: then it was done before that, or never will be (settle).
//
// A process that starts writes own/UUID anew for all that it owns (the epoch grows), and
// mark/HOST, before it reads: a transaction that the process before has sent is made by then or
// never.
//
// Where the VM has got another owner since, etcd's history tells: what q/UUID held when that
// one came is what it will have held for ever.
//
// A VM that is made has no revision yet that could be compared, and a deleted one has none either.
// So what makes a VM compares creations/HOST, and that is written where the VM may be deleted while a copy
// may still come: with the deletion, or with what gives the VM to another host, if the transaction that made
// it was sent several times; by who takes VMs of a dead host; and by the host's next process before it reads.
//
// A process that ends before it knows (Interrupt) leaves that to the next one, which finds the
// number of the VM's newest whole group in q/UUID.
//
// Changes of several VMs that compare nothing else go in one transaction: what one costs is hardly
// more for many VMs. It is done for all or for none. Where the compares of one VM fail it can never
// be done, since no revision comes again; then the others' changes are sent anew. Where etcd takes no
// transaction of that size they go in smaller ones. What each VM's part compares and writes is the
// same in all of them, so one of them is done, also if an earlier one comes late.
//
// What is too large for one transaction is written to a new generation of the VM's
// entries, in several, all fenced; the last one switches q/UUID to it and deletes the old
// one. What a process has left of an unfinished one is deleted when the VM is loaded, and so
// is a VM whose first group was never whole.
//
// An alias is one VM's in all the fleet: the transaction that gives it to a VM makes
// alias/NAME, and fails where that is there.
//
// An endpoint may lead to another etcd after the start, or to older data. No answer from there is
// taken (identity.go).
//
// Apply is called from one goroutine, the rest from any. Watch has a goroutine for each of its three
// watches, and they end before it returns. Engine.mu guards the table of VMs and the revisions of the
// host's own records, and is held over no call of etcd's.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-semver/semver"
	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/rarelog"
)

// Config says which etcd, and who is there. Zero durations take the defaults.
type Config struct {
	Endpoints []string // https://HOST:PORT
	Prefix    string   // of all keys; default "/meta9/v1/"
	Fleet     string   // the fleet's name; a prefix that another fleet uses is refused
	Host      string   // this host's name, which no other host of the fleet has
	TLS       *tls.Config
	CA, Cert  string // the files that TLS is of, for errors; "": there is none
	User      string
	Password  string
	Try       time.Duration // for one try of a transaction; 2 s
	Patience  time.Duration // for requests that may fail, and for the start; 10 s
	Log       zerolog.Logger
}

// Engine is one host's.
type Engine struct {
	cfg      Config
	client   *clientv3.Client
	kv       clientv3.KV
	ctx      context.Context // ends with the engine
	end      context.CancelFunc
	lease    atomic.Int64 // the host's lease; 0: none
	leader   leader
	identity identity

	mostOps, mostBytes atomic.Int64 // that a transaction of several VMs has

	trouble   atomic.Pointer[error] // the error of the last try; nil: it was answered
	unsure    atomic.Uint64
	fencedOff atomic.Uint64

	noBlocks   error // the last error of Block, at noBlocksAt; only the goroutine of Apply uses it
	noBlocksAt time.Time

	mu        sync.Mutex
	vms       map[string]*state
	making    map[string]bool  // the VMs whose first groups are under way
	fenced    bool             // the VMs of the host were taken over from the process before
	before    map[string]owner // what own/UUID held of each VM before that
	starts    uint64           // how many processes of this host have served before this one
	mark      uint64           // store.Shared's
	ownRev    int64            // of mark/HOST
	listed    int64            // the revision at which Scan has listed this host's VMs; 0: it has not
	creations int64            // the revision of creations/HOST
	highest   uint64           // the highest Number of any VM
}

// state is what the engine knows of a VM that its host owns.
type state struct {
	owner  owner
	own, q int64 // the revisions of own/UUID and q/UUID; 0: they are not there
	seq    sequence
	late   bool // a copy of the transaction that has made the VM may still come
}

// whole tells whether the VM's first group is finished; if not, only parts of the VM are
// there.
func (s *state) whole() bool { return s.seq.Number > 0 }

// Stats are counts since Open.
type Stats struct {
	Unsure uint64 // transactions that were sent again, because their outcome was not known
	Fenced uint64 // transactions that were refused, because the VM had another owner
}

// Stats may be asked from any goroutine.
func (e *Engine) Stats() Stats { return Stats{e.unsure.Load(), e.fencedOff.Load()} }

// Trouble is store.Shared's.
func (e *Engine) Trouble() error {
	if err := e.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

var _ store.Shared = (*Engine)(nil)

var (
	oldest  = semver.New("3.5.0")
	badName = errs.New(errs.Invalid, "a host's name has letters, digits, '.', '-' and '_', and at most 64 of them")
)

// connects bounds how long the client waits before it tries to connect again: by gRPC's default an
// etcd that was away for long is not seen for two minutes more.
var connects = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
})

// Open connects, and checks that this etcd can be used. Every error says what to change;
// only errs.Busy does not: etcd does not answer now, and may answer later.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "/meta9/v1/"
	}
	if cfg.Try <= 0 {
		cfg.Try = 2 * time.Second
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	if !validHost(cfg.Host) {
		return nil, badName
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	e := &Engine{cfg: cfg, vms: make(map[string]*state), making: make(map[string]bool), before: make(map[string]owner)}
	e.identity.rare = &rarelog.Log{Log: cfg.Log}
	if err := cfg.probe(ctx); err != nil {
		return nil, err
	}
	// With a user, clientv3.New waits for etcd, and has no other context than the client's own.
	life, end := context.WithCancel(context.Background())
	opened := context.AfterFunc(ctx, end)
	var err error
	e.client, err = clientv3.New(clientv3.Config{
		Context: life, Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.User, Password: cfg.Password,
		DialTimeout: cfg.Patience / 3, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		DialOptions: append(e.identity.options(), connects, grpc.WithDisableServiceConfig(), grpc.WithDefaultServiceConfig(leaderFirst)), Logger: zap.NewNop(),
	})
	if err == nil && !opened() {
		err = errors.Join(ctx.Err(), e.client.Close())
	}
	if err != nil {
		end()
		return nil, cfg.noClient(ctx, err)
	}
	e.kv = clientv3.NewKV(e.client)
	e.mostOps.Store(maxOps)
	e.mostBytes.Store(maxBytes)
	e.ctx, e.end = context.WithCancel(context.Background())
	if err := e.look(ctx); err != nil {
		_ = e.Close()
		return nil, err
	}
	if cfg.User != "" { // where etcd asks for users, this one is refused, as anybody who is not root
		if st, err := e.client.AuthStatus(ctx); err == nil && !st.Enabled {
			cfg.Log.Warn().Str("user", cfg.User).Msg("etcd asks nobody for a password, though cluster.user is set: whoever reaches it reads and writes all (etcdctl auth enable)")
		}
	}
	return e, nil
}

func validHost(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

// look returns why this etcd cannot be used, or nil.
func (e *Engine) look(ctx context.Context) error {
	if err := e.lookEach(ctx); err != nil {
		return err
	}
	resp, err := e.kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.key(keyFleet)), "=", 0)).
		Then(clientv3.OpPut(e.key(keyFleet), e.cfg.Fleet)).Else(clientv3.OpGet(e.key(keyFleet))).Commit()
	if err != nil {
		return e.cfg.explain(err)
	}
	if resp.Succeeded {
		return nil
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && string(kvs[0].Value) != e.cfg.Fleet {
		return errs.New(errs.Exists, "the prefix %s is in use by the fleet %q, and this is %q, by its key_file: a fleet has one key_file, and its own prefix", e.cfg.Prefix, kvs[0].Value, e.cfg.Fleet)
	}
	return nil
}

// lookEach asks all members at once for their version; one answer is enough. Those that answer
// must be of one cluster.
func (e *Engine) lookEach(ctx context.Context) error {
	all, failed := make([]*clientv3.StatusResponse, len(e.cfg.Endpoints)), make([]error, len(e.cfg.Endpoints))
	e.eachEndpoint(func(i int, ep string) {
		ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience/3)
		defer cancel()
		var err error
		if all[i], err = e.client.Status(ctx, ep); err != nil {
			all[i], failed[i] = nil, e.cfg.explain(fmt.Errorf("%s: %w", ep, e.cfg.why(e.ctx, ep, err)))
		}
	})
	first := -1 // that has answered
	for i, st := range all {
		if st == nil {
			continue
		}
		if first < 0 {
			first = i
		}
		if mine, its := st.Header.GetClusterId(), all[first].Header.GetClusterId(); mine != its {
			return errs.New(errs.Invalid, "%s and %s are not of one etcd: their clusters have the ids %x and %x", e.cfg.Endpoints[first], e.cfg.Endpoints[i], its, mine)
		}
		if v, err := semver.NewVersion(st.Version); err != nil || v.LessThan(*oldest) {
			return errs.New(errs.Unsupported, "%s is etcd %s: at least %s is needed, older ones lose events of watches", e.cfg.Endpoints[i], st.Version, oldest)
		}
	}
	for _, err := range failed {
		if first >= 0 && err != nil && errs.KindOf(err) != errs.Busy {
			e.cfg.Log.Warn().Str("error", errs.Detail(err)).Msg("an endpoint of etcd cannot be used; others can")
		}
	}
	if first < 0 {
		return worst(append(failed, errs.New(errs.Invalid, "no endpoint of etcd is set")))
	}
	e.identity.id.Store(all[first].Header.GetClusterId())
	e.found(all)
	return nil
}

// eachEndpoint calls fn for all endpoints at once, and returns when all calls have.
func (e *Engine) eachEndpoint(fn func(i int, ep string)) {
	var asking sync.WaitGroup
	for i, ep := range e.cfg.Endpoints {
		asking.Go(func() { fn(i, ep) })
	}
	asking.Wait()
}

// unavailable tells whether etcd, or the way to it, has failed while it was asked: a member that
// ends, a connection that is cut.
func unavailable(err error) bool {
	var its rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &its) {
		return its.Code() == codes.Unavailable
	}
	return status.Code(err) == codes.Unavailable
}

func isAny(err error, kinds ...error) bool {
	for _, k := range kinds {
		if errors.Is(rpctypes.Error(err), k) || strings.Contains(err.Error(), k.Error()) {
			return true
		}
	}
	return false
}

// Number returns that of the VM's newest group, or for "" the highest of all VMs.
func (e *Engine) Number(vm string) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if vm == "" {
		return e.highest
	}
	if st := e.vms[vm]; st != nil {
		return st.seq.Number
	}
	return 0
}

// Stay is the epoch of the VM's owner, which is this process; 0: it is not.
func (e *Engine) Stay(vm string) uint64 {
	if st := e.known(vm); st != nil {
		return st.owner.Epoch
	}
	return 0
}

// Before tells whether stay was that of the last process that has served the VM, or of the
// process before this one, which may have begun to; and the number of the VM's newest group.
// It is false for a VM that is not this host's, or has come since the start.
func (e *Engine) Before(vm string, stay uint64) (number uint64, newest bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, known := e.before[vm]
	st := e.vms[vm]
	if st == nil || !known {
		return 0, false
	}
	return st.seq.Number, stay == was.Epoch || stay != 0 && stay == was.servedBy(e.starts)
}

// Started is store.Cluster's.
func (e *Engine) Started(ctx context.Context) error {
	e.mu.Lock()
	next := e.starts + 1
	e.mu.Unlock()
	if _, err := e.kv.Put(ctx, e.key("starts", e.cfg.Host), strconv.FormatUint(next, 10)); err != nil {
		return e.cfg.explain(err)
	}
	return nil
}

// Mark is store.Shared's.
func (e *Engine) Mark() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mark
}

// Interrupt is store.Shared's.
func (e *Engine) Interrupt() { e.end() }

// Close closes the connection to etcd.
func (e *Engine) Close() error {
	e.end()
	e.leader.all.Wait()
	return e.client.Close()
}

func (e *Engine) known(uuid string) *state {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.vms[uuid]
}

// setMaking notes that a VM's first group is under way, or is so no longer.
func (e *Engine) setMaking(uuid string, is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if is {
		e.making[uuid] = true
	} else {
		delete(e.making, uuid)
	}
}

func (e *Engine) creationsRev() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.creations
}

// learn notes the state of a VM; nil: it is not this host's. What was read of a VM that has come
// here meanwhile may be older than what Apply has made of it.
func (e *Engine) learn(uuid string, st *state) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if st == nil {
		delete(e.vms, uuid)
		return
	}
	if is := e.vms[uuid]; is == nil || is.q <= st.q {
		e.vms[uuid] = st
	}
	e.highest = max(e.highest, st.seq.Number)
	e.mark = max(e.mark, st.owner.Mark)
}
