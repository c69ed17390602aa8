package actors

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// What package peers does not export.
const (
	peersID      = "peers"
	envelopeType = "troupe.relay.v1.Envelope"
	maxQueued    = 8 << 20
	dialTimeout  = 3 * time.Second
)

// stranger connects to a pod's peer listener as somebody else's program would.
func stranger(t *testing.T, addr string, creds credentials.TransportCredentials) (remote.Remoting_ReceiveClient, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	stream, err := remote.NewRemotingClient(conn).Receive(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{}}); err != nil {
		return nil, err
	}
	_, err = stream.Recv()
	return stream, err
}

// TestPeersAreAuthenticated: whoever has no certificate of the authority, or one for
// another purpose, is not talked to, is counted, and disturbs nobody.
func TestPeersAreAuthenticated(t *testing.T) {
	s := newService(t, 2, nil)
	addr := s.dir.peers[0].Addr
	counted := func(reason string) float64 {
		return metricValue(t, s.pods[0].cluster.metrics.Refused.WithLabelValues(reason))
	}
	other := newAuthority(t)
	for name, c := range map[string]struct {
		creds  credentials.TransportCredentials
		reason string
	}{
		"plain text":        {insecure.NewCredentials(), peers.RefusedPlaintext},
		"no certificate":    {credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), peers.RefusedCertificate},
		"another authority": {credentials.NewTLS(clientOf(t, sign(t, other, t.TempDir(), peers.CertName))), peers.RefusedCertificate},
		"another name":      {credentials.NewTLS(clientOf(t, sign(t, s.ca, t.TempDir(), "database"))), peers.RefusedCertificate},
	} {
		before := counted(c.reason)
		if _, err := stranger(t, addr, c.creds); err == nil {
			t.Errorf("%s: was let in", name)
		}
		eventually(t, 5*time.Second, name+" is counted", func() bool { return counted(c.reason) > before })
	}
	if _, err := stranger(t, addr, credentials.NewTLS(clientOf(t, s.files[1]))); err != nil {
		t.Errorf("a peer was refused: %v", err) // or this test shows nothing
	}

	// A pod whose peer's address is somebody else's does not talk to that either.
	foreign := grpc.NewServer(grpc.Creds(credentials.NewTLS(serverOf(t, sign(t, other, t.TempDir(), peers.CertName)))))
	l := listenLoopback(t, "127.0.0.1:0")
	go func() { _ = foreign.Serve(l) }()
	before := counted(peers.RefusedCertificate)
	s.dir.set(peers.Unknown, append(s.dir.Peers(), peers.Peer{Pod: "impostor", Addr: l.Addr().String()})...)
	eventually(t, 5*time.Second, "the impostor is refused", func() bool { return counted(peers.RefusedCertificate) > before })
	foreign.Stop()
	s.meet()
	s.stop()
}

func clientOf(t *testing.T, f peerca.Files) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true}
}

func serverOf(t *testing.T, f peerca.Files) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: clientOf(t, f).Certificates, ClientAuth: tls.RequireAnyClientCert}
}

// TestCertificatesRotate: a new authority is introduced, used and the old one withdrawn, in
// both directions, without a restart and without the loss of a session.
func TestCertificatesRotate(t *testing.T) {
	s := newService(t, 2, nil)
	owner := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := owner.settled(t)
	far := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	far.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	far.answered(t, "1")
	ids := []string{"11", "12", "13", "14"}
	next := newAuthority(t)
	for step, sign := range []func(dir string){
		func(dir string) { sign(t, s.ca, dir, peers.CertName, next) }, // both are trusted
		func(dir string) { sign(t, next, dir, peers.CertName, s.ca) }, // the new one signs
		func(dir string) { sign(t, next, dir, peers.CertName) },       // the old one is not trusted any more
	} {
		for _, f := range s.files {
			sign(filepath.Dir(f.Cert))
		}
		for i, h := range s.pods {
			h.cluster.transport.Cut(s.dir.peers[1-i].Pod) // a connection is as good as when it was made
		}
		far.conn.Request(wire.ID(ids[step]), &wire.StatusParams{})
		far.answered(t, ids[step])
		s.meet()
	}
	old := sign(t, s.ca, t.TempDir(), peers.CertName)
	for i := range s.pods {
		if _, err := stranger(t, s.dir.peers[i].Addr, credentials.NewTLS(clientOf(t, old))); err == nil {
			t.Error("a certificate of the withdrawn authority was accepted")
		}
	}
	// A certificate without its key is not taken over.
	other := sign(t, s.ca, t.TempDir(), peers.CertName)
	if err := os.Rename(other.Cert, s.files[0].Cert); err != nil {
		t.Fatal(err)
	}
	s.pods[1].cluster.transport.Cut("pod-0")
	far.conn.Request(wire.ID(ids[3]), &wire.StatusParams{})
	far.answered(t, ids[3])
	s.stop(owner, far)
}

