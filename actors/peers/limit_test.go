package peers

import (
	"net"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/turn"
)

// TestConnectionsWithoutCertificateAreBounded: sockets that never complete a handshake hold no more
// than the listener's bounds, and keep no peer out that connects from another address.
func TestConnectionsWithoutCertificateAreBounded(t *testing.T) {
	ca := newAuthority(t)
	p := startSecure(t, "pod-0", ca, nil)
	refused := p.cfg.Metrics.Refused.WithLabelValues(RefusedConnections)
	var conns []net.Conn
	for i := range 2 * MaxConnections {
		from := net.TCPAddr{IP: net.IPv4(127, 9, byte(i%100), 1)}
		c, err := (&net.Dialer{LocalAddr: &from}).Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	eventually(t, "the connections beyond the bound are closed", func() bool {
		return value(t, refused) >= MaxConnections/2 // some ended by themselves meanwhile
	})
	// The oldest ones made room.
	_ = conns[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conns[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest connection is not closed")
	}
	from := startSecure(t, "pod-1", ca, nil)
	from.SetPeers(map[string]string{"pod-0": p.addr})
	<-from.connected
	from.Send("pod-0", &relay.Envelope{Version: 1, From: "pod-1"})
	p.receives(t)
}

// TestPeerKeepsItsConnection: the connection of a peer does not make room for those of whoever
// reaches the port, and not for those of a pod that opens many.
func TestPeerKeepsItsConnection(t *testing.T) {
	var out []string
	l := limitConnections(listenLoopback(t), func(addr string) { out = append(out, addr) })
	defer l.Close()
	connect := func(host byte) *limitedConn {
		from := net.TCPAddr{IP: net.IPv4(127, 9, 9, host)}
		c, err := (&net.Dialer{LocalAddr: &from}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return accepted.(*limitedConn)
	}
	peer := connect(1)
	peer.hasProved()
	greedy := connect(2)
	greedy.hasProved()
	for range maxFromAddress {
		connect(2).hasProved()
	}
	if len(out) != 1 || out[0] != greedy.RemoteAddr().String() {
		t.Fatalf("evicted %v, want the oldest of the address that has too many, %v", out, greedy.RemoteAddr())
	}
	for i := len(l.conns); i <= MaxConnections; i++ {
		connect(byte(3 + i%200))
	}
	for host := range byte(3) {
		connect(200 + host)
	}
	if len(l.conns) != MaxConnections {
		t.Fatalf("%d connections are counted", len(l.conns))
	}
	if l.from[peer.addr] != 1 || l.from[greedy.addr] != maxFromAddress {
		t.Error("the connection of a peer made room for one that has proved nothing")
	}
	for _, c := range l.conns {
		defer c.Conn.Close()
	}
	_ = peer.Close()
	if l.from[peer.addr] != 0 {
		t.Error("a closed connection still counts")
	}
}

// TestPeersTakeTurns: however many pods send all they can, all but one processor at most read it, and
// a peer that sends little waits for none of them.
func TestPeersTakeTurns(t *testing.T) {
	turns := make([]turn.Turn, turn.Most())
	for i := range turns {
		turns[i].Take(turn.Admin)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go theirs.Write(make([]byte, 2*turn.AllowedBytes))
	c := &limitedConn{Conn: ours}
	read := make(chan int, 1000)
	go func() {
		defer close(read)
		for sum := 0; sum < 2*turn.AllowedBytes; {
			n, err := c.Read(make([]byte, 4<<10))
			if err != nil {
				return
			}
			sum += n
			read <- n
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if n := len(read); n == 0 || n >= turn.AllowedBytes/(4<<10) {
		t.Errorf("%d reads without a turn", n)
	}
	for i := range turns {
		turns[i].GiveBack()
	}
	for range read { // to its end
	}
	if c.turn.Held() {
		t.Error("it keeps its turn, and may wait")
	}
}
