package actors

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// recording holds what a pod of release 0.2 (protocol version 1) sent, as remote's messages,
// each after its length: it opened a session, ran a command, read its output, asked for the
// status and closed. TROUPE_RECORD=1 makes a new one, which is wanted when a release is made.
const recording = "testdata/peer-v1.bin"

// oldPeer is a pod whose sentences are known beforehand.
type oldPeer struct {
	remote.UnimplementedRemotingServer
	stream remote.Remoting_ReceiveClient // to the pod of this release

	mu    sync.Mutex
	came  []*relay.Frame
	seen  uint64 // the highest seq that came, without gaps
	sent  []*remote.RemoteMessage
	guest *relay.Guest // while recording
}

// Receive is where the pod of this release sends its side to.
func (p *oldPeer) Receive(stream remote.Remoting_ReceiveServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil
		}
		if m.GetConnectRequest() != nil {
			_ = stream.Send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectResponse{ConnectResponse: &remote.ConnectResponse{MemberId: "old"}}})
		}
		for _, e := range m.GetMessageBatch().GetEnvelopes() {
			var envelope relay.Envelope
			if proto.Unmarshal(e.GetMessageData(), &envelope) != nil || envelope.GetFrame() == nil {
				continue
			}
			p.mu.Lock()
			f := envelope.GetFrame()
			p.came = append(p.came, f)
			if f.GetSeq() == p.seen+1 {
				p.seen++
			}
			if p.guest != nil {
				p.guest.Receive(time.Now(), f)
			}
			p.mu.Unlock()
		}
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

var oldBoot = relay.Boot{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// say sends one envelope as release 0.2 did.
func (p *oldPeer) say(f *relay.Frame) {
	data, err := proto.Marshal(&relay.Envelope{Version: 1, From: "old", Boot: oldBoot[:], Kind: &relay.Envelope_Frame{Frame: f}})
	if err != nil {
		panic(err)
	}
	m := &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: &remote.MessageBatch{
		TypeNames: []string{"troupe.relay.v1.Envelope"}, Targets: []*actor.PID{{Address: "pod-0", Id: "peers"}},
		Envelopes: []*remote.MessageEnvelope{{MessageData: data}},
	}}}
	p.sent = append(p.sent, m)
	_ = p.stream.Send(m)
}

// meetOldPeer makes a service of one pod, and an old one that it knows.
func meetOldPeer(t *testing.T) (*service, *oldPeer) {
	t.Helper()
	s := newService(t, 1, nil)
	files := sign(t, s.ca, t.TempDir(), peers.CertName)
	old := &oldPeer{}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(serverOf(t, files))))
	remote.RegisterRemotingServer(server, old)
	l := listenLoopback(t, "127.0.0.1:0")
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///"+s.dir.peers[0].Addr, grpc.WithTransportCredentials(credentials.NewTLS(clientOf(t, files))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	if old.stream, err = remote.NewRemotingClient(conn).Receive(ctx); err != nil {
		t.Fatal(err)
	}
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
	for name, change := range map[string]func([]byte) []byte{
		"older": func(b []byte) []byte { return b },
		"newer": func(b []byte) []byte {
			b = protowire.AppendTag(b, 1999, protowire.BytesType)
			return protowire.AppendString(b, "of a later release")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, old := meetOldPeer(t)
			for rest := data; len(rest) > 0; {
				size, n := binary.Uvarint(rest)
				m := &remote.RemoteMessage{}
				if err := proto.Unmarshal(rest[n:n+int(size)], m); err != nil {
					t.Fatal(err)
				}
				rest = rest[n+int(size):]
				e := m.GetMessageBatch().GetEnvelopes()[0]
				var envelope relay.Envelope
				if err := proto.Unmarshal(e.GetMessageData(), &envelope); err != nil {
					t.Fatal(err)
				}
				if c := envelope.GetFrame().GetRequest(); c.GetMethod() == wire.MethodStatus {
					finish(t, s, old)
				}
				if envelope.GetFrame().GetEnd() != nil {
					eventually(t, 10*time.Second, "the answer to status", func() bool {
						return old.got(func(f *relay.Frame) bool {
							return string(f.GetReply().GetId()) == "2" && len(f.GetReply().GetError()) == 0
						}) != nil
					})
				}
				// How this pod cuts its part into frames is its own affair: what was not said is not acknowledged.
				envelope.GetFrame().Ack = min(envelope.GetFrame().GetAck(), old.seq())
				if e.MessageData, err = proto.Marshal(&envelope); err != nil {
					t.Fatal(err)
				}
				e.MessageData = change(e.GetMessageData())
				if err := old.stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, 10*time.Second, "the session ends", func() bool { return s.pods[0].Stats().Sessions == 0 })
			if n := metricValue(t, s.pods[0].cluster.metrics.Malformed); n != 0 {
				t.Errorf("%v messages were not understood", n)
			}
			s.stop()
		})
	}
}

// finish lets the command print and end, and waits until the other side has heard of it.
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

// record has a guest of this release talk, and keeps what it says.
func record(t *testing.T) {
	s, old := meetOldPeer(t)
	client := &testClient{output: nil, ready: make(chan struct{}), stop: make(chan struct{}), mute: true}
	client.late.Store(true)
	old.mu.Lock()
	old.guest = relay.NewGuest(time.Now(), relay.GuestConfig{
		Link: relay.LinkID(oldBoot), Open: relay.Opening{Subject: "alice", Remote: "192.0.2.1:1"}, Client: client, Send: old.say, Wake: func() {},
	})
	old.mu.Unlock()
	client.settled(t)
	do := func(f func(*relay.Guest)) {
		old.mu.Lock()
		defer old.mu.Unlock()
		f(old.guest)
	}
	do(func(g *relay.Guest) {
		g.Request(time.Now(), wire.ID("1"), &wire.ExecuteParams{Command: "echo hello", ExecutionID: "x"})
	})
	client.answered(t, "1")
	finish(t, s, old)
	do(func(g *relay.Guest) { g.Request(time.Now(), wire.ID("2"), &wire.StatusParams{}) })
	client.answered(t, "2")
	do(func(g *relay.Guest) { g.Closed(time.Now(), wire.CauseClientDone, map[string]int64{}) })
	eventually(t, 10*time.Second, "the session ends", func() bool { return s.pods[0].Stats().Sessions == 0 })
	var out []byte
	do(func(*relay.Guest) {
		for _, m := range old.sent {
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
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
