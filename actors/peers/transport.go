package peers

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/relay"
)

const (
	// ConnectionAge is the maximum age of a connection. It is bounded because a connection keeps the
	// result of its handshake, even if a certificate has been withdrawn since. The pod that dialled
	// replaces the connection before that age, which loses nothing; the pod that was dialled ends it
	// at twice that age, which loses the envelopes in flight.
	ConnectionAge = time.Hour

	// streamWindow is the amount that gRPC buffers for a stream that is not read. A fixed value turns
	// off gRPC's estimate, which grows (google.golang.org/grpc v1.83, WithInitialWindowSize).
	streamWindow = 1 << 20
	// The write buffer takes two whole batches. Each connection holds its read buffer for its whole life.
	// A small one also saves a copy: bufio reads what is larger straight into the buffer of the
	// message, and TLS has read a record of 16 KiB before.
	writeBuffer = 2 * maxBatchBytes
	readBuffer  = 4 << 10
	// maxMessage bounds a received message. It is several times the size of the largest Batch, to
	// leave room for later releases.
	maxMessage = 1 << 20
	// maxWelcome bounds a message from the dialled pod.
	maxWelcome = 4 << 10
	// Either end gives up a connection on which nothing has arrived for the sum of these two.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// maxStreams applies to each connection. A peer opens one stream, and another is refused before
	// it can hold half a message.
	maxStreams = 1
)

// Config is what a Transport needs.
type Config struct {
	Pod      string       // the name of this pod; required
	Listener net.Listener // where peers connect; required; Close closes it
	TLS      *TLS         // nil: plain text
	Metrics  *Metrics     // required
	Log      *slog.Logger // nil: none
	// ConnectionAge replaces the constant of that name. 0: the constant.
	ConnectionAge time.Duration
	// Deliver takes an envelope that has arrived, and the memory that the data of its output is in, nil
	// if that is its own. Connected takes the name of a peer to which this pod has just connected or
	// reconnected. Envelopes of one connection come in order. Both functions are required, are called
	// from goroutines of the transport, and must not block.
	Deliver   func(*relay.Envelope, relay.Held)
	Connected func(pod string)
}

// Transport carries envelopes between pods, over the gRPC service Peers of relay.proto.
//
// It loses the envelopes in flight when a connection breaks, and those sent while a peer's queue is
// full. Links resend both.
type Transport struct {
	cfg         Config
	log         *slog.Logger
	server      *grpc.Server
	served      chan struct{} // closed when the server has ended
	dialOptions []grpc.DialOption

	mu        sync.Mutex
	endpoints map[string]*endpoint // by pod
	closed    bool
	running   sync.WaitGroup // goroutines of endpoints, including those that were replaced
}

// NewTransport makes a Transport. It serves once Start is called.
func NewTransport(cfg Config) *Transport {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ConnectionAge == 0 {
		cfg.ConnectionAge = ConnectionAge
	}
	t := &Transport{cfg: cfg, log: cfg.Log, served: make(chan struct{}), endpoints: map[string]*endpoint{}}
	serverCreds, clientCreds := insecure.NewCredentials(), insecure.NewCredentials()
	if cfg.TLS != nil {
		serverCreds, clientCreds = cfg.TLS.server(t.refused), cfg.TLS.client(t.refused)
	}
	t.dialOptions = dialOptions(clientCreds)
	t.server = newServer(serverCreds, cfg.ConnectionAge, &receiver{t: t})
	return t
}

func dialOptions(creds credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newBatchCodec()), grpc.MaxCallRecvMsgSize(maxWelcome)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(streamWindow),
		grpc.WithReadBufferSize(readBuffer), grpc.WithWriteBufferSize(writeBuffer),
		experimental.WithBufferPool(streamBuffers),
		grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
	}
}

func newServer(creds credentials.TransportCredentials, age time.Duration, r *receiver) *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(creds), grpc.ForceServerCodecV2(newBatchCodec()), grpc.MaxRecvMsgSize(maxMessage),
		grpc.UnknownServiceHandler(r.unknown),
		grpc.ConnectionTimeout(dialTimeout), grpc.WaitForHandlers(true), grpc.MaxConcurrentStreams(maxStreams),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(streamWindow),
		grpc.ReadBufferSize(readBuffer),
		experimental.BufferPool(streamBuffers),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout,
			MaxConnectionAge: 2 * age, MaxConnectionAgeGrace: dialTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
	)
	s.RegisterService(&serviceDesc, r)
	return s
}

// Start begins serving.
func (t *Transport) Start() {
	go func() {
		defer close(t.served)
		limited := limitConnections(t.cfg.Listener, func(addr string) { t.refused(RefusedConnections, addr, errTooMany) })
		if err := t.server.Serve(limited); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.log.Error("the peer listener broke", "err", err)
		}
	}()
}

// connected reports a new connection to a peer.
func (t *Transport) connected(pod string) { t.cfg.Connected(pod) }

// refused counts a connection that failed the handshake, on either side.
func (t *Transport) refused(reason, addr string, err error) {
	t.cfg.Metrics.Refused.WithLabelValues(reason).Inc()
	t.log.Warn("peer refused", "reason", reason, "addr", addr, "err", err)
}

// SetPeers replaces the addresses of all peers. The transport connects to each of them, reconnects
// if an address has changed, and disconnects from peers that are gone.
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

// endpoint returns the endpoint of a pod, or nil if the pod's address is not known.
func (t *Transport) endpoint(pod string) *endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endpoints[pod]
}

// Send queues an envelope for a peer. It never blocks. The envelope may be lost.
func (t *Transport) Send(pod string, e *relay.Envelope) {
	ep := t.endpoint(pod)
	if ep == nil {
		t.cfg.Metrics.Lost.WithLabelValues(noAddress).Inc()
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
	if envelope := mem.NewBuffer(buf, streamBuffers); !ep.queue.put(envelope, cap(data)) {
		envelope.Free()
		t.cfg.Metrics.Lost.WithLabelValues(queueFull).Inc()
	}
}

// Queued returns the memory, in bytes, of all envelopes that wait to be sent to a peer.
func (t *Transport) Queued(pod string) int {
	if ep := t.endpoint(pod); ep != nil {
		return ep.queue.size()
	}
	return 0
}

// Reset ends the connection to a peer, discards the envelopes that wait for it, and reconnects.
func (t *Transport) Reset(pod string) {
	if ep := t.endpoint(pod); ep != nil {
		ep.reset()
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
