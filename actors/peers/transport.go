package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/relay"
)

// Transport carries envelopes between pods. It speaks the gRPC service of
// proto.actor's remote (messages, greeting, batches), but with endpoints of its
// own. Those of the library hold without bound what a peer does not take (140 MiB
// after 125 MiB were sent to one that accepts connections and does nothing), wait
// on a stream that no one can interrupt, keep a peer that has restarted from being
// reached for two seconds, and panic in a reader at a type name they do not know.
//
// It loses what is under way when a connection breaks, and what comes while a
// peer's queue is full. Links send that again.
type Transport struct {
	self    string
	age     time.Duration // of connections, at most
	log     *slog.Logger
	metrics *Metrics
	deliver func(*relay.Envelope) // in the order of one connection; must not block
	reached func(pod string)      // a connection to the peer was made, again perhaps

	listener    net.Listener
	server      *grpc.Server
	served      chan struct{} // closed when the server has ended
	dialOptions []grpc.DialOption

	mu        sync.Mutex
	endpoints map[string]*endpoint // by pod
	closed    bool
	running   sync.WaitGroup // endpoints' goroutines, also of those that were replaced
}

// peersID is the actor that envelopes are addressed to, and envelopeType the only type that there is.
const peersID = "peers"

var envelopeType = string((&relay.Envelope{}).ProtoReflect().Descriptor().FullName())

const (
	// streamWindow is what gRPC takes in for a reader that does not read. Fixed, since it would grow by itself.
	streamWindow = 1 << 20
	// What one system call takes: a batch is written at once. The buffers for reading are held for each connection, as
	// long as it lives, and whoever dialled reads signs only.
	writeBuffer     = maxBatchBytes
	readBuffer      = 64 << 10
	signsReadBuffer = 4 << 10
	// A connection over which nothing comes for the sum of these is given up, by both ends.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// maxStreams is per connection: a peer has one.
	maxStreams = 4
)

// NewTransport prepares to serve l, which Close closes. Without security it is plain text. age is ConnectionAge, but for tests.
func NewTransport(self string, l net.Listener, security *TLS, age time.Duration, log *slog.Logger, m *Metrics) *Transport {
	t := &Transport{self: self, age: age, listener: l, log: log, metrics: m, served: make(chan struct{}), endpoints: map[string]*endpoint{}}
	serverCreds, clientCreds := insecure.NewCredentials(), insecure.NewCredentials()
	if security != nil {
		serverCreds, clientCreds = security.server(t.refused), security.client(t.refused)
	}
	t.dialOptions = []grpc.DialOption{
		grpc.WithTransportCredentials(clientCreds), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newBatchCodec())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(streamWindow),
		experimental.WithBufferPool(streamBuffers), grpc.WithReadBufferSize(signsReadBuffer), grpc.WithWriteBufferSize(writeBuffer),
		grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
	}
	t.server = t.newServer(serverCreds)
	return t
}

// Start serves. deliver and reached are called from then on, from goroutines of the transport.
func (t *Transport) Start(deliver func(*relay.Envelope), reached func(pod string)) {
	t.deliver, t.reached = deliver, reached
	go func() {
		defer close(t.served)
		if err := t.server.Serve(t.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.log.Error("the peer listener broke", "err", err)
		}
	}()
}

func (t *Transport) newServer(creds credentials.TransportCredentials) *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(creds), grpc.ForceServerCodecV2(newBatchCodec()), grpc.ConnectionTimeout(dialPatience), grpc.WaitForHandlers(true), grpc.MaxConcurrentStreams(maxStreams),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(streamWindow), experimental.BufferPool(streamBuffers),
		grpc.ReadBufferSize(readBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, MaxConnectionAge: 2 * t.age, MaxConnectionAgeGrace: dialPatience,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	)
	remote.RegisterRemotingServer(s, &receiver{t: t})
	return s
}

// refused counts a connection that was not let in, or that was not what was dialled.
func (t *Transport) refused(reason, addr string, err error) {
	t.metrics.Refused.WithLabelValues(reason).Inc()
	t.log.Warn("peer refused", "reason", reason, "addr", addr, "err", err)
}

