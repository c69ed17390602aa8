package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/mem"
)

const (
	// maxQueued is how many bytes of memory wait for one peer; what is over it is dropped, and its link sends it again.
	// Links send no more than their windows, so 24 of them never let it come to this.
	maxQueued = 8 << 20
	// queuedCost is added for each envelope: its place in the queue and its headers.
	queuedCost = 128
	// maxBatch and maxBatchBytes bound one message of the stream, far below what gRPC refuses. Larger
	// ones carried no more per second, and every one is held as a whole at both ends.
	maxBatch      = 64
	maxBatchBytes = 128 << 10
	// dialPatience is how long a connection may take to be agreed on, the peer's answer included.
	dialPatience = 3 * time.Second
	// The pause between two attempts to connect doubles from the first to the second.
	redialFirst = 50 * time.Millisecond
	redialLast  = time.Second
	// ConnectionAge is how old a connection may become: it holds what its handshake found, certificates that have
	// been withdrawn since included. Whoever dialled it makes another in good time, which loses
	// nothing; the other end insists at twice this age, which loses what is under way.
	ConnectionAge = time.Hour
)

// errRenewed ends a connection that has reached its age, with all that was sent on it received.
var errRenewed = errors.New("renewed")

// endpoint sends to one peer: a bounded queue, and a goroutine that empties it
// into a stream and connects again when that breaks. Order is kept; what was
// under way when a connection broke is lost.
type endpoint struct {
	t    *Transport
	pod  string
	addr string
	stop context.CancelFunc

	mu     sync.Mutex
	queue  []queued
	held   int                // memory of queue
	more   chan struct{}      // buffered, 1: pump is to look again
	cutNow context.CancelFunc // ends the connection in use
}

// queued is an envelope that waits, and the memory that it holds.
type queued struct {
	mem.Buffer
	held int
}

func (t *Transport) newEndpoint(pod, addr string) *endpoint {
	ctx, stop := context.WithCancel(context.Background())
	ep := &endpoint{t: t, pod: pod, addr: addr, stop: stop, more: make(chan struct{}, 1)}
	t.running.Go(func() { ep.run(ctx) })
	return ep
}

// post queues one envelope, whose buffer has that size. It never blocks. It returns false if the queue is full.
func (ep *endpoint) post(envelope mem.Buffer, size int) bool {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	held := size + queuedCost
	if ep.held+held > maxQueued {
		return false
	}
	ep.queue = append(ep.queue, queued{envelope, held})
	ep.held += held
	ep.wake()
	return true
}

// waiting returns how many bytes of memory wait.
func (ep *endpoint) waiting() int {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return ep.held
}

// wake has pump look again.
func (ep *endpoint) wake() {
	select {
	case ep.more <- struct{}{}:
	default:
	}
}

// take returns the next envelopes for one message, nil if there are none.
func (ep *endpoint) take() []mem.Buffer {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	n, size := 0, 0
	for n < len(ep.queue) && n < maxBatch && (n == 0 || size+ep.queue[n].Len() <= maxBatchBytes) {
		size += ep.queue[n].Len()
		n++
	}
	if n == 0 {
		return nil
	}
	batch := make([]mem.Buffer, n)
	for i, e := range ep.queue[:n] {
		batch[i] = e.Buffer
		ep.held -= e.held
	}
	clear(ep.queue[:n])
	ep.queue = ep.queue[n:]
	if len(ep.queue) == 0 {
		ep.queue = nil // a burst's array is not kept
	}
	return batch
}

// forget drops what is queued: it is too old to be of use to anybody.
func (ep *endpoint) forget() {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for _, e := range ep.queue {
		e.Free()
	}
	ep.queue, ep.held = nil, 0
}

// cut ends the connection in use, if there is one, and whatever waits for it.
func (ep *endpoint) cut() {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.cutNow != nil {
		ep.cutNow()
	}
}

