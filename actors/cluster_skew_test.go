package actors

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// recording holds what a pod of release 0.2 (protocol version 1) sent, as envelopes, each after its
// length: it opened a session, ran a command, read its output, asked for the status and closed.
// TROUPE_RECORD=1 makes a new one, which is wanted when a release is made.
const recording = "testdata/peer-v1.bin"

// oldPeer is a pod whose envelopes are known beforehand.
type oldPeer struct {
	transport *peers.Transport

	mu    sync.Mutex
	came  []*relay.Frame
	seen  uint64 // the highest seq that came, without gaps
	sent  [][]byte
	proxy *relay.Proxy // while recording
}

// deliver takes what the pod of this release says.
func (p *oldPeer) deliver(e *relay.Envelope, held relay.Held) {
	if held != nil {
		held.Ref() // for ever
	}
	f := e.GetFrame()
	if f == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came = append(p.came, f)
	if f.GetSeq() == p.seen+1 {
		p.seen++
	}
	if p.proxy != nil {
		p.proxy.Receive(time.Now(), f, nil)
	}
}

func (p *oldPeer) seq() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// got returns the first frame that came for which pick is true.
func (p *oldPeer) got(pick func(*relay.Frame) bool) *relay.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.came, pick); i >= 0 {
		return p.came[i]
	}
	return nil
}

var oldIncarnation = relay.Incarnation{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// say sends one envelope, and keeps it.
func (p *oldPeer) say(f *relay.Frame) {
	e := &relay.Envelope{Version: 1, From: "old", Incarnation: oldIncarnation[:], Kind: &relay.Envelope_Frame{Frame: f}}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		panic(err)
	}
	p.sent = append(p.sent, data)
	p.transport.Send("pod-0", e)
}

// meetOldPeer makes a service of one pod, and an old one that it knows.
func meetOldPeer(t *testing.T) (*service, *oldPeer) {
	t.Helper()
	s := newService(t, 1, nil)
	old := &oldPeer{}
	l := listenLoopback(t, "127.0.0.1:0")
	connected := make(chan string, 100)
	old.transport = peers.NewTransport(peers.Config{
		Pod: "old", Listener: l, TLS: load(t, sign(t, s.ca, t.TempDir(), peers.CertName)),
		Metrics: peers.NewMetrics(func(prometheus.Collector) {}),
		Deliver: old.deliver, Connected: func(pod string) { connected <- pod },
	})
	old.transport.Start()
	t.Cleanup(old.transport.Close)
	old.transport.SetPeers(map[string]string{"pod-0": s.dir.peers[0].Addr})
	<-connected // or what is said before is lost
	s.dir.set(peers.Unknown, append(s.dir.Peers(), peers.Peer{Pod: "old", Addr: l.Addr().String()})...)
	return s, old
}

// TestOlderAndNewerPeers replays what a pod of the release before said, and the same as a
// newer release might say it, with members that this one does not know.
func TestOlderAndNewerPeers(t *testing.T) {
	if os.Getenv("TROUPE_RECORD") != "" {
		record(t)
	}
	data, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	for name, unknown := range map[string][]byte{
		"older": nil,
		"newer": protowire.AppendString(protowire.AppendTag(nil, 1999, protowire.BytesType), "of a later release"),
	} {
		t.Run(name, func(t *testing.T) {
			s, old := meetOldPeer(t)
			for rest := data; len(rest) > 0; {
				size, n := binary.Uvarint(rest)
				envelope := new(relay.Envelope)
				if err := proto.Unmarshal(rest[n:n+int(size)], envelope); err != nil {
					t.Fatal(err)
				}
				rest = rest[n+int(size):]
				f := envelope.GetFrame()
				if f.GetRequest().GetMethod() == wire.MethodStatus {
					finish(t, s, old)
				}
				if f.GetEnd() != nil {
					eventually(t, 10*time.Second, "the answer to status", func() bool {
						return old.got(func(f *relay.Frame) bool {
							return string(f.GetReply().GetId()) == "2" && len(f.GetReply().GetError()) == 0
						}) != nil
					})
				}
				// This pod may cut what it says into other frames: what it has not sent is not acknowledged.
				f.Ack = min(f.GetAck(), old.seq())
				envelope.ProtoReflect().SetUnknown(unknown)
				f.ProtoReflect().SetUnknown(unknown)
				old.transport.Send("pod-0", envelope)
			}
			eventually(t, 10*time.Second, "the session ends", func() bool { return s.pods[0].Stats().Sessions == 0 })
			if n := metricValue(t, s.pods[0].cluster.metrics.Malformed); n != 0 {
				t.Errorf("%v messages were not understood", n)
			}
			s.stop()
		})
	}
}

// finish lets the command print and end, and waits until the other side knows that it has ended.
func finish(t *testing.T, s *service, old *oldPeer) {
	t.Helper()
	var tree *fakeTree
	eventually(t, 10*time.Second, "the command runs", func() bool {
		tree = s.pods[0].runner.tree("x")
		return tree != nil && old.got(func(f *relay.Frame) bool { return f.GetFollow() != nil }) != nil
	})
	tree.print("hello\n")
	tree.exit(0)
	eventually(t, 10*time.Second, "output and end", func() bool {
		out, done := false, false
		old.got(func(f *relay.Frame) bool {
			for _, p := range f.GetOutput().GetPieces() {
				out = out || string(p.GetData()) == "hello\n"
				done = done || len(p.GetCompleted()) > 0
			}
			return false
		})
		return out && done
	})
}

// record has a proxy of this release talk, and keeps what it says.
func record(t *testing.T) {
	s, old := meetOldPeer(t)
	client := &testClient{output: nil, ready: make(chan struct{}), stop: make(chan struct{}), mute: true}
	client.late.Store(true)
	old.mu.Lock()
	old.proxy = relay.NewProxy(time.Now(), relay.ProxyConfig{
		Link: relay.LinkID(oldIncarnation), Open: relay.OpenParams{Subject: "alice", Remote: "192.0.2.1:1"}, Sink: client,
		Send: old.say, Wake: func() {},
	})
	old.mu.Unlock()
	client.settled(t)
	do := func(f func(*relay.Proxy)) {
		old.mu.Lock()
		defer old.mu.Unlock()
		f(old.proxy)
	}
	do(func(g *relay.Proxy) {
		g.Request(time.Now(), wire.ID("1"), &wire.ExecuteParams{Command: "echo hello", ExecutionID: "x"})
	})
	client.answered(t, "1")
	finish(t, s, old)
	do(func(g *relay.Proxy) { g.Request(time.Now(), wire.ID("2"), &wire.StatusParams{}) })
	client.answered(t, "2")
	do(func(g *relay.Proxy) { g.Closed(time.Now(), wire.CauseClientDone, map[string]int64{}) })
	eventually(t, 10*time.Second, "the session ends", func() bool { return s.pods[0].Stats().Sessions == 0 })
	var out []byte
	do(func(*relay.Proxy) {
		for _, data := range old.sent {
			out = append(binary.AppendUvarint(out, uint64(len(data))), data...)
		}
	})
	if err := os.MkdirAll(filepath.Dir(recording), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recording, out, 0o644); err != nil {
		t.Fatal(err)
	}
	s.stop()
}
