package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/store/etcd"
	"meta9/fs/vm"
)

// proxy is an etcd to a host: it passes on to a member what it is asked for. What becomes of a
// transaction that changes a VM is what the plan says.
type proxy struct {
	to  *grpc.ClientConn
	kv  pb.KVClient
	url string

	mu      sync.Mutex
	plan    plan   // for the next one
	hold    bool   // those after it are held
	deaf    int    // so many reads of several keys get no answer
	most    int    // operations that one has that passes; 0: any number
	version string // that Status tells; "": the member's

	chance func(*pb.TxnRequest) plan // for each while plan is pass; nil: it passes. Called with mu held
	later  sync.WaitGroup            // those that are delayed

	met  chan *pb.TxnRequest // the one that withhold or lose was for
	free chan struct{}       // closed: nothing waits any more
}

// plan is what becomes of a transaction.
type plan int

const (
	pass     plan = iota // it reaches the member, and the answer comes back
	withhold             // it does not reach the member, and is not answered
	lose                 // it reaches the member, and its answer is lost when free is closed
	held                 // it passes when free is closed
	dropped              // it reaches the member, and its answer is lost at once
	edge                 // it reaches the member, and the answer is that there is no room
	delayed              // its answer is lost at once, and later it reaches the member
)

// delay is how long a delayed one takes.
const delay = 150 * time.Millisecond

// proxy starts a proxy in front of a member.
func (c *cluster) proxy(t *testing.T, member int) *proxy {
	t.Helper()
	to, err := grpc.NewClient(strings.TrimPrefix(c.Configs[member].Client, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		to: to, kv: pb.NewKVClient(to), url: "http://" + l.Addr().String(),
		met: make(chan *pb.TxnRequest, 1), free: make(chan struct{}),
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(codec{}), grpc.UnknownServiceHandler(p.serve))
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		p.later.Wait()
		_ = to.Close()
	})
	return p
}

// serve serves one call, whatever its service.
func (p *proxy) serve(_ any, s grpc.ServerStream) error {
	switch method, _ := grpc.MethodFromServerStream(s); method {
	case pb.KV_Txn_FullMethodName:
		return answer(s, p.txn)
	case pb.Maintenance_Status_FullMethodName:
		return answer(s, p.status)
	default:
		return p.pass(s, method)
	}
}

// answer serves a call of one request and one response.
func answer[Q, A any](s grpc.ServerStream, do func(context.Context, *Q) (*A, error)) error {
	r := new(Q)
	if err := s.RecvMsg(r); err != nil {
		return err
	}
	resp, err := do(s.Context(), r)
	if err != nil {
		return err
	}
	return s.SendMsg(resp)
}

// pass passes a call on as it is.
func (p *proxy) pass(from grpc.ServerStream, method string) error {
	ctx, cancel := context.WithCancel(from.Context())
	defer cancel()
	if md, is := metadata.FromIncomingContext(ctx); is {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	to, err := p.to.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodecV2(codec{}))
	if err != nil {
		return err
	}
	go func() {
		for {
			f := new(frame)
			if from.RecvMsg(f) != nil {
				_ = to.CloseSend()
				return
			}
			if to.SendMsg(f) != nil {
				return
			}
		}
	}()
	for {
		f := new(frame)
		err := to.RecvMsg(f)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = from.SendMsg(f)
		}
		if err != nil {
			return err
		}
	}
}

// frame is a message that is passed on as it is.
type frame struct{ b []byte }

// codec is gRPC's own, but for frames.
type codec struct{}

var own = encoding.GetCodecV2("proto")

func (codec) Name() string { return own.Name() }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, is := v.(*frame); is {
		return mem.BufferSlice{mem.SliceBuffer(f.b)}, nil
	}
	return own.Marshal(v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, is := v.(*frame); is {
		f.b = data.Materialize()
		return nil
	}
	return own.Unmarshal(data, v)
}

