package actors

import (
	"crypto/tls"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// accepted reports whether a pod's peer listener takes the connection of a program with that
// certificate. In TLS 1.3 a server refuses after the handshake of the client, so the client reads:
// HTTP/2 lets the server speak first.
func accepted(t *testing.T, addr string, f peerca.Files) error {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, clientOf(t, f))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err = conn.Read(make([]byte, 1))
	return err
}

func clientOf(t *testing.T, f peerca.Files) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
}

// TestCertificatesRotate: a new authority is introduced, used and the old one withdrawn, in
// both directions, without a restart and without the loss of a session.
func TestCertificatesRotate(t *testing.T) {
	s := newService(t, 2, nil)
	owner := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := owner.settled(t)
	remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	remote.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	remote.answered(t, "1")
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
			h.cluster.transport.Reset(s.dir.peers[1-i].Pod) // a connection is as good as when it was made
		}
		remote.conn.Request(wire.ID(ids[step]), &wire.StatusParams{})
		remote.answered(t, ids[step])
		s.meet()
	}
	old := sign(t, s.ca, t.TempDir(), peers.CertName)
	for i := range s.pods {
		if err := accepted(t, s.dir.peers[i].Addr, old); err == nil {
			t.Error("a certificate of the withdrawn authority was accepted")
		}
		if err := accepted(t, s.dir.peers[i].Addr, s.files[1-i]); err != nil {
			t.Errorf("a certificate of the new authority: %v", err)
		}
	}
	// A certificate without its key is not taken over.
	other := sign(t, s.ca, t.TempDir(), peers.CertName)
	if err := os.Rename(other.Cert, s.files[0].Cert); err != nil {
		t.Fatal(err)
	}
	s.pods[1].cluster.transport.Reset("pod-0")
	remote.conn.Request(wire.ID(ids[3]), &wire.StatusParams{})
	remote.answered(t, ids[3])
	s.stop(owner, remote)
}

// TestGarbageIsSurvived: envelopes that no peer sends, from a pod that can prove it is one, are
// counted, cost no session and crash nothing.
func TestGarbageIsSurvived(t *testing.T) {
	s, bad := meetOldPeer(t)
	frame := func(f *relay.Frame) *relay.Envelope {
		return &relay.Envelope{Version: 1, From: "old", Incarnation: oldIncarnation[:], Kind: &relay.Envelope_Frame{Frame: f}}
	}
	link := relay.NewLinkID()
	counted := func() uint64 { return s.pods[0].cluster.counters.Violations.Load() }
	for name, e := range map[string]*relay.Envelope{
		"nothing":             {},
		"no version":          {From: "old", Incarnation: oldIncarnation[:]},
		"no name":             {Version: 1, Incarnation: oldIncarnation[:]},
		"a long name":         {Version: 1, From: strings.Repeat("x", 254), Incarnation: oldIncarnation[:]},
		"this pod's name":     {Version: 1, From: "pod-0", Incarnation: oldIncarnation[:]},
		"a short incarnation": {Version: 1, From: "old", Incarnation: oldIncarnation[:15]},
		"a short link": frame(&relay.Frame{
			Link: link[:15], Seq: 1,
			Body: &relay.Frame_Open{Open: &relay.Open{}},
		}),
		"a first frame that is not": frame(&relay.Frame{
			Link: link[:], Seq: 1, Ack: 7,
			Body: &relay.Frame_Open{Open: &relay.Open{}},
		}),
	} {
		before := counted()
		bad.transport.Send("pod-0", e)
		eventually(t, 10*time.Second, name+" is counted", func() bool { return counted() > before })
	}
	for range 1000 { // frames of links that there are not, of every kind
		id := relay.NewLinkID()
		for _, f := range []*relay.Frame{
			{Seq: rand.Uint64(), Body: &relay.Frame_Request{Request: &relay.Request{}}},
			{Body: &relay.Frame_Probe{Probe: &relay.Probe{Number: rand.Uint64()}}},
			{Body: &relay.Frame_Acknowledge{Acknowledge: &relay.Ack{Gap: true}}},
			{Body: &relay.Frame_Reset_{Reset_: &relay.Reset{}}},
			{},
		} {
			f.Link = id[:]
			bad.transport.Send("pod-0", frame(f))
		}
	}
	c := connect(s.pods[0].Engine, ConnectRequest{})
	if connected, err := c.settled(t); connected == nil {
		t.Errorf("a session was refused afterwards: %v", err)
	}
	for _, actor := range []string{"manager", "connection", "session"} {
		if n := metricValue(t, s.pods[0].metrics.panics.WithLabelValues(actor)); n != 0 {
			t.Errorf("%v panics of the %s", n, actor)
		}
	}
	s.stop(c)
}

// TestLinksOfOtherPodsAreBounded: a pod that opens links without end gets the bound, a Reset for
// those beyond it, and keeps no client of this pod out.
func TestLinksOfOtherPodsAreBounded(t *testing.T) {
	s, bad := meetOldPeer(t)
	open := &relay.Frame_Open{Open: &relay.Open{Subject: []byte("somebody"), Session: []byte("pod-0.x"), Window: 1 << 40}}
	held := s.pods[0].cluster.held.of(roleOrigin)
	most := int64(MaxOrigins(s.pods[0].limits.MaxSessions))
	resets := s.pods[0].cluster.counters.Resets.Load
	for range most + 100 {
		id := relay.NewLinkID()
		bad.transport.Send("pod-0", &relay.Envelope{
			Version: 1, From: "old", Incarnation: oldIncarnation[:],
			Kind: &relay.Envelope_Frame{Frame: &relay.Frame{Link: id[:], Seq: 1, Body: open}},
		})
	}
	eventually(t, 10*time.Second, "those beyond the bound are refused", func() bool { return resets() >= 90 })
	if n := held.Load(); n > most {
		t.Errorf("%d links are open", n)
	}
	c := connect(s.pods[0].Engine, ConnectRequest{})
	if connected, err := c.settled(t); connected == nil {
		t.Errorf("a session was refused: %v", err)
	}
	s.stop(c)
}

// TestPeerThatHangsAtHandshakeIsGivenUp: a peer whose kernel accepts and whose process does
// nothing.
func TestPeerThatHangsAtHandshakeIsGivenUp(t *testing.T) {
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
	for range 2 { // it is given up, and tried again
		select {
		case c := <-accepted:
			defer c.Close()
		case <-time.After(30 * time.Second):
			t.Fatal("no attempt to connect")
		}
	}
	remote := connect(s.pods[0].Engine, ConnectRequest{SessionID: "hung." + s.pods[0].incarnation.String()})
	remote.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: "x"})
	if r := remote.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeInternal || r.err.Data == nil ||
		r.err.Data.RetryAfterSeconds == 0 {
		t.Errorf("answered %+v", r)
	}
	closed := make(chan struct{})
	go func() {
		s.stop(remote)
		close(closed)
	}()
	select {
	case <-closed: // a slow machine takes seconds; a peer that is waited for never ends
	case <-time.After(30 * time.Second):
		t.Error("the engine waits for the peer when it closes")
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