func (ep *endpoint) run(ctx context.Context) {
	pause := redialFirst
	for ctx.Err() == nil {
		connected, err := ep.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errRenewed) {
			continue
		}
		if connected {
			pause = redialFirst
			ep.t.log.Info("connection to peer lost", "peer", ep.pod, "addr", ep.addr, "err", err)
		} else {
			ep.t.log.Debug("peer not reached", "peer", ep.pod, "addr", ep.addr, "err", err)
			ep.forget() // or the heartbeats of days would wait for a pod that does not come up
		}
		select {
		case <-ctx.Done():
			return
		// With jitter: pods that lost the same peer do not come back to it all at once.
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, redialLast)
	}
}

// connection connects, sends until the connection breaks, and says why it did.
func (ep *endpoint) connection(parent context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	ep.mu.Lock()
	ep.cutNow = cancel
	ep.mu.Unlock()

	conn, err := grpc.NewClient("passthrough:///"+ep.addr, ep.t.dialOptions...)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // nothing is sent any more
	late := time.AfterFunc(dialPatience, cancel)
	stream, err := ep.greet(ctx, conn)
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return false, err
	}
	ep.t.log.Info("connected to peer", "peer", ep.pod, "addr", ep.addr)
	ep.t.reached(ep.pod)
	// The peer says nothing more on this stream but that it ends.
	broken, heard := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(heard)
		_, err := stream.Recv()
		if err == nil {
			err = errors.New("the peer asked for the connection's end")
		}
		broken <- err
		cancel() // a Send that waits for the peer
	}()
	defer func() {
		cancel()
		<-heard
	}()
	return true, ep.pump(ctx, stream, broken)
}

// greet opens the stream and exchanges the greetings of proto.actor's remote.
func (ep *endpoint) greet(ctx context.Context, conn *grpc.ClientConn) (remote.Remoting_ReceiveClient, error) {
	if err := ep.awaitConnection(ctx, conn); err != nil {
		return nil, err
	}
	stream, err := remote.NewRemotingClient(conn).Receive(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{
		ConnectionType: &remote.ConnectRequest_ServerConnection{ServerConnection: &remote.ServerConnection{
			SystemId: ep.t.self, Address: ep.t.self,
		}},
	}}})
	if err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	res, ok := answer.MessageType.(*remote.RemoteMessage_ConnectResponse)
	if !ok || res.ConnectResponse.GetBlocked() {
		return nil, fmt.Errorf("the peer answered the greeting with %T", answer.MessageType)
	}
	// All pods have the same certificate, and addresses of pods are used again.
	if id := res.ConnectResponse.GetMemberId(); id != ep.pod {
		return nil, fmt.Errorf("the pod at this address is %q", id)
	}
	return stream, nil
}

// awaitConnection waits for the first attempt's outcome: gRPC would go on trying by
// itself, with an address that may be out of date.
func (ep *endpoint) awaitConnection(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure {
			return fmt.Errorf("cannot connect to %s", ep.addr)
		}
		if !conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
	return nil
}

// pump sends what is queued until the stream breaks or is old. It is where a peer that does not
// read holds this goroutine, and nothing else.
func (ep *endpoint) pump(ctx context.Context, stream remote.Remoting_ReceiveClient, broken chan error) error {
	// Not all at the same time: a rollout makes many connections at once.
	age := ep.t.age/2 + rand.N(ep.t.age/2)
	old := time.Now().Add(age)
	defer time.AfterFunc(age, ep.wake).Stop()
	for {
		if !time.Now().Before(old) {
			return ep.renew(ctx, stream, broken)
		}
		batch := ep.take()
		if batch == nil {
			select {
			case <-ep.more:
				continue
			case <-ctx.Done():
				return ctx.Err()
			case err := <-broken:
				return err
			}
		}
		size := 0
		for _, e := range batch {
			size += e.Len()
		}
		if err := stream.SendMsg(&outBatch{pod: ep.pod, envelopes: batch}); err != nil {
			return err
		}
		ep.t.metrics.Bytes.WithLabelValues(sent).Add(float64(size))
	}
}

// renew ends a stream and waits until the peer has read what was sent on it, so that nothing
// of it comes after what the next one brings.
func (ep *endpoint) renew(ctx context.Context, stream remote.Remoting_ReceiveClient, broken chan error) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	late := time.NewTimer(dialPatience)
	defer late.Stop()
	select {
	case err := <-broken:
		if errors.Is(err, io.EOF) {
			return errRenewed
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return context.DeadlineExceeded
	}
}
