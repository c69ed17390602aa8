package peers

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/troupe-dev/troupe/actors/turn"
)

const (
	// MaxConnections bounds the connections that other pods, and whoever else reaches the port, have
	// to this one. 200 pods have one each, and one more while they renew it.
	MaxConnections = 256
	// maxFromAddress bounds those of one address. A connection that is in use holds 64 KiB, and up to
	// 4 MiB while a message is half there. Pods have addresses of their own, except where a developer
	// runs several on one.
	maxFromAddress = 16
)

// limitedListener bounds the connections of a peer listener. At a bound, a new connection takes the
// place of another: of one that has not proved that it is a peer, if there is any; of the address
// that has most; and of these, the oldest. So a peer gets in and stays whoever else holds
// connections, also if commands of its own pod do, and one that has restarted takes the place of its
// former connection.
type limitedListener struct {
	net.Listener
	evicted func(addr string)

	mu    sync.Mutex
	conns []*limitedConn // oldest first
	from  map[netip.Addr]int
}

// limitedConn is a connection that a listener counts until it is closed.
type limitedConn struct {
	net.Conn
	listener *limitedListener
	addr     netip.Addr
	proved   bool // guarded by listener.mu

	// Of the goroutine that reads.
	turn   turn.Turn
	little turn.Allowance
}

// Read implements net.Conn. What follows it may wait: gRPC does while a peer takes no answers.
func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.little.Exceeds(n) {
		c.turn.Pass(turn.Peers)
	}
	return n, err
}

func limitConnections(l net.Listener, evicted func(addr string)) *limitedListener {
	return &limitedListener{Listener: l, evicted: evicted, from: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &limitedConn{Conn: raw, listener: l}
	if tcp, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		c.addr = tcp.AddrPort().Addr().Unmap()
	}
	if out := l.add(c); out != nil {
		l.evicted(out.RemoteAddr().String())
		_ = out.Close() // who waits for it learns of it
	}
	return c, nil
}

// add counts a connection, and returns the one that must make room for it.
func (l *limitedListener) add(c *limitedConn) (out *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	l.from[c.addr]++
	crowded := l.from[c.addr] > maxFromAddress
	if !crowded && len(l.conns) <= MaxConnections {
		return nil
	}
	for _, other := range l.conns {
		if other == c || crowded && other.addr != c.addr {
			continue
		}
		if out == nil || out.proved && !other.proved ||
			out.proved == other.proved && l.from[other.addr] > l.from[out.addr] {
			out = other
		}
	}
	l.remove(out)
	return out
}

// remove counts a connection out. Called with mu held.
func (l *limitedListener) remove(c *limitedConn) {
	i := slices.Index(l.conns, c)
	if i < 0 {
		return
	}
	l.conns = slices.Delete(l.conns, i, i+1)
	if l.from[c.addr]--; l.from[c.addr] == 0 {
		delete(l.from, c.addr)
	}
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// hasProved records that the other end is a peer.
func (c *limitedConn) hasProved() {
	c.listener.mu.Lock()
	c.proved = true
	c.listener.mu.Unlock()
}
