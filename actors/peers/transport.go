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
	// ConnectionAge is how old a connection may become, because a connection keeps what its handshake
	// found, including certificates that have been withdrawn since. The pod that dialled replaces it
	// before that age, which loses nothing; the pod that was dialled ends it at twice that age, which
	// loses what is under way.
	ConnectionAge = time.Hour

	// streamWindow is how much gRPC buffers for a stream that is not read. A fixed value turns off
	// gRPC's estimate, which grows (google.golang.org/grpc v1.83, WithInitialWindowSize).
	streamWindow = 1 << 20
	// The write buffer takes a whole batch, so that one system call writes it. Read buffers are held
	// for each connection as long as it lives; the pod that dialled reads little.
	writeBuffer      = maxBatchBytes
	readBuffer       = 64 << 10
	dialerReadBuffer = 4 << 10
	// maxMessage bounds a message that is received: several times the largest Batch, for later
	// releases.
	maxMessage = 1 << 20
	// maxWelcome bounds a message from the pod that was dialled.
	maxWelcome = 4 << 10
	// Either end gives up a connection on which nothing arrives for the sum of these.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// maxStreams is per connection: a peer opens one.
	maxStreams = 4
)

// Config is what a Transport needs.
type Config struct {
	Pod      string       // the name of this pod; required
	Listener net.Listener // where peers connect; required; Close closes it
	TLS      *TLS         // nil: plain text
	Metrics  *Metrics     // required
	Log      *slog.Logger // nil: none
	// ConnectionAge replaces the constant of that name; 0: the constant.
	ConnectionAge time.Duration
	// Deliver takes an envelope that has arrived, and Connected the name of a peer that this pod has
	// just connected to, perhaps again. Envelopes of one connection come in order. Both are required,
	// are called from goroutines of the transport, and must not block.
	Deliver   func(*relay.Envelope)
	Connected func(pod string)
}

// Transport carries envelopes between pods, over the gRPC service Peers of relay.proto.
//
// It loses what is under way when a connection breaks, and what is sent while a peer's queue is
// full. Links send that again.
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

// NewTransport makes a Transport. It serves from Start on.
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
		grpc.WithReadBufferSize(dialerReadBuffer), grpc.WithWriteBufferSize(writeBuffer),
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

// Start begins to serve.
func (t *Transport) Start() {
	go func() {
		defer close(t.served)
		if err := t.server.Serve(t.cfg.Listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.log.Error("the peer listener broke", "err", err)
		}
	}()
}

// connected tells of a connection that was made.
func (t *Transport) connected(pod string) { t.cfg.Connected(pod) }

// refused counts a connection that failed the handshake, on either side.
func (t *Transport) refused(reason, addr string, err error) {
	t.cfg.Metrics.Refused.WithLabelValues(reason).Inc()
	t.log.Warn("peer refused", "reason", reason, "addr", addr, "err", err)
}

// SetPeers replaces the addresses of all peers. The transport connects to each, again if its
// address has changed, and disconnects from those that are gone.
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

// endpoint returns the one of a pod, nil if its address is not known.
func (t *Transport) endpoint(pod string) *endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endpoints[pod]
}

// Send queues an envelope for a peer. It never blocks, and may lose it.
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

// Queued returns how many bytes of memory wait to be sent to a peer.
func (t *Transport) Queued(pod string) int {
	if ep := t.endpoint(pod); ep != nil {
		return ep.queue.size()
	}
	return 0
}

// Reset ends the connection to a peer, discards what waits for it, and connects again.
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
