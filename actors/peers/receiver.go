package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/turn"
)

// unknownLogEvery is the minimum interval between log lines about calls of methods that this
// release does not serve. Pods of release 0.1 try once a second as long as they run beside this
// one.
const unknownLogEvery = time.Minute

// receiver serves the streams that other pods open.
type receiver struct {
	t *Transport

	mu     sync.Mutex
	logged time.Time // the last call of an unknown method
}

// stream serves one stream. It delivers the envelopes of each batch, and counts and ignores those
// that it cannot understand.
func (r *receiver) stream(stream grpc.ServerStream) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.t.cfg.Metrics.Malformed.Inc()
			r.t.log.Error("panic over a peer's message", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "panic")
		}
	}()
	if err := stream.SendMsg(&relay.Welcome{Pod: r.t.cfg.Pod}); err != nil {
		return err
	}
	var mine turn.Turn
	defer mine.GiveBack()
	var little turn.Allowance
	for {
		in := new(inBatch)
		err := stream.RecvMsg(in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			if s := status.Code(err); s != codes.Canceled && s != codes.Unavailable && !errors.Is(err, context.Canceled) {
				r.t.cfg.Metrics.Malformed.Inc()
				r.t.log.Warn("the stream of a peer broke", "err", err)
			}
			return err
		}
		if little.Exceeds(in.data.Len()) {
			mine.Take(turn.Peers)
		}
		r.batch(in.data)
		mine.GiveBack()
		in.data.Free()
	}
}

// batch delivers the envelopes of a batch.
func (r *receiver) batch(in mem.Buffer) {
	batch := in.ReadOnlyData()
	r.t.cfg.Metrics.Bytes.WithLabelValues(received).Add(float64(len(batch)))
	err := forEach(batch, func(data []byte) {
		envelope, held, err := decode(data, in)
		if err != nil {
			r.t.cfg.Metrics.Malformed.Inc()
			return
		}
		r.t.cfg.Deliver(envelope, held)
	})
	if err != nil {
		r.t.cfg.Metrics.Malformed.Inc()
	}
}

// decode reads an envelope from the buffer that it came in. Output stays there unless that would
// keep much more memory than it needs.
func decode(data []byte, in mem.Buffer) (*relay.Envelope, relay.Held, error) {
	if len(data) > relay.MaxEnvelope {
		return nil, nil, errMalformed
	}
	if len(data) < cap(in.ReadOnlyData())/4*3 {
		e := new(relay.Envelope)
		return e, nil, proto.Unmarshal(data, e)
	}
	e, shared, err := relay.Decode(data)
	if !shared {
		return e, nil, err
	}
	return e, in, nil
}

// unknown refuses a method that this release does not serve. Pods of release 0.1 call proto.actor's
// remote.
func (r *receiver) unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	r.t.cfg.Metrics.Malformed.Inc()
	r.mu.Lock()
	due := time.Since(r.logged) >= unknownLogEvery
	if due {
		r.logged = time.Now()
	}
	r.mu.Unlock()
	if due {
		r.t.log.Warn("a peer runs an incompatible release", "method", method, "addr", addrOf(stream.Context()))
	}
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// addrOf returns the address of the other end of a stream.
func addrOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
