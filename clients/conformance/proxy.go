package conformance

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

// ProxyOptions configure a Proxy.
type ProxyOptions struct {
	// Targets are the addresses, as host:port, of one service's servers; connections go to them in turn.
	Targets []string `json:"targets"`
	// Cuts is how many connections are cut before those that follow are left alone.
	Cuts int `json:"cuts"`
	// MaxBytes bounds the random number of bytes from the server after which a connection is cut.
	MaxBytes int64 `json:"max_bytes"`
	// Seed makes the cuts repeatable for the same connections.
	Seed uint64 `json:"seed"`
}

// Proxy forwards TCP connections on loopback, and cuts them at random bytes: also in the middle of a
// message, of a frame's header, or of the handshake.
type Proxy struct {
	opt      ProxyOptions
	listener net.Listener

	mu    sync.Mutex
	rand  *rand.Rand
	conns int
	cuts  int
}

// NewProxy starts a proxy, which ends with ctx.
func NewProxy(ctx context.Context, o ProxyOptions) (*Proxy, error) {
	if len(o.Targets) == 0 || o.Cuts < 0 || o.MaxBytes < 1 {
		return nil, errors.New(`a proxy needs "targets", "cuts" of 0 or more, and "max_bytes" of 1 or more`)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{opt: o, listener: l, rand: rand.New(rand.NewPCG(o.Seed, 0))}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go p.accept(ctx)
	return p, nil
}

// Addr is where clients connect to, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cuts is how many connections were cut so far.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *Proxy) accept(ctx context.Context) {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		target, limit := p.next()
		go p.forward(ctx, c, target, limit)
	}
}

// next returns the target of the next connection and the bytes after which it is cut; -1: never.
func (p *Proxy) next() (target string, limit int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.conns
	p.conns++
	limit = -1
	if p.cuts < p.opt.Cuts {
		limit = p.rand.Int64N(p.opt.MaxBytes)
	}
	return p.opt.Targets[n%len(p.opt.Targets)], limit
}

func (p *Proxy) forward(ctx context.Context, client net.Conn, target string, limit int64) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	if limit < 0 {
		_, _ = io.Copy(client, server)
		return
	}
	if n, _ := io.CopyN(client, server, limit); n == limit {
		p.mu.Lock()
		p.cuts++
		p.mu.Unlock()
	}
}
