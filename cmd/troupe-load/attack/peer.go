package attack

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/relay"
)

// peer is a pod that has been taken over: it has a certificate, and what its program sends is up to
// the attacker. Beside it, sockets without a certificate fill the peer listener.
func peer(ctx context.Context, a *attacker) {
	if a.spec.Peer.Victim == "" {
		return
	}
	certificate, err := tls.LoadX509KeyPair(a.spec.Peer.Cert, a.spec.Peer.Key)
	if err != nil {
		a.failed.Add(1)
		return
	}
	creds := credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
	})
	a.wg.Go(func() { a.neverReceive(ctx, creds) })
	for _, send := range []func(context.Context, *hostilePod){
		beat, openLinks, openNothing, noise,
	} {
		a.wg.Go(func() { a.asPod(ctx, creds, send) })
	}
	for range 8 { // with more, its own connections would make room for each other
		a.wg.Go(func() { a.asPod(ctx, creds, func(ctx context.Context, _ *hostilePod) { <-ctx.Done() }) })
	}
	// A TLS record that announces a long ClientHello.
	begun := append([]byte{0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0x3f, 0xfc, 0x03, 0x03}, make([]byte, 8_000)...)
	a.keep(ctx, a.spec.Peer.Victim, a.scaled(4_000), func(c *conn) error {
		if _, err := c.Write(begun); err != nil {
			return err
		}
		return c.untilClosed()
	})
}

// neverReceive serves the attacked server's stream, and receives nothing on it.
func (a *attacker) neverReceive(ctx context.Context, creds credentials.TransportCredentials) {
	l, err := net.Listen("tcp", a.spec.Peer.Listen)
	if err != nil {
		a.failed.Add(1)
		return
	}
	s := grpc.NewServer(grpc.Creds(creds), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.SendMsg(&relay.Welcome{Pod: a.spec.Peer.Pod}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}))
	defer context.AfterFunc(ctx, s.Stop)()
	_ = s.Serve(l) // ends with ctx
}

// hostilePod is one stream to the attacked server.
type hostilePod struct {
	a      *attacker
	stream grpc.ClientStream
	pod    string
	err    error
}

