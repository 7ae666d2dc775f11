package etcd

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/connectivity"
)

// A transaction that another member gets goes on to the leader, and its answer waits until that
// member knows that it was committed: two ways more between members. So the first try of each goes
// to the leader, and all else, and each further try, to the members in turn: a leader that this host
// does not reach costs one try.

// leader is the member that leads, as far as the engine knows.
type leader struct {
	at   atomic.Pointer[string] // its address; nil: not known
	term atomic.Uint64          // in which that was asked for; 0: it is to be asked for

	asking sync.Mutex // held while a goroutine asks
	asked  time.Time  // when one began to; under asking
	all    sync.WaitGroup
}

// seekPause is the least time from one search for the leader to the next.
const seekPause = 5 * time.Second

// prefer makes a call go to the leader, if it is known and there is a connection to it.
func (l *leader) prefer(ctx context.Context) context.Context {
	if at := l.at.Load(); at != nil {
		return context.WithValue(ctx, leaderKey{}, *at)
	}
	return ctx
}

// forget is called when a try got no answer.
func (l *leader) forget() {
	l.at.Store(nil)
	l.term.Store(0)
}

// heard looks for the leader, and does not wait for that, if a member that has answered knows of
// an election since that was done.
func (e *Engine) heard(term uint64) {
	l := &e.leader
	if l.term.Load() == term || !l.asking.TryLock() {
		return
	}
	if e.ctx.Err() != nil || time.Since(l.asked) < seekPause {
		l.asking.Unlock()
		return
	}
	l.asked = time.Now()
	l.all.Go(func() {
		defer l.asking.Unlock()
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Try)
		defer cancel()
		all := make([]*clientv3.StatusResponse, len(e.cfg.Endpoints))
		e.eachEndpoint(func(i int, ep string) { all[i], _ = e.client.Status(ctx, ep) })
		e.found(all)
	})
}

// found takes the leader from what the endpoints say, nil for one that has not answered: the member
// that knows of the newest election knows who has won it.
func (e *Engine) found(all []*clientv3.StatusResponse) {
	newest, whole := new(clientv3.StatusResponse), true
	for _, st := range all {
		whole = whole && st != nil
		if st != nil && st.Leader != 0 && st.RaftTerm > newest.RaftTerm {
			newest = st
		}
	}
	e.leader.forget()
	for i, st := range all {
		if st != nil && st.Leader != 0 && st.Header.GetMemberId() == newest.Leader {
			_, at, _ := strings.Cut(e.cfg.Endpoints[i], "://")
			e.leader.at.Store(&at)
			e.leader.term.Store(newest.RaftTerm)
			return
		}
	}
	if whole { // it is none of the endpoints
		e.leader.term.Store(newest.RaftTerm)
	}
}

// leaderKey is the key of the leader's address in the context of a call that prefers it.
type leaderKey struct{}

// leaderFirst has gRPC use the balancer of this name.
const leaderFirst = `{"loadBalancingConfig":[{"meta9_leader_first":{}}]}`

func init() { balancer.Register(firstBuilder{}) }

// firstBuilder makes balancers that take the members in turn, but for calls that prefer one.
type firstBuilder struct{}

func (firstBuilder) Name() string { return "meta9_leader_first" }

func (firstBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return balancer.Get(roundrobin.Name).Build(firstConn{cc}, opts)
}

// firstConn puts a picker of its own before the one that takes the members in turn.
type firstConn struct{ balancer.ClientConn }

func (c firstConn) UpdateState(s balancer.State) {
	p := picker{inTurn: s.Picker, at: make(map[string]balancer.Picker)}
	for _, child := range endpointsharding.ChildStatesFromPicker(s.Picker) {
		if child.State.ConnectivityState == connectivity.Ready {
			for _, a := range child.Endpoint.Addresses {
				p.at[a.Addr] = child.State.Picker
			}
		}
	}
	s.Picker = p
	c.ClientConn.UpdateState(s)
}

// picker picks a connection for each call.
type picker struct {
	inTurn balancer.Picker
	at     map[string]balancer.Picker // by address, of those that are connected
}

func (p picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if at, wanted := info.Ctx.Value(leaderKey{}).(string); wanted {
		if first := p.at[at]; first != nil {
			return first.Pick(info)
		}
	}
	return p.inTurn.Pick(info)
}