// TestGarbageIsSurvived: what nobody of ours sends is counted, and crashes nothing.
func TestGarbageIsSurvived(t *testing.T) {
	s := newService(t, 2, nil)
	addr := s.dir.peers[0].Addr
	creds := func() credentials.TransportCredentials { return credentials.NewTLS(clientOf(t, s.files[1])) }
	good, err := proto.Marshal(&relay.Envelope{Version: 1, From: "pod-1", Boot: s.pods[1].boot[:]})
	if err != nil {
		t.Fatal(err)
	}
	batch := func(b *remote.MessageBatch) *remote.RemoteMessage {
		return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: b}}
	}
	to := []*actor.PID{{Address: "pod-0", Id: peersID}}
	one := func(e *remote.MessageEnvelope, types ...string) *remote.RemoteMessage {
		return batch(&remote.MessageBatch{TypeNames: types, Targets: to, Envelopes: []*remote.MessageEnvelope{e}})
	}
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	malformed := s.pods[0].cluster.metrics.Malformed
	for name, m := range map[string]*remote.RemoteMessage{
		"an unknown type":          one(&remote.MessageEnvelope{MessageData: good}, "troupe.relay.v9.Surprise"),
		"no type":                  one(&remote.MessageEnvelope{MessageData: good}),
		"a type that is not there": one(&remote.MessageEnvelope{MessageData: good, TypeId: 7}, envelopeType),
		"a negative type":          one(&remote.MessageEnvelope{MessageData: good, TypeId: -1}, envelopeType),
		"a target that is not":     one(&remote.MessageEnvelope{MessageData: good, Target: 3}, envelopeType),
		"a negative target":        one(&remote.MessageEnvelope{MessageData: good, Target: -3}, envelopeType),
		"another actor": batch(&remote.MessageBatch{
			TypeNames: []string{envelopeType}, Targets: []*actor.PID{{Address: "pod-0", Id: "manager"}},
			Envelopes: []*remote.MessageEnvelope{{MessageData: good}},
		}),
		"a system message": batch(&remote.MessageBatch{
			TypeNames: []string{"actor.Stop"}, Targets: []*actor.PID{{Address: "pod-0", Id: "manager"}},
			Envelopes: []*remote.MessageEnvelope{{}},
		}),
		"another serializer": one(&remote.MessageEnvelope{MessageData: good, SerializerId: 9}, envelopeType),
		"noise":              one(&remote.MessageEnvelope{MessageData: noise}, envelopeType),
	} {
		before := metricValue(t, malformed)
		stream, err := stranger(t, addr, creds())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, name+" is counted", func() bool { return metricValue(t, malformed) > before })
		// What is sent next on the same stream is understood.
		if err := stream.Send(one(&remote.MessageEnvelope{MessageData: good}, envelopeType)); err != nil {
			t.Errorf("%s: the stream has ended: %v", name, err)
		}
	}
	// Messages with nothing in them, and bytes that are not even gRPC.
	stream, err := stranger(t, addr, creds())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*remote.RemoteMessage{{}, batch(nil), batch(&remote.MessageBatch{Envelopes: []*remote.MessageEnvelope{nil, {}}})} {
		if err := stream.Send(m); err != nil {
			t.Error(err)
		}
	}
	raw, err := tls.Dial("tcp", addr, clientOf(t, s.files[1]))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = raw.Write(noise)
	raw.Close()

	if n := metricValue(t, s.pods[0].metrics.panics.WithLabelValues("manager")); n != 0 {
		t.Errorf("%v panics of the manager", n)
	}
	c := connect(s.pods[1].Engine, ConnectRequest{})
	if connected, err := c.settled(t); connected == nil {
		t.Errorf("a session was refused afterwards: %v", err)
	}
	s.meet()
	s.stop(c)
}

