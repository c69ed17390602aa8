package peers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/relay"
)

// TestPeersAreAuthenticated: a program without a certificate of the authority, or with one for
// another name, is refused and counted, and disturbs no peer.
func TestPeersAreAuthenticated(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	p := startSecure(t, "pod-0", ca, nil)
	counted := func(reason string) float64 { return value(t, p.cfg.Metrics.Refused.WithLabelValues(reason)) }
	servers, clients := sign(t, ca, CertName), sign(t, ca, CertName)
	for _, c := range []struct {
		f   *peerca.Files
		use x509.ExtKeyUsage
	}{{&servers, x509.ExtKeyUsageServerAuth}, {&clients, x509.ExtKeyUsageClientAuth}} {
		both := ca.Uses
		ca.Uses = []x509.ExtKeyUsage{c.use}
		*c.f = sign(t, ca, CertName)
		ca.Uses = both
	}
	for name, c := range map[string]struct {
		creds  credentials.TransportCredentials
		reason string
	}{
		"plain text":        {nil, RefusedPlaintext},
		"no certificate":    {credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), RefusedCertificate},
		"another authority": {certified(t, sign(t, other, CertName)), RefusedCertificate},
		"another name":      {certified(t, sign(t, ca, "database")), RefusedCertificate},
		"another use":       {certified(t, servers), RefusedCertificate},
		"TLS 1.2": {
			credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}),
			RefusedHandshake,
		},
	} {
		before := counted(c.reason)
		if _, err := dialPod(t, p.addr, c.creds); err == nil {
			t.Errorf("%s: was let in", name)
		}
		eventually(t, name+" is counted", func() bool { return counted(c.reason) > before })
	}
	if _, err := dialPod(t, p.addr, certified(t, sign(t, ca, CertName))); err != nil {
		t.Errorf("a peer was refused: %v", err) // or this test shows nothing
	}

	// A server at a peer's address must prove the same.
	for name, creds := range map[string]credentials.TransportCredentials{
		"another authority": certified(t, sign(t, other, CertName)),
		"another name":      certified(t, sign(t, ca, "database")),
		"another use":       certified(t, clients),
	} {
		before := counted(RefusedCertificate)
		addr, opened := serve(t, creds, func(stream grpc.ServerStream) error {
			return stream.SendMsg(&relay.Welcome{Pod: "impostor"})
		})
		p.SetPeers(map[string]string{"impostor": addr})
		eventually(t, "an impostor with "+name+" is refused", func() bool { return counted(RefusedCertificate) > before })
		p.SetPeers(nil)
		if opened.Load() > 0 {
			t.Errorf("a stream to an impostor with %s was opened", name)
		}
	}
}

// serve runs a gRPC server that handles every method with f, and counts the calls.
func serve(t testing.TB, creds credentials.TransportCredentials, f func(grpc.ServerStream) error) (addr string,
	calls *atomic.Int64,
) {
	t.Helper()
	calls = new(atomic.Int64)
	options := []grpc.ServerOption{
		grpc.InitialWindowSize(64 << 10), grpc.InitialConnWindowSize(64 << 10),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			calls.Add(1)
			return f(stream)
		}),
	}
	if creds != nil {
		options = append(options, grpc.Creds(creds))
	}
	s := grpc.NewServer(options...)
	l := listenLoopback(t)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String(), calls
}

