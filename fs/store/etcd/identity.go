package etcd

import (
	"context"
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"meta9/rarelog"
)

// identity tells the etcd that was found at the start from others. An endpoint may lead to another
// one later: a member that lost its disk and was started alone, an etcd of somebody else at that
// address; or its data may be older than they were, or gone, though its id is the same. No answer of
// such a one is taken: it has not what this host wrote, and what it is told is lost.
type identity struct {
	id   atomic.Uint64 // of the cluster; 0: not known yet
	rev  atomic.Int64  // the highest revision that was answered
	rare *rarelog.Log  // of other etcds, by address
}

// check returns an error if an answer is another etcd's. The error looks as if a member were not there,
// so etcd's client asks the next one. rev was the highest revision when the question was sent.
func (i *identity) check(answer any, rev int64, by *peer.Peer) error {
	a, ok := answer.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok {
		return nil
	}
	h, why := a.GetHeader(), ""
	switch mine, its := i.id.Load(), h.GetClusterId(); {
	case mine == 0 || its == 0:
		return nil
	case its != mine:
		why = fmt.Sprintf("%s: its cluster has the id %x, and had %x at the start", anotherEtcd, its, mine)
	case !linearizable(answer):
		return nil
	case h.Revision < rev:
		why = fmt.Sprintf("%s, or older data: its revision is %d, and was %d", anotherEtcd, h.Revision, rev)
	}
	if why == "" {
		for old := i.rev.Load(); old < h.Revision && !i.rev.CompareAndSwap(old, h.Revision); old = i.rev.Load() {
		}
		return nil
	}
	at := "an endpoint"
	if by != nil && by.Addr != nil {
		at = by.Addr.String()
	}
	i.rare.Warn(at).Str("at", at).Str("why", why).Msg("etcd: no answer from there is taken")
	return status.Error(codes.Unavailable, at+" "+why)
}

// linearizable tells whether an answer of this kind is never older than an answer that came before the
// question was sent. Those of leases and watches may be: a member that is behind gives them, too.
func linearizable(answer any) bool {
	switch answer.(type) {
	case *pb.RangeResponse, *pb.TxnResponse, *pb.PutResponse, *pb.DeleteRangeResponse:
		return true
	}
	return false
}

// anotherEtcd is in the text of check's error, of which etcd's client makes others.
const anotherEtcd = "has another etcd by now"

// options have all answers checked.
func (i *identity) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var by peer.Peer
			rev := i.rev.Load()
			if err := invoke(ctx, method, req, reply, cc, append(opts, grpc.Peer(&by))...); err != nil {
				return err
			}
			return i.check(reply, rev, &by)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, desc, cc, method, opts...)
			if err != nil {
				return nil, err
			}
			return checkedStream{s, i}, nil
		}),
	}
}

// checkedStream is a stream whose answers are checked: of a watch, or of a lease's refreshes.
type checkedStream struct {
	grpc.ClientStream
	identity *identity
}

func (s checkedStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	by, _ := peer.FromContext(s.Context())
	return s.identity.check(m, 0, by)
}