// SetPeers says where peers are, all that there are to be connections to.
// A peer whose address has changed is connected to anew.
func (t *Transport) SetPeers(addrs map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	for pod, ep := range t.endpoints {
		if addrs[pod] != ep.addr {
			delete(t.endpoints, pod)
			ep.stop()
		}
	}
	for pod, addr := range addrs {
		if t.endpoints[pod] == nil {
			t.endpoints[pod] = t.newEndpoint(pod, addr)
		}
	}
}

// Send queues an envelope for a peer. It never blocks, and may lose it.
func (t *Transport) Send(pod string, e *relay.Envelope) {
	t.mu.Lock()
	ep := t.endpoints[pod]
	t.mu.Unlock()
	if ep == nil {
		t.metrics.Lost.WithLabelValues(noAddress).Inc()
		return
	}
	buf := streamBuffers.Get(proto.Size(e))
	data, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], e)
	if err != nil { // a string that is not UTF-8; links make none
		streamBuffers.Put(buf)
		t.log.Error("envelope not encoded", "peer", pod, "err", err)
		return
	}
	*buf = data
	if envelope := mem.NewBuffer(buf, streamBuffers); !ep.post(envelope, cap(data)) {
		envelope.Free()
		t.metrics.Lost.WithLabelValues(queueFull).Inc()
	}
}

// Queued returns how many bytes of memory wait to be sent to a peer.
func (t *Transport) Queued(pod string) int {
	t.mu.Lock()
	ep := t.endpoints[pod]
	t.mu.Unlock()
	if ep == nil {
		return 0
	}
	return ep.waiting()
}

// Cut gives up the connection to a peer that is dead, and what waits for it.
func (t *Transport) Cut(pod string) {
	t.mu.Lock()
	ep := t.endpoints[pod]
	t.mu.Unlock()
	if ep != nil {
		ep.forget()
		ep.cut()
	}
}

// Close ends every connection at once and waits for the goroutines.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	endpoints := t.endpoints
	t.endpoints = nil
	t.mu.Unlock()
	for _, ep := range endpoints {
		ep.stop()
	}
	t.running.Wait()
	t.server.Stop()
	<-t.served
}

// receiver is the serving side of proto.actor's remote. What it does not know is
// passed over: a later release may send it.
type receiver struct {
	remote.UnimplementedRemotingServer
	t *Transport
}

// Receive serves one peer's stream.
func (r *receiver) Receive(stream remote.Remoting_ReceiveServer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.t.metrics.Malformed.Inc()
			r.t.log.Error("panic at what a peer sent", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "panic")
		}
	}()
	for {
		msg := new(inMessage)
		err := stream.RecvMsg(msg)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			if s := status.Code(err); s != codes.Canceled && s != codes.Unavailable && !errors.Is(err, context.Canceled) {
				r.t.metrics.Malformed.Inc()
				r.t.log.Warn("a peer's stream broke", "err", err)
			}
			return err
		}
		err = r.message(stream, msg)
		msg.data.Free()
		if err != nil {
			return err
		}
	}
}

// message handles one message of a stream. It returns an error only if the stream cannot go on.
func (r *receiver) message(stream remote.Remoting_ReceiveServer, msg *inMessage) error {
	batch, other, err := msg.batch()
	switch {
	case err != nil:
		r.t.metrics.Malformed.Inc()
	case other == nil:
		r.batch(batch)
	case other.GetConnectRequest() != nil:
		return stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{
			ConnectResponse: &remote.ConnectResponse{MemberId: r.t.self},
		}})
	}
	return nil
}

// batch delivers the envelopes of a batch that are meant for us. An index that
// points nowhere, another type, another serializer or another actor is counted and passed over.
func (r *receiver) batch(b []byte) {
	r.t.metrics.Bytes.WithLabelValues(received).Add(float64(len(b)))
	var index batchIndex
	if index.read(b) != nil {
		r.t.metrics.Malformed.Inc()
		return
	}
	// It was read to its end just now.
	_ = fields(b, func(num protowire.Number, typ protowire.Type, b []byte) int {
		if num != batchEnvelopes || typ != protowire.BytesType {
			return skip(num, typ, b)
		}
		raw, n := protowire.ConsumeBytes(b)
		envelope := new(relay.Envelope)
		if data, ok := index.envelope(raw); !ok || proto.Unmarshal(data, envelope) != nil {
			r.t.metrics.Malformed.Inc()
			return n
		}
		r.t.deliver(envelope)
		return n
	})
}
