package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/turn"
)

const (
	// MaxHTTPConnections is how many connections of a listener may be plain HTTP at a time: those that
	// have sent nothing, half a request, or a request that is being answered, and those that are idle.
	// A WebSocket counts no longer.
	MaxHTTPConnections = 320
	// MaxAdminConnections is the same for the admin listener: probes and collectors.
	MaxAdminConnections = 48
	// maxHeaderLines bounds what a header costs once it is parsed, since lines of a few bytes cost a
	// hundred each. Browsers behind two proxies send about 40.
	maxHeaderLines = 100
	// servedFor is how long a request is served before its connection may give way to new ones, since
	// its client may take no answer, or send no body.
	servedFor = 2 * time.Second
	// unsentBytes is how much the kernel takes of a connection beyond what it may send now. Without
	// it, it takes up to 4 MiB (tcp_wmem), which count as memory of the server's cgroup, and an answer
	// waits behind them: tcp(7), TCP_NOTSENT_LOWAT.
	unsentBytes = 128 << 10
	// refusalTimeout bounds the write that tells a client why its connection is closed.
	refusalTimeout = time.Second
)

// ListenerConfig configures Limit.
type ListenerConfig struct {
	Name       string                // of the listener, a label of its metrics
	Max        int                   // plain HTTP connections at a time; 0: MaxHTTPConnections
	Turns      turn.Kind             // of its requests
	Registerer prometheus.Registerer // nil: metrics are kept but not exported
}

// listener bounds the plain HTTP connections of a server. At the bound a new connection takes the
// place of another: of the remote address that has most, one whose request is not being served, and
// of these the one that has been waiting longest. One that has sent something which nobody has looked
// at keeps its place, and one whose request is being served does for servedFor. While all do, new ones
// wait in the kernel's queue. So a client that connects and sends its request is served while somebody
// else holds all connections, also where everybody comes from one proxy.
type listener struct {
	net.Listener
	max        int
	kind       turn.Kind
	open       prometheus.Gauge
	overLimit  prometheus.Counter
	badHeaders prometheus.Counter

	mu      sync.Mutex
	room    sync.Cond   // a connection is no longer counted or may give way, or the listener was closed
	conns   []*httpConn // counted, in the order in which they began to wait
	from    map[netip.Addr]int
	leaving int // of these, closed to make room
	closed  bool
}

// Limit returns a listener for a server of NewHTTPServer.
func Limit(l net.Listener, cfg ListenerConfig) net.Listener {
	setDefault(&cfg.Max, MaxHTTPConnections)
	labels := prometheus.Labels{"listener": cfg.Name}
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "troupe_http_connections_dropped_total", ConstLabels: labels,
		Help: "HTTP connections closed at a limit: their number or the lines of a header.",
	}, []string{"limit"})
	out := &listener{
		Listener: l, max: cfg.Max, kind: cfg.Turns, from: make(map[netip.Addr]int),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "troupe_http_connections", ConstLabels: labels,
			Help: "HTTP connections that are open and have not become WebSockets.",
		}),
		overLimit: dropped.WithLabelValues("connections"), badHeaders: dropped.WithLabelValues("header"),
	}
	out.room.L = &out.mu
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(out.open, dropped)
	}
	return out
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	limitUnsent(raw)
	c := &httpConn{Conn: raw, listener: l, addr: addressOf(raw), inHeader: true}
	if !l.admit(c) {
		_ = raw.Close() // it was not used
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// admit counts a connection, once there is room for it.
func (l *listener) admit(c *httpConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		// Connections are evicted ahead, so that Accept need not wait for one to end.
		if len(l.conns)-l.leaving >= l.max-l.max/8 && l.evict() {
			continue
		}
		if len(l.conns) < l.max {
			break
		}
		soon := time.AfterFunc(servedFor/10, func() { // one may have been served for long enough
			l.mu.Lock() // not before Wait has begun
			defer l.mu.Unlock()
			l.room.Signal()
		})
		l.room.Wait()
		soon.Stop()
	}
	if l.closed {
		return false
	}
	l.conns = append(l.conns, c)
	l.from[c.addr]++
	l.open.Inc()
	return true
}

// evict closes a connection, if one may give way. It counts until its goroutine has ended. Called with
// mu held.
func (l *listener) evict() bool {
	victim := l.victim()
	// A request that came at once may wait in its socket for a goroutine to read it, which takes longest
	// when there are most connections.
	for victim != nil && !victim.serving && victim.hasUnread() {
		victim.ready = true
		victim = l.victim()
	}
	if victim == nil {
		return false
	}
	victim.evicted = true
	l.leaving++
	l.overLimit.Inc()
	_ = victim.Close() // its reader learns of it
	return true
}