func (p *proxy) status(ctx context.Context, r *pb.StatusRequest) (*pb.StatusResponse, error) {
	resp, err := pb.NewMaintenanceClient(p.to).Status(ctx, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.version != "" {
		resp.Version = p.version
	}
	return resp, err
}

func (p *proxy) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	switch p.planFor(r) {
	case held:
		select {
		case <-p.free:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	case withhold:
		p.met <- r
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case lose:
		if _, err := p.kv.Txn(context.WithoutCancel(ctx), r); err != nil {
			return nil, err
		}
		p.met <- r
		<-p.free
		return nil, errLost
	case dropped:
		if _, err := p.kv.Txn(ctx, r); err != nil {
			return nil, err
		}
		return nil, errLost
	case edge:
		if _, err := p.kv.Txn(ctx, r); err != nil {
			return nil, err
		}
		return nil, rpctypes.ErrGRPCNoSpace
	case delayed:
		p.later.Go(func() {
			time.Sleep(delay) // a copy that nobody waits for
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, _ = p.kv.Txn(ctx, r)
		})
		return nil, errLost
	}
	p.mu.Lock()
	most := p.most
	p.mu.Unlock()
	if most > 0 && len(r.Success) > most {
		return nil, rpctypes.ErrGRPCTooManyOps
	}
	return p.kv.Txn(ctx, r)
}

var errLost = status.Error(codes.Unavailable, "the answer was lost")

// planFor is the plan, which is over then, if the request is a VM's change, or the first one of
// an engine's. What chance plans is for changes alone.
func (p *proxy) planFor(r *pb.TxnRequest) plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf > 0 && !slices.ContainsFunc(r.Success, func(op *pb.RequestOp) bool { return op.GetRequestRange() == nil }) {
		p.deaf--
		return dropped
	}
	for _, op := range r.Success {
		key := string(op.GetRequestPut().GetKey())
		if strings.Contains(key, "/q/") || p.plan != pass && strings.HasSuffix(key, "/fleet") {
			is := p.plan
			if is == pass && p.chance != nil {
				return p.chance(r)
			}
			if p.plan = pass; p.hold {
				p.plan = held
			}
			return is
		}
	}
	return pass
}

func (p *proxy) next(is plan, hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.hold = is, hold
}

// deliver brings a transaction that was withheld to the member, at last.
func (p *proxy) deliver(t *testing.T, r *pb.TxnRequest) {
	t.Helper()
	resp, err := p.kv.Txn(t.Context(), r, grpc.WaitForReady(true)) // the member may have been started anew
	if err != nil {
		t.Fatal(err)
	}
	if resp.Succeeded {
		t.Error("a copy that came late was made")
	}
}

func configAt(prefix, host string, endpoints ...string) etcd.Config {
	return etcd.Config{Endpoints: endpoints, Prefix: prefix, Fleet: "test", Host: host, Try: try, Log: zerolog.Nop()}
}

// try is how long an engine waits for an answer before it asks again.
const try = 300 * time.Millisecond

