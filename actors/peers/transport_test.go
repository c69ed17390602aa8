package peers

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/troupe-dev/troupe/actors/relay"
)

// startTransport starts a transport in plain text whose connections become no older than age.
func startTransport(
	t *testing.T, pod string, age time.Duration, deliver func(*relay.Envelope), reached func(string),
) (tr *Transport, addr string) {
	t.Helper()
	l := listenLoopback(t)
	tr = NewTransport(pod, l, nil, age, slog.New(slog.DiscardHandler), NewMetrics(func(prometheus.Collector) {}))
	tr.Start(deliver, reached)
	t.Cleanup(tr.Close)
	return tr, l.Addr().String()
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func ignore(*relay.Envelope) {}

// TestConnectionsAreRenewed: a connection that has reached its age is replaced by
// another, and nothing of what is sent meanwhile is lost, repeated or out of order.
func TestConnectionsAreRenewed(t *testing.T) {
	const envelopes, connections, underWay = 20_000, 5, 500
	got, made := make(chan uint64, underWay), make(chan struct{}, 1000)
	_, addr := startTransport(t, "to", time.Hour, func(e *relay.Envelope) { got <- binary.BigEndian.Uint64(e.GetBoot()) }, func(string) {})
	from, _ := startTransport(t, "from", 20*time.Millisecond, ignore, func(string) { made <- struct{}{} })
	from.SetPeers(map[string]string{"to": addr})
	deadline := time.Now().Add(30 * time.Second)
	sent, came, seen := uint64(0), uint64(0), 0
	for came < envelopes || seen < connections {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections and %d envelopes in 30 s", seen, came)
		}
		for ; sent < came+underWay; sent++ {
			boot := make([]byte, 1024)
			binary.BigEndian.PutUint64(boot, sent)
			from.Send("to", &relay.Envelope{Version: relay.Version, From: "from", Boot: boot})
		}
		select {
		case n := <-got:
			if n != came {
				t.Fatalf("envelope %d came, want %d, on connection %d", n, came, seen)
			}
			came++
		case <-made:
			seen++
		case <-time.After(10 * time.Second):
			t.Fatalf("envelope %d was lost, on connection %d", came, seen)
		}
	}
	t.Logf("%d envelopes over %d connections", came, seen)
}

// TestOldConnectionsAreEnded: the pod that is connected to does not rely on the other for it.
func TestOldConnectionsAreEnded(t *testing.T) {
	_, addr := startTransport(t, "to", 100*time.Millisecond, ignore, func(string) {})
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := remote.NewRemotingClient(conn).Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("not ended: %v", err)
	}
}

// TestAnotherPodAtTheAddress: the address of a pod that is gone may belong to another pod by now, which must
// not receive what was meant for the first.
func TestAnotherPodAtTheAddress(t *testing.T) {
	_, addr := startTransport(t, "pod-0", time.Hour, ignore, func(string) {})
	tr, _ := startTransport(t, "pod-1", time.Hour, ignore, func(string) {})
	ep := &endpoint{t: tr, pod: "gone", addr: addr, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(t.Context(), dialPatience)
	defer cancel()
	if connected, err := ep.connection(ctx); connected || err == nil || !strings.Contains(err.Error(), "pod-0") {
		t.Errorf("connected: %v, %v", connected, err)
	}
}

// TestUnreachablePeerHasNoQueue: the heartbeats for a pod that does not start for days are not kept for days.
func TestUnreachablePeerHasNoQueue(t *testing.T) {
	l := listenLoopback(t)
	l.Close()
	tr, _ := startTransport(t, "pod-0", time.Hour, ignore, func(string) {})
	tr.SetPeers(map[string]string{"gone": l.Addr().String()})
	tr.Send("gone", &relay.Envelope{Version: 1, From: "pod-0"})
	for deadline := time.Now().Add(10 * time.Second); tr.Queued("gone") > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes still wait", tr.Queued("gone"))
		}
	}
}