// TestStalledPeerCostsBoundedMemory: a peer that accepts connections and reads nothing holds
// no more here than its queue, whatever is sent to it, and does not keep the engine from closing.
func TestStalledPeerCostsBoundedMemory(t *testing.T) {
	s := newService(t, 1, nil)
	l := listenLoopback(t, "127.0.0.1:0")
	defer l.Close()
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(serverOf(t, sign(t, s.ca, t.TempDir(), peers.CertName)))),
		grpc.InitialWindowSize(64<<10), grpc.InitialConnWindowSize(64<<10))
	stalled := make(chan struct{}, 16)
	remote.RegisterRemotingServer(server, &deafPeer{greeted: stalled})
	go func() { _ = server.Serve(l) }()
	s.dir.set(peers.Unknown, append(s.dir.Peers(), peers.Peer{Pod: "deaf", Addr: l.Addr().String()})...)

	p := s.pods[0].cluster
	var before runtime.MemStats
	for range 2 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&before)
	for _, size := range []int{30, 5 << 10, 13 << 10, 64 << 10} { // an acknowledgement has 60 bytes with its envelope
		<-stalled
		lost := metricValue(t, p.metrics.Lost.WithLabelValues("queue_full"))
		n := (125 << 20) / (size + 1<<10)
		for range n {
			p.transport.Send("deaf", &relay.Envelope{Version: 1, From: "pod-0", Boot: make([]byte, size)})
		}
		var after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&after)
		held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%d KiB held of %d envelopes of %d bytes", held>>10, n, size)
		if held > 2*maxQueued {
			t.Errorf("%d MiB are held for a peer that does not read, of envelopes of %d bytes", held>>20, size)
		}
		if lost := metricValue(t, p.metrics.Lost.WithLabelValues("queue_full")) - lost; lost < float64(n/4) {
			t.Errorf("%v envelopes were counted as lost, want most of %d", lost, n)
		}
		p.transport.Cut("deaf") // it forgets what waits, and connects again
	}
	closed := time.Now()
	s.stop()
	if took := time.Since(closed); took > 3*time.Second {
		t.Errorf("closing took %v", took)
	}
	server.Stop()
}

// deafPeer greets and then reads nothing.
type deafPeer struct {
	remote.UnimplementedRemotingServer
	greeted chan struct{} // one for each connection
}

func (d *deafPeer) Receive(stream remote.Remoting_ReceiveServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	err := stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{MemberId: "deaf"}}})
	d.greeted <- struct{}{}
	<-stream.Context().Done()
	return err
}

// TestPeerThatHangsAtHandshakeIsLeft: a peer whose kernel accepts and whose process does nothing.
func TestPeerThatHangsAtHandshakeIsLeft(t *testing.T) {
	s := newService(t, 1, nil)
	l := listenLoopback(t, "127.0.0.1:0")
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
	s.dir.set(peers.Unknown, append(s.dir.Peers(), peers.Peer{Pod: "hung", Addr: l.Addr().String()})...)
	for range 2 { // it is left, and tried again
		select {
		case c := <-accepted:
			defer c.Close()
		case <-time.After(3 * dialTimeout):
			t.Fatal("no attempt to connect")
		}
	}
	far := connect(s.pods[0].Engine, ConnectRequest{SessionID: "hung." + s.pods[0].boot.String()})
	far.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: "x"})
	if r := far.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeInternal || r.err.Data == nil || r.err.Data.RetryAfterSeconds == 0 {
		t.Errorf("answered %+v", r)
	}
	began := time.Now()
	s.stop(far)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("closing took %v", took)
	}
	l.Close()
	for c := range accepted {
		c.Close()
	}
}

// TestPlainTextNeedsLoopback: without certificates there is no listener for others.
func TestPlainTextNeedsLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := (&PeersConfig{Directory: peers.Static{}, Listener: l}).validate(); err == nil {
		t.Error("plain text on every address was accepted")
	}
	if err := (&PeersConfig{Directory: peers.Static{}, Listener: l, TLS: &peers.TLS{}}).validate(); err != nil {
		t.Error(err)
	}
}