func engineAt(t *testing.T, prefix, host string, endpoints ...string) *etcd.Engine {
	t.Helper()
	e, err := etcd.Open(context.Background(), configAt(prefix, host, endpoints...))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// late is a VM at a host whose transactions go through a proxy.
type late struct {
	*cluster
	t      *testing.T
	prefix string
	proxy  *proxy
	engine *etcd.Engine
	store  *store.Store
	cell   *store.Cell
}

func newLate(t *testing.T, c *cluster, prefix string) *late {
	t.Helper()
	l := &late{cluster: c, t: t, prefix: prefix, proxy: c.proxy(t, 0)}
	l.engine = engineAt(t, prefix, "a", l.proxy.url)
	l.store = opened(t, l.engine)
	l.cell = do(t, l.store, store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`}).Cell
	l.put("k", "first")
	return l
}

func (l *late) put(name, value string) {
	l.t.Helper()
	do(l.t, l.store, store.Intent{Kind: store.Put, Cell: l.cell, Name: name, Data: value})
}

// begin submits a change whose transaction meets a plan, and waits until it has. hold: its
// further copies wait until free is closed.
func (l *late) begin(is plan, hold bool, in store.Intent) (*pb.TxnRequest, <-chan store.Result) {
	l.t.Helper()
	l.proxy.next(is, hold)
	done := make(chan store.Result, 1)
	if in.Done = func(r store.Result) { done <- r }; in.Kind != store.CreateVM {
		in.Cell = l.cell
	}
	l.store.Submit(&in)
	return wait(l.t, l.proxy.met), done
}

// wait is what comes through the channel, with patience for a busy machine.
func wait[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// again opens a new process's store, which knows only what etcd has; nothing of the one
// before ends but what a kill ends.
func (l *late) again(host string) (*etcd.Engine, *store.Store, *store.Cell) {
	l.t.Helper()
	e := engineAt(l.t, l.prefix, host, l.Endpoints()...)
	s := opened(l.t, e)
	return e, s, s.Cell(uuidA)
}

func wantKey(t *testing.T, c *store.Cell, name, want string) {
	t.Helper()
	e := c.VM().Get(vm.Keys, name)
	if e == nil || e.Value != want {
		t.Errorf("%s is %v, want %q", name, e, want)
	}
}

// TestLateCopy: a copy of a transaction that reaches etcd when others have followed does
// nothing.
func TestLateCopy(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/late/")
	withheld, done := l.begin(withhold, false, store.Intent{Kind: store.Put, Name: "k", Data: "second"})
	if r := wait(t, done); r.Err != nil { // by its second copy
		t.Fatal(r.Err)
	}
	l.put("k", "third")
	l.proxy.deliver(t, withheld)
	l.put("k", "fourth")
	l.proxy.deliver(t, withheld)
	_, _, cell := l.again("a")
	wantKey(t, cell, "k", "fourth")
	if l.engine.Stats().Unsure == 0 {
		t.Error("no transaction was sent again")
	}
}

// TestLateAfterKill: a transaction that reaches etcd when its process was killed and the
// next one has begun does nothing, and the next one sees it neither before nor after.
func TestLateAfterKill(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/latekill/")
	withheld, done := l.begin(withhold, true, store.Intent{Kind: store.Put, Name: "k", Data: "late"})
	l.store.Interrupt()
	if r := wait(t, done); r.Err == nil {
		t.Error("acknowledged, and nothing was done")
	}
	_, s, cell := l.again("a")
	wantKey(t, cell, "k", "first")
	l.proxy.deliver(t, withheld)
	_, s2, cell := l.again("a") // and so the one between has lost the VM
	wantKey(t, cell, "k", "first")
	do(t, s2, store.Intent{Kind: store.Append, Cell: cell, Name: "k", Data: ", second"})
	if r := s.Do(&store.Intent{Kind: store.Put, Cell: s.Cell(uuidA), Name: "k"}); errs.KindOf(r.Err) != errs.Moved || !strings.Contains(r.Err.Error(), `another meta9d that runs as the host "a"`) {
		t.Errorf("a change of the process before: %v", r.Err)
	}
	_, _, cell = l.again("a")
	wantKey(t, cell, "k", "first, second")
}

// TestLateOwnRecord: a host's own record that reaches etcd when its process was killed and the next
// one has begun does nothing, also where it would be the first.
func TestLateOwnRecord(t *testing.T) {
	const prefix = "/lateown/"
	c := start(t, 1, fast)
	client, key := c.client(t), prefix+"mark/a"
	for range 2 {
		var rev int64
		value := "a record"
		resp, err := client.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			rev, value = kv.ModRevision, string(kv.Value)
		}
		e := engineAt(t, prefix, "a", c.Endpoints()...)
		s, err := store.Open(e, store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		late, err := client.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).Then(clientv3.OpPut(key, value)).Commit()
		if err != nil || late.Succeeded {
			t.Errorf("a copy that came late was made: %v", err)
		}
		do(t, s, store.Intent{Kind: store.Note, Event: store.QMP})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAnswerLost: a transaction whose answer is lost is done once, whether its process
// asks again, or is killed and the next one looks.
func TestAnswerLost(t *testing.T) {
	for _, kill := range []bool{false, true} {
		l := newLate(t, start(t, 1, fast), "/lost/")
		number := l.engine.Number(uuidA)
		_, done := l.begin(lose, true, store.Intent{Kind: store.Append, Name: "k", Data: ", second"})
		if kill {
			l.store.Interrupt()
			close(l.proxy.free)
			wait(t, done)
		} else {
			close(l.proxy.free)
			if r := wait(t, done); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		e, s, cell := l.again("a")
		wantKey(t, cell, "k", "first, second")
		if n := e.Number(uuidA); n != number+1 {
			t.Errorf("the number is %d after %d: the next process takes it for undone", n, number)
		}
		do(t, s, store.Intent{Kind: store.Append, Cell: cell, Name: "k", Data: ", third"})
		wantKey(t, cell, "k", "first, second, third")
	}
}

// TestFetchMade: somebody reads a VM while its host makes it, in several transactions. The VM is
// made all the same.
func TestFetchMade(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/made/")
	l.proxy.next(lose, true)
	done := make(chan store.Result, 1)
	large := strings.Repeat("x", 700_000)
	l.store.Submit(&store.Intent{
		Kind: store.CreateVM, Data: `{"uuid":"` + uuidB + `","customer_metadata":{"k":"` + large + `","l":"` + large + `"}}`,
		Done: func(r store.Result) { done <- r },
	})
	wait(t, l.proxy.met)
	if mine, err := l.engine.Mine(t.Context()); err != nil || len(mine) != 2 {
		t.Errorf("the host's VMs are %v, %v", mine, err)
	}
	if _, err := l.store.Fetch(uuidB); errs.KindOf(err) != errs.Busy {
		t.Errorf("read: %v", err)
	}
	close(l.proxy.free)
	r := wait(t, done)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	do(t, l.store, store.Intent{Kind: store.Put, Cell: r.Cell, Name: "k", Data: "v"})
	_, s, _ := l.again("a")
	wantKey(t, s.Cell(uuidB), "l", large)
}

// TestDeleteCreate: a VM is deleted and made anew in one batch, again and again.
func TestDeleteCreate(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/deletecreate/")
	for range 50 {
		gone, made := make(chan store.Result, 1), make(chan store.Result, 1)
		l.store.Submit(&store.Intent{Kind: store.Note, Done: func(store.Result) { // the committer waits for that
			l.store.Submit(&store.Intent{Kind: store.DeleteVM, Cell: l.cell, Done: func(r store.Result) { gone <- r }})
			l.store.Submit(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuidA + `"}`, Done: func(r store.Result) { made <- r }})
		}})
		if r := wait(t, gone); r.Err != nil {
			t.Fatal(r.Err)
		}
		r := wait(t, made)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		l.cell = r.Cell
		l.put("k", "v")
	}
}

