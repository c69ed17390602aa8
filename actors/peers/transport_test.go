package peers

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/troupe-dev/troupe/actors/relay"
)

// TestConnectionsAreRenewed: a connection that has reached its age is replaced by another, and
// nothing of what is sent meanwhile is lost, repeated or out of order.
func TestConnectionsAreRenewed(t *testing.T) {
	const envelopes, connections, underWay = 20_000, 5, 500
	got := make(chan uint64, underWay)
	to := startPod(t, "to", func(c *Config) {
		c.Deliver = func(e *relay.Envelope, _ relay.Held) { got <- binary.BigEndian.Uint64(e.GetIncarnation()) }
	})
	from := startPod(t, "from", func(c *Config) { c.ConnectionAge = 20 * time.Millisecond })
	from.SetPeers(map[string]string{"to": to.addr})
	deadline := time.Now().Add(time.Minute)
	number, came, seen := uint64(0), uint64(0), 0
	for came < envelopes || seen < connections {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections and %d envelopes in a minute", seen, came)
		}
		for ; number < came+underWay; number++ {
			incarnation := make([]byte, 1024)
			binary.BigEndian.PutUint64(incarnation, number)
			from.Send("to", &relay.Envelope{Version: relay.Version, From: "from", Incarnation: incarnation})
		}
		select {
		case n := <-got:
			if n != came {
				t.Fatalf("envelope %d came, want %d, on connection %d", n, came, seen)
			}
			came++
		case <-from.connected:
			seen++
		case <-time.After(20 * time.Second):
			t.Fatalf("envelope %d was lost, on connection %d", came, seen)
		}
	}
	t.Logf("%d envelopes over %d connections", came, seen)
}

// TestOldConnectionsAreEnded: the pod that is connected to does not rely on the other for it.
func TestOldConnectionsAreEnded(t *testing.T) {
	to := startPod(t, "to", func(c *Config) { c.ConnectionAge = 100 * time.Millisecond })
	stream, err := dialPod(t, to.addr, nil) // which waits 20 s for it
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(relay.Welcome)); status.Code(err) != codes.Unavailable {
		t.Fatalf("not ended: %v", err)
	}
}

// TestAnotherPodAtTheAddress: the address of a pod that is gone may belong to another pod by now,
// which must not receive what was meant for the first.
func TestAnotherPodAtTheAddress(t *testing.T) {
	to, from := startPod(t, "pod-0", nil), startPod(t, "pod-1", nil)
	ep := &endpoint{t: from.Transport, pod: "gone", addr: to.addr, queue: newQueue()}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if connected, err := ep.connection(ctx); connected || err == nil || !strings.Contains(err.Error(), "pod-0") {
		t.Errorf("connected: %v, %v", connected, err)
	}
}

// TestAPeerThatMoves: a new address replaces the old one, and a pod that is no peer any more is
// sent nothing.
func TestAPeerThatMoves(t *testing.T) {
	first, second, from := startPod(t, "to", nil), startPod(t, "to", nil), startPod(t, "from", nil)
	for _, to := range []*pod{first, second, first} {
		from.SetPeers(map[string]string{"to": to.addr})
		<-from.connected
		from.Send("to", &relay.Envelope{Version: 1, From: "from"})
		to.receives(t)
	}
	from.SetPeers(nil)
	from.Send("to", &relay.Envelope{Version: 1, From: "from"})
	if n := value(t, from.cfg.Metrics.Lost.WithLabelValues(noAddress)); n != 1 {
		t.Errorf("%v envelopes were counted as lost for want of an address", n)
	}
}

// TestUnreachablePeerHasNoQueue: the heartbeats for a pod that does not start for days are not kept
// for days.
func TestUnreachablePeerHasNoQueue(t *testing.T) {
	l := listenLoopback(t)
	l.Close()
	from := startPod(t, "pod-0", nil)
	from.SetPeers(map[string]string{"gone": l.Addr().String()})
	from.Send("gone", &relay.Envelope{Version: 1, From: "pod-0"})
	eventually(t, "nothing waits", func() bool { return from.Queued("gone") == 0 })
}