// TestGarbageIsSurvived: what no peer sends is counted and crashes nothing, and what comes next on
// the same stream is understood, except after a message so large that gRPC refuses it.
func TestGarbageIsSurvived(t *testing.T) {
	p := startPod(t, "pod-0", nil)
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	batch := func(envelopes ...[]byte) []byte {
		b, err := proto.Marshal(&relay.Batch{Envelopes: envelopes})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	envelope := func(from string) []byte {
		b, err := proto.Marshal(&relay.Envelope{Version: 1, From: from})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := envelope("good")
	large, err := proto.Marshal(&relay.Envelope{Version: 1, From: strings.Repeat("x", relay.MaxEnvelope)})
	if err != nil {
		t.Fatal(err)
	}
	tag := protowire.AppendTag(nil, batchEnvelopes, protowire.BytesType)
	malformed := p.cfg.Metrics.Malformed
	for name, m := range map[string][]byte{
		"noise in an envelope": batch(noise),
		"noise for a batch": append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			noise...),
		"an envelope cut short":         batch(good[:len(good)-1]),
		"an envelope that is too large": batch(large),
		"a batch cut short":             batch(good)[:len(good)],
		"a length beyond the end":       protowire.AppendVarint(bytes.Clone(tag), 1<<20),
		"a length of 2^63":              protowire.AppendVarint(bytes.Clone(tag), 1<<63),
		"a length that does not end": append(bytes.Clone(tag), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff),
		"member number 0":                {0x02, 0x00},
		"a group that does not end":      protowire.AppendTag(nil, 9, protowire.StartGroupType),
		"an end of a group not begun":    protowire.AppendTag(nil, 9, protowire.EndGroupType),
		"a good envelope before garbage": append(batch(good), 0xff),
	} {
		before := value(t, malformed)
		stream, err := dialPod(t, p.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(m); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" is counted", func() bool { return value(t, malformed) > before })
		if err := stream.SendMsg(batch(envelope("next"))); err != nil {
			t.Errorf("%s: the stream has ended: %v", name, err)
		}
		for p.receives(t).GetFrom() != "next" { // skip what was good in the batch
		}
	}

	// What a later release may send is ignored without counting it: other members, nothing, and a
	// member of this release with another type.
	before := value(t, malformed)
	stream, err := dialPod(t, p.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	later := protowire.AppendVarint(protowire.AppendTag(nil, batchEnvelopes, protowire.VarintType), 7)
	later = protowire.AppendString(protowire.AppendTag(later, 1999, protowire.BytesType), "of a later release")
	for _, m := range [][]byte{{}, append(later, batch(good)...)} {
		if err := stream.SendMsg(m); err != nil {
			t.Error(err)
		}
	}
	if from := p.receives(t).GetFrom(); from != "good" {
		t.Errorf("received an envelope from %q", from)
	}
	if n := value(t, malformed) - before; n != 0 {
		t.Errorf("%v messages of a later release were counted as malformed", n)
	}

	// A message larger than any Batch ends its stream only.
	if err := stream.SendMsg(make([]byte, maxMessage+1)); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(relay.Welcome)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of %d bytes: %v", maxMessage+1, err)
	}
	eventually(t, "it is counted", func() bool { return value(t, malformed) > before })
	if stream, err = dialPod(t, p.addr, nil); err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(batch(good)); err != nil {
		t.Fatal(err)
	}
	p.receives(t)
}

// TestNotEvenGRPC: bytes that are no HTTP/2 end their own connection.
func TestNotEvenGRPC(t *testing.T) {
	ca := newAuthority(t)
	p, from := startSecure(t, "pod-0", ca, nil), startSecure(t, "pod-1", ca, nil)
	f := sign(t, ca, CertName)
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tls.Dial("tcp", p.addr, &tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, NextProtos: []string{"h2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = raw.Write(bytes.Repeat([]byte("noise "), 1000))
	raw.Close()
	from.SetPeers(map[string]string{"pod-0": p.addr})
	<-from.connected
	from.Send("pod-0", &relay.Envelope{Version: 1, From: "pod-1"})
	p.receives(t)
}

// TestAPanicEndsItsStream: and nothing else, since what peers send leads there.
func TestAPanicEndsItsStream(t *testing.T) {
	p := startPod(t, "pod-0", func(c *Config) {
		deliver := c.Deliver
		c.Deliver = func(e *relay.Envelope, held relay.Held) {
			if e.GetFrom() == "bad" {
				panic("injected")
			}
			deliver(e, held)
		}
	})
	for _, from := range []string{"bad", "good"} {
		stream, err := dialPod(t, p.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, _ := proto.Marshal(&relay.Envelope{Version: 1, From: from})
		if err := stream.SendMsg(&relay.Batch{Envelopes: [][]byte{e}}); err != nil {
			t.Fatal(err)
		}
		if from == "bad" {
			if err := stream.RecvMsg(new(relay.Welcome)); status.Code(err) != codes.Internal {
				t.Errorf("the stream ended with %v", err)
			}
		}
	}
	p.receives(t)
	if n := value(t, p.cfg.Metrics.Malformed); n != 1 {
		t.Errorf("%v were counted", n)
	}
}

// TestStalledPeerCostsBoundedMemory: for a peer that accepts connections and reads nothing, this
// pod holds no more than its queue, however much is sent to it, and the peer does not keep the
// transport from closing.
func TestStalledPeerCostsBoundedMemory(t *testing.T) {
	ca := newAuthority(t)
	stalled := make(chan struct{}, 16)
	addr, _ := serve(t, certified(t, sign(t, ca, CertName)), func(stream grpc.ServerStream) error {
		err := stream.SendMsg(&relay.Welcome{Pod: "deaf"})
		stalled <- struct{}{}
		<-stream.Context().Done()
		return err
	})
	p := startSecure(t, "pod-0", ca, nil)
	p.SetPeers(map[string]string{"deaf": addr})
	var before runtime.MemStats
	for range 2 { // the second empties pools
		runtime.GC()
	}
	runtime.ReadMemStats(&before)
	lost := p.cfg.Metrics.Lost.WithLabelValues(queueFull)
	for _, size := range []int{30, 5 << 10, 13 << 10, 64 << 10} { // an acknowledgement has 60 bytes with its envelope
		<-stalled
		lostBefore := value(t, lost)
		n := (125 << 20) / (size + 1<<10)
		for range n {
			p.Send("deaf", &relay.Envelope{Version: 1, From: "pod-0", Incarnation: make([]byte, size)})
		}
		var after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&after)
		held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%d KiB held of %d envelopes of %d bytes", held>>10, n, size)
		if held > 2*maxQueued {
			t.Errorf("%d MiB are held for a peer that does not read, of envelopes of %d bytes", held>>20, size)
		}
		if queued := p.Queued("deaf"); queued > maxQueued || queued < maxQueued/2 {
			t.Errorf("%d bytes are queued", queued)
		}
		if lost := value(t, lost) - lostBefore; lost < float64(n/4) {
			t.Errorf("%v envelopes were counted as lost, want most of %d", lost, n)
		}
		p.Reset("deaf") // discards what waits, and connects again
	}
	closed := make(chan struct{})
	go func() {
		p.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the transport does not close")
	}
}

// TestReleaseBefore02Dials: a pod of release 0.1 calls proto.actor's remote about once a second. It
// learns that there is no such service, which it treats as any failure to connect. Here it is
// counted, logged once, and disturbs no peer.
func TestReleaseBefore02Dials(t *testing.T) {
	var logged bytes.Buffer
	p := startPod(t, "pod-0", func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	const calls = 5
	for range calls {
		stream, err := dial(t, p.addr, nil, "/remote.Remoting/Receive")
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SendMsg([]byte("\x12\x00")) // its greeting
		if err := stream.RecvMsg(new(relay.Welcome)); status.Code(err) != codes.Unimplemented {
			t.Fatalf("the caller received %v", err)
		}
	}
	if n := value(t, p.cfg.Metrics.Malformed); n != calls {
		t.Errorf("%v calls were counted", n)
	}
	from := startPod(t, "pod-1", nil)
	from.SetPeers(map[string]string{"pod-0": p.addr})
	<-from.connected
	from.Send("pod-0", &relay.Envelope{Version: 1, From: "pod-1"})
	p.receives(t)
	p.Close() // the log is complete
	if n := strings.Count(logged.String(), "incompatible release"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &logged)
	}
}

// TestReleaseBefore02IsDialled: a pod of release 0.1 does not serve Peers. It is tried again with a
// pause that grows to a second, is logged once, never counts as connected, and has no queue.
func TestReleaseBefore02IsDialled(t *testing.T) {
	addr, calls := serve(t, nil,
		func(grpc.ServerStream) error { return status.Error(codes.Unimplemented, "unknown service") })
	var logged bytes.Buffer
	p := startPod(t, "pod-0", func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	began := time.Now()
	p.SetPeers(map[string]string{"old": addr})
	p.Send("old", &relay.Envelope{Version: 1, From: "pod-0"})
	eventually(t, "it is tried again", func() bool { return calls.Load() >= 5 })
	// Four pauses: of 50, 100, 200 and 400 ms, each by half less at least.
	if took := time.Since(began); took < 375*time.Millisecond {
		t.Errorf("tried 5 times in %v", took)
	}
	eventually(t, "nothing is queued", func() bool { return p.Queued("old") == 0 })
	p.Close()
	if len(p.connected) > 0 {
		t.Error("it counts as connected")
	}
	if n := strings.Count(logged.String(), "peer is incompatible"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &logged)
	}
}