// TestFetchLate: what was read of a VM before a change of this host's does not count after it.
func TestFetchLate(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/fetchlate/")
	if _, err := l.engine.Fetch(uuidA, func(_, value []byte) error {
		l.put("k", "during")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l.put("k", "after")
	if err := l.store.Err(); err != nil {
		t.Error(err)
	}
}

// TestOpenAnswerLost: a member ends while a host that starts asks it. The host may wait: nothing
// of its settings is wrong.
func TestOpenAnswerLost(t *testing.T) {
	p := start(t, 1, fast).proxy(t, 0)
	p.next(dropped, false)
	e, err := etcd.Open(t.Context(), configAt("/open/", "a", p.url))
	if !errors.Is(err, errs.Busy) {
		t.Errorf("the answer was lost: %v", err)
	}
	if err == nil {
		e.Close()
	}
	engineAt(t, "/open/", "a", p.url).Close()
}

// TestScanAnswerLost: answers are lost while a host that starts reads its VMs. It asks again.
func TestScanAnswerLost(t *testing.T) {
	l := newLate(t, start(t, 1, fast), "/scan/")
	e := engineAt(t, "/scan/", "a", l.proxy.url)
	l.proxy.mu.Lock()
	l.proxy.deaf = 2
	l.proxy.mu.Unlock()
	if s := opened(t, e); s.Cell(uuidA) == nil {
		t.Error("the VM is not there")
	}
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	if l.proxy.deaf != 0 {
		t.Errorf("it has not asked for the last %d answers", l.proxy.deaf)
	}
}

// TestFullAtTheEdge: etcd makes the transaction that passes its limit, and answers that there is
// no room. It is told as done, and the host goes on.
func TestFullAtTheEdge(t *testing.T) {
	c := start(t, 1, fast)
	l := newLate(t, c, "/edge/")
	l.proxy.next(edge, false)
	for _, text := range []string{", second", ", third"} {
		if r := l.store.Do(&store.Intent{Kind: store.Append, Cell: l.cell, Name: "k", Data: text}); r.Err != nil {
			t.Error(r.Err)
		}
	}
	wantKey(t, l.cell, "k", "first, second, third")
}

// TestFullAfterLost: a transaction was made, its answer is lost, and etcd is full by then: it is
// told as done all the same.
func TestFullAfterLost(t *testing.T) {
	c := start(t, 1, fast)
	l := newLate(t, c, "/fulllost/")
	_, done := l.begin(lose, true, store.Intent{Kind: store.Append, Name: "k", Data: ", second"})
	client := c.client(t)
	resp, err := client.Get(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: resp.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(), alarm); err != nil {
		t.Fatal(err)
	}
	close(l.proxy.free)
	if r := wait(t, done); r.Err != nil {
		t.Error(r.Err)
	}
	wantKey(t, l.cell, "k", "first, second")
	if r := l.store.Do(&store.Intent{Kind: store.Append, Cell: l.cell, Name: "k", Data: ", third"}); errs.KindOf(r.Err) != errs.NoSpace {
		t.Errorf("the next one: %v", r.Err)
	}
}

// TestTakenMeanwhile: a host takes the VM while the other has a transaction of which it
// does not know what has become. It learns that from etcd's history, and says so rightly;
// only where that is compacted it says that it may or may not be.
func TestTakenMeanwhile(t *testing.T) {
	for name, tt := range map[string]struct {
		is      plan
		compact bool
		want    error
		text    string
	}{
		"made":          {lose, false, nil, ""},
		"not made":      {withhold, false, errs.Moved, ""},
		"nobody knows":  {lose, true, errs.Moved, "may or may not be there"},
		"nobody knows2": {withhold, true, errs.Moved, "may or may not be there"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 1, fast)
			l := newLate(t, c, "/taken/")
			b := engineAt(t, l.prefix, "b", c.Endpoints()...)
			s := opened(t, b)
			_, done := l.begin(tt.is, true, store.Intent{Kind: store.Append, Name: "k", Data: ", second"})
			from, err := b.Owner(t.Context(), uuidA)
			if err == nil {
				err = b.Claim(t.Context(), uuidA, from)
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := s.Fetch(uuidA)
			if err != nil {
				t.Fatal(err)
			}
			cell := do(t, s, store.Intent{Kind: store.Adopt, Arrival: a}).Cell
			last := do(t, s, store.Intent{Kind: store.Append, Cell: cell, Name: "k", Data: ", by b"})
			if tt.compact {
				plain := c.client(t)
				resp, err := plain.Get(t.Context(), "none")
				if err == nil {
					_, err = plain.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			close(l.proxy.free)
			r := wait(t, done)
			if !errors.Is(r.Err, tt.want) || tt.text == "" && r.Err != nil && strings.Contains(r.Err.Error(), "may or may not") || r.Err != nil && !strings.Contains(r.Err.Error(), tt.text) {
				t.Errorf("the change under way: %v", r.Err)
			}
			want := "first, second, by b"
			if tt.is == withhold {
				want = "first, by b"
			}
			if last.Entry.Value != want {
				t.Errorf("b has %q, want %q", last.Entry.Value, want)
			}
			if l.store.Err() != nil {
				t.Error(l.store.Err())
			}
		})
	}
}

// client is a plain client of the cluster's, or of those members.
func (c *cluster) client(t testing.TB, members ...int) *clientv3.Client {
	t.Helper()
	to := c.Endpoints()
	if len(members) > 0 {
		to = nil
		for _, i := range members {
			to = append(to, c.Configs[i].Client)
		}
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: to, DialTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