// asPod opens streams to the attacked server, one after the other, and has send use them.
func (a *attacker) asPod(ctx context.Context, creds credentials.TransportCredentials,
	send func(context.Context, *hostilePod),
) {
	for ctx.Err() == nil {
		if err := a.oneStream(ctx, creds, send); err != nil && ctx.Err() == nil {
			a.failed.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (a *attacker) oneStream(ctx context.Context, creds credentials.TransportCredentials,
	send func(context.Context, *hostilePod),
) error {
	conn, err := grpc.NewClient("passthrough:///"+a.spec.Peer.Victim, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, both, "/troupe.relay.v1.Peers/Stream")
	if err != nil {
		return err
	}
	if err := stream.RecvMsg(new(relay.Welcome)); err != nil {
		return err
	}
	a.connections.Add(1)
	pod := &hostilePod{a: a, stream: stream, pod: a.spec.Peer.Pod}
	send(ctx, pod)
	return pod.err
}

// batch sends envelopes, which may be anything.
func (p *hostilePod) batch(envelopes ...[]byte) bool {
	m := &relay.Batch{Envelopes: envelopes}
	if p.err = p.stream.SendMsg(m); p.err != nil {
		return false
	}
	p.a.sent.Add(int64(proto.Size(m)))
	return true
}

func (p *hostilePod) envelope(e *relay.Envelope) []byte {
	e.Version, e.From, e.Incarnation = 1, p.pod, bytes.Repeat([]byte{7}, 16)
	b, err := proto.Marshal(e)
	if err != nil {
		p.err = err
	}
	return b
}

func (p *hostilePod) frame(f *relay.Frame) []byte {
	return p.envelope(&relay.Envelope{Kind: &relay.Envelope_Frame{Frame: f}})
}

// beat makes the attacked server take this pod for alive, and for empty.
func beat(ctx context.Context, p *hostilePod) {
	for count := uint64(1); ctx.Err() == nil; count++ {
		if !p.batch(p.envelope(&relay.Envelope{Kind: &relay.Envelope_Heartbeat{Heartbeat: &relay.Heartbeat{
			Count: count, MaxSessions: 100,
		}}})) {
			return
		}
		wait(ctx, 300*time.Millisecond)
	}
}

func newLink() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return id
}

// openLinks opens sessions over links, runs yes in them with all the credit that there is, and
// leaves a long message unfinished in each. It acknowledges nothing.
func openLinks(ctx context.Context, p *hostilePod) {
	wait(ctx, time.Second) // until a heartbeat has come
	part := &relay.Frame_Fragment{Fragment: &relay.Fragment{Data: make([]byte, 40<<10)}}
	for n := range p.a.scaled(200) {
		id := newLink()
		open := &relay.Open{Subject: fmt.Appendf(nil, "hostile-pod-%d", n), Remote: []byte("pod"), Window: 1 << 40}
		frames := [][]byte{p.frame(&relay.Frame{Link: id, Seq: 1, Body: &relay.Frame_Open{Open: open}})}
		seq := uint64(2)
		for ; seq < 6; seq++ {
			frames = append(frames, p.frame(&relay.Frame{Link: id, Seq: seq, Body: &relay.Frame_Request{Request: &relay.Request{
				Id: fmt.Appendf(nil, "%d", seq), Method: "execute", Params: []byte(`{"argv":["/usr/bin/yes"],"framing":"raw"}`),
			}}}))
		}
		if !p.batch(frames...) {
			return
		}
		for range 100 {
			if !p.batch(p.frame(&relay.Frame{Link: id, Seq: seq, Body: part})) {
				return
			}
			seq++
		}
		wait(ctx, 10*time.Millisecond)
	}
	<-ctx.Done()
}

// openNothing opens links to sessions that do not exist, each of which the server must remember.
func openNothing(ctx context.Context, p *hostilePod) {
	first := &relay.Request{Id: []byte("1"), Method: "resume", Params: []byte(`{"resume_token":"x"}`)}
	for n := 0; ctx.Err() == nil; n++ {
		if !p.batch(p.frame(&relay.Frame{Link: newLink(), Seq: 1, Body: &relay.Frame_Open{Open: &relay.Open{
			Subject: make([]byte, 10_000), Session: fmt.Appendf(nil, "pod-0.%d", n), First: first, Window: 1 << 20,
		}}})) {
			return
		}
		wait(ctx, time.Millisecond)
	}
}

// noise sends what no pod sends: random bytes, frames of links that never were, and envelopes of pods
// that are not in the directory.
func noise(ctx context.Context, p *hostilePod) {
	random := make([]byte, 60<<10)
	_, _ = rand.Read(random) // never fails
	for n := uint64(0); ctx.Err() == nil; n++ {
		p.pod = p.a.spec.Peer.Pod
		if n%2 == 0 {
			p.pod = fmt.Sprintf("no-pod-%d-%x", n, random[:100])
		}
		credit := &relay.Frame_Credit{Credit: &relay.Credit{Limit: 1 << 63}}
		if !p.batch(random, random[:n%1000], p.frame(&relay.Frame{Link: newLink(), Seq: n}),
			p.frame(&relay.Frame{Link: newLink(), Seq: 1 << 60, Body: credit}),
			p.frame(&relay.Frame{Body: &relay.Frame_Probe{Probe: &relay.Probe{Number: n, Next: 1 << 62}}}),
			p.envelope(&relay.Envelope{Kind: &relay.Envelope_Heartbeat{Heartbeat: &relay.Heartbeat{Count: n}}})) {
			return
		}
		wait(ctx, 5*time.Millisecond)
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
