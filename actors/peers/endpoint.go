package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	// dialTimeout bounds the time to connect and to receive the peer's Welcome.
	dialTimeout = 3 * time.Second
	// The pause between two attempts to connect doubles from the first to the second.
	redialFirst = 50 * time.Millisecond
	redialLast  = time.Second
)

var (
	// errRenewed ends a connection that has reached its maximum age, after the peer has received
	// everything sent on it.
	errRenewed = errors.New("renewed")
	// errIncompatible means that the pod does not serve the service Peers, as releases before 0.2 do
	// not.
	errIncompatible = errors.New("the peer runs a release that this one cannot talk to")
)

// endpoint sends to one peer. It has a bounded queue and a goroutine that empties the queue into a
// stream and reconnects when the stream breaks. It keeps the order of envelopes, and loses those in
// flight when a connection breaks.
type endpoint struct {
	t     *Transport
	pod   string
	addr  string
	stop  context.CancelFunc
	queue queue

	mu         sync.Mutex
	disconnect context.CancelFunc // ends the connection in use; nil before the first
}

func (t *Transport) newEndpoint(pod, addr string) *endpoint {
	ctx, stop := context.WithCancel(context.Background())
	ep := &endpoint{t: t, pod: pod, addr: addr, stop: stop, queue: newQueue()}
	t.running.Go(func() { ep.run(ctx) })
	return ep
}

// reset ends the connection in use, if there is one, and discards the envelopes that wait for the
// peer.
func (ep *endpoint) reset() {
	ep.queue.discard()
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.disconnect != nil {
		ep.disconnect()
	}
}

func (ep *endpoint) run(ctx context.Context) {
	pause, incompatible := redialFirst, false
	for ctx.Err() == nil {
		connected, err := ep.connection(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errRenewed):
			continue
		case connected:
			pause, incompatible = redialFirst, false
			ep.t.log.Info("connection to peer lost", "peer", ep.pod, "addr", ep.addr, "err", err)
		case errors.Is(err, errIncompatible) && !incompatible: // log it once, not once a second during an upgrade
			incompatible = true
			ep.t.log.Warn("peer is incompatible", "peer", ep.pod, "addr", ep.addr, "err", err)
		default:
			ep.t.log.Debug("peer not reached", "peer", ep.pod, "addr", ep.addr, "err", err)
		}
		if !connected {
			ep.queue.discard() // or the heartbeats for a pod that does not start would pile up
		}
		select {
		case <-ctx.Done():
			return
		// The jitter keeps pods that lost the same peer from reconnecting to it all at once.
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, redialLast)
	}
}

// connection connects, sends until the connection breaks, and returns the reason.
func (ep *endpoint) connection(parent context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	ep.mu.Lock()
	ep.disconnect = cancel
	ep.mu.Unlock()

	conn, err := grpc.NewClient("passthrough:///"+ep.addr, ep.t.dialOptions...)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // nothing is sent any more
	late := time.AfterFunc(dialTimeout, cancel)
	stream, err := ep.open(ctx, conn)
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return false, err
	}
	ep.t.log.Info("connected to peer", "peer", ep.pod, "addr", ep.addr)
	ep.t.connected(ep.pod)
	ended, received := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(received)
		// After its Welcome, the peer only ends the stream.
		err := stream.RecvMsg(new(inBatch))
		if err == nil {
			err = errors.New("the peer sent a message that this release does not know")
		}
		ended <- err
		cancel() // interrupts a SendMsg that waits for the peer
	}()
	defer func() {
		cancel()
		<-received
	}()
	return true, ep.pump(ctx, stream, ended)
}

// open opens the stream and verifies that it leads to the right pod.
func (ep *endpoint) open(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	if err := ep.awaitConnection(ctx, conn); err != nil {
		return nil, err
	}
	stream, err := openStream(ctx, conn)
	if err != nil {
		return nil, err
	}
	switch pod, err := welcome(stream); {
	case status.Code(err) == codes.Unimplemented:
		return nil, fmt.Errorf("%w: %w", errIncompatible, err)
	case err != nil:
		return nil, err
	case pod != ep.pod:
		return nil, fmt.Errorf("the pod at this address is %q", pod)
	}
	return stream, nil
}

// awaitConnection waits for the outcome of the first attempt. gRPC would keep retrying on its own,
// with an address that may be out of date.
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

// pump sends queued envelopes until the stream breaks or reaches its maximum age. A peer that does
// not read blocks only this goroutine.
func (ep *endpoint) pump(ctx context.Context, stream grpc.ClientStream, ended <-chan error) error {
	// The jitter spreads renewals out, because a rollout makes many connections at once.
	age := ep.t.cfg.ConnectionAge/2 + rand.N(ep.t.cfg.ConnectionAge/2)
	old := time.Now().Add(age)
	defer time.AfterFunc(age, ep.queue.wake).Stop()
	for {
		if !time.Now().Before(old) {
			return ep.renew(ctx, stream, ended)
		}
		batch, size := ep.queue.take()
		if batch == nil {
			select {
			case <-ep.queue.ready:
				continue
			case <-ctx.Done():
				return ctx.Err()
			case err := <-ended:
				return err
			}
		}
		if err := stream.SendMsg(batch); err != nil {
			return err
		}
		ep.t.cfg.Metrics.Bytes.WithLabelValues(sent).Add(float64(size))
	}
}

// renew ends a stream and waits until the peer has received everything sent on it, so that none of
// it arrives after envelopes of the next stream.
func (ep *endpoint) renew(ctx context.Context, stream grpc.ClientStream, ended <-chan error) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	late := time.NewTimer(dialTimeout)
	defer late.Stop()
	select {
	case err := <-ended:
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
