package actors

import (
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/troupe-dev/troupe/actors/relay"
)

// newAgedTransport starts a transport in plain text whose connections become no older than age.
func newAgedTransport(t *testing.T, pod string, age time.Duration, deliver func(*relay.Envelope), reached func(string)) (tr *transport, addr string) {
	t.Helper()
	l := listenLoopback(t, "127.0.0.1:0")
	m := newPeerMetrics(new(metrics), new(relay.Counters), nil, new(linksHeld), func() (int, int) { return 0, 0 })
	tr = newTransport(pod, l, nil, age, slog.New(slog.DiscardHandler), m)
	tr.start(deliver, reached)
	t.Cleanup(tr.close)
	return tr, l.Addr().String()
}

// TestConnectionsAreRenewed: a connection that has reached its age is replaced by
// another, and nothing of what is sent meanwhile is lost, repeated or out of order.
func TestConnectionsAreRenewed(t *testing.T) {
	const envelopes, connections, underWay = 20_000, 5, 500
	got, made := make(chan uint64, underWay), make(chan struct{}, 1000)
	_, addr := newAgedTransport(t, "to", time.Hour, func(e *relay.Envelope) { got <- binary.BigEndian.Uint64(e.GetBoot()) }, func(string) {})
	from, _ := newAgedTransport(t, "from", 20*time.Millisecond, func(*relay.Envelope) {}, func(string) { made <- struct{}{} })
	from.setPeers(map[string]string{"to": addr})
	deadline := time.Now().Add(30 * time.Second)
	sent, came, seen := uint64(0), uint64(0), 0
	for came < envelopes || seen < connections {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections and %d envelopes in 30 s", seen, came)
		}
		for ; sent < came+underWay; sent++ {
			boot := make([]byte, 1024)
			binary.BigEndian.PutUint64(boot, sent)
			from.send("to", &relay.Envelope{Version: relay.Version, From: "from", Boot: boot})
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
	_, addr := newAgedTransport(t, "to", 100*time.Millisecond, func(*relay.Envelope) {}, func(string) {})
	stream, err := stranger(t, addr, insecure.NewCredentials()) // which waits 10 s for it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("not ended: %v", err)
	}
}