// TestPeerThatHangsIsGivenUp: a peer whose kernel accepts connections and whose process does
// nothing, or that answers with no Welcome.
func TestPeerThatHangsIsGivenUp(t *testing.T) {
	l := listenLoopback(t)
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	from := startPod(t, "from", nil)
	from.SetPeers(map[string]string{"hung": l.Addr().String()})
	for range 2 { // it is given up, and tried again
		select {
		case c := <-accepted:
			defer c.Close()
		case <-time.After(5 * dialTimeout):
			t.Fatal("no attempt to connect")
		}
	}
	if len(from.connected) > 0 {
		t.Error("it counts as connected")
	}
	from.Close()
	l.Close()
	for c := range accepted {
		c.Close()
	}
}

// TestQueueIsBounded: by the memory of what waits.
func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	const size = 64 << 10
	n := 0
	for q.put(mem.SliceBuffer(make([]byte, 10)), size) {
		n++
	}
	if want := maxQueued / (size + queuedCost); n != want || q.size() > maxQueued {
		t.Errorf("%d envelopes of %d bytes were queued, want %d", n, q.size(), want)
	}
	q.take()
	if !q.put(mem.SliceBuffer(nil), size) {
		t.Error("what was taken still counts")
	}
	q.discard()
	if batch, _ := q.take(); batch != nil || q.size() != 0 {
		t.Errorf("%d envelopes are left after discard, of %d bytes", len(batch), q.size())
	}
}

// TestBatchesAreBounded: in envelopes and in bytes, in order, and an envelope that is larger goes
// alone.
func TestBatchesAreBounded(t *testing.T) {
	q := newQueue()
	put := func(n, size int) {
		for range n {
			q.put(mem.SliceBuffer(make([]byte, size)), size)
		}
	}
	put(maxBatch+1, 10)
	put(3, maxBatchBytes/2)
	put(1, maxBatchBytes+1)
	put(1, 1)
	for i, want := range []struct{ envelopes, bytes int }{
		{maxBatch, maxBatch * 10},
		{2, 10 + maxBatchBytes/2},
		{2, maxBatchBytes},
		{1, maxBatchBytes + 1},
		{1, 1},
		{0, 0},
	} {
		if batch, size := q.take(); len(batch) != want.envelopes || size != want.bytes {
			t.Errorf("batch %d has %d envelopes of %d bytes, want %d of %d", i, len(batch), size, want.envelopes, want.bytes)
		}
	}
}

// TestWhatArrivesIsWhatWasSent: batches of any sizes, put together from buffers that are used
// again.
func TestWhatArrivesIsWhatWasSent(t *testing.T) {
	to, from := startPod(t, "to", nil), startPod(t, "from", nil)
	from.SetPeers(map[string]string{"to": to.addr})
	<-from.connected
	sizes := []int{0, 1, 100, 127, 128, 1000, 5 << 10, 16 << 10, 30 << 10, 48 << 10}
	for i := range 500 {
		data := make([]byte, sizes[i%len(sizes)])
		for j := range data {
			data[j] = byte(i + j)
		}
		for from.Queued("to") > maxQueued/2 {
			time.Sleep(time.Millisecond)
		}
		from.Send("to", &relay.Envelope{Version: uint32(i + 1), From: "from", Incarnation: data})
	}
	var all []*relay.Envelope
	for i := range 500 {
		e := to.receives(t)
		if all = append(all, e); e.GetVersion() != uint32(i+1) {
			t.Fatalf("envelope %d is %d", i, e.GetVersion())
		}
	}
	for i, e := range all { // after the buffers were used again
		if len(e.GetIncarnation()) != sizes[i%len(sizes)] {
			t.Fatalf("envelope %d has %d bytes", i, len(e.GetIncarnation()))
		}
		for j, b := range e.GetIncarnation() {
			if b != byte(i+j) {
				t.Fatalf("byte %d of envelope %d is %d", j, i, b)
			}
		}
	}
}