// victim returns the connection that is to give way, or nil if all wait for the server. Called with mu
// held.
func (l *listener) victim() *httpConn {
	var victim *httpConn
	for _, c := range l.conns {
		if c.evicted || c.ready || c.serving && time.Since(c.since) < servedFor {
			continue
		}
		if victim == nil {
			victim = c
			continue
		}
		more := l.from[c.addr] - l.from[victim.addr]
		if more > 0 || more == 0 && victim.serving && !c.serving {
			victim = c
		}
	}
	return victim
}

// remove counts a connection out.
func (l *listener) remove(c *httpConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.conns, c)
	if i < 0 {
		return
	}
	l.conns = slices.Delete(l.conns, i, i+1)
	if l.from[c.addr]--; l.from[c.addr] == 0 {
		delete(l.from, c.addr)
	}
	if c.evicted {
		l.leaving--
	}
	l.open.Dec()
	l.room.Signal()
}

// httpConn is a connection that a listener counts.
type httpConn struct {
	net.Conn
	listener *listener
	addr     netip.Addr

	turn    turn.Turn
	handled atomic.Bool // the handler of the last request has returned

	// Guarded by listener.mu.
	ready   bool      // something has arrived that is handled when it is this connection's turn
	serving bool      // from the beginning of the handler until its answer is written
	since   time.Time // when serving began
	evicted bool

	// For the goroutine that reads.
	inHeader bool
	lines    int
}

// Read implements net.Conn. It refuses a header of too many lines.
func (c *httpConn) Read(p []byte) (int, error) {
	if !c.inHeader { // net/http reads ahead while a handler runs
		if c.handled.Load() { // it waits for the body that the handler left
			c.set(false, false)
		}
		return c.Conn.Read(p)
	}
	c.turn.GiveBack()
	c.set(false, false)
	c.awaitUnread()
	c.set(true, false) // before the bytes leave the socket, where evict sees them
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.turn.Take(c.listener.kind)
	}
	if c.lines += bytes.Count(p[:n], []byte{'\n'}); c.lines > maxHeaderLines+2 { // the request and the empty line
		c.listener.badHeaders.Inc()
		_ = c.SetWriteDeadline(time.Now().Add(refusalTimeout)) // the write reports what is wrong
		_, _ = io.WriteString(c.Conn, "HTTP/1.1 431 Request Header Fields Too Large\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+
			"the request has more than 100 header lines\n") // the client may be gone
		return 0, io.EOF // which net/http does not answer
	}
	return n, err
}

// Write implements net.Conn.
func (c *httpConn) Write(p []byte) (int, error) {
	if c.turn.Held() || c.handled.Load() { // net/http answers by itself, which may wait for the client
		c.serves()
	}
	return c.Conn.Write(p)
}

// changed follows http.Server.ConnState, whose active begins when a header was read.
func (c *httpConn) changed(state http.ConnState) {
	switch state {
	case http.StateActive:
		c.inHeader = false
	case http.StateIdle:
		c.inHeader, c.lines = true, 0
		c.set(false, false)
		c.listener.waits(c)
	case http.StateHijacked, http.StateClosed:
		c.turn.GiveBack()
		c.listener.remove(c)
	case http.StateNew: // Accept has counted it
	}
}

// waits puts a connection behind those that have been idle for longer.
func (l *listener) waits(c *httpConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.conns, c); i >= 0 {
		l.conns = append(slices.Delete(l.conns, i, i+1), c)
	}
}

// hasUnread reports whether bytes of the client have arrived that nobody has read.
func (c *httpConn) hasUnread() bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false // closed already
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }) // 0 where it fails
	return n > 0
}

// awaitUnread waits until a read would not wait, as far as that can be told.
func (c *httpConn) awaitUnread() {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return // closed already
	}
	var first [1]byte
	_ = raw.Read(func(fd uintptr) bool { // the read that follows has its error
		_, _, err := unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	})
}

// serves notes that the turn has come, and what is done now may wait for something else.
func (c *httpConn) serves() {
	c.turn.GiveBack()
	c.set(false, true)
}

func (c *httpConn) set(ready, serving bool) {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.ready, c.serving, c.since = ready, serving, time.Now()
	c.listener.room.Signal()
}

// connKey is the context key of a request's httpConn.
type connKey struct{}

// markServing is a middleware that tells a request's connection when its handler runs.
func markServing(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*httpConn); ok {
			c.serves()
			c.handled.Store(false)
			defer c.handled.Store(true)
		}
		h.ServeHTTP(w, r)
	})
}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// addressOf returns what the remote address of a connection is counted by.
func addressOf(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return networkOf(tcp.AddrPort().Addr())
}

// networkOf returns what an address is counted by: of IPv6 the network, since a host has 2^64
// addresses (https://www.rfc-editor.org/rfc/rfc4291#section-2.5.4).
func networkOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is6() {
		network, _ := addr.WithZone("").Prefix(64) // fails only for an invalid address
		return network.Addr()
	}
	return addr
}

// limitUnsent sets unsentBytes. Connections that have no such option do without.
func limitUnsent(c net.Conn) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return // closed already
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}
