// Package attack is the hostile half of `troupe-load -only hostile`: clients and a peer pod that try
// to exhaust the memory of one trouped on loopback. Each attack runs in a process of its own, so
// that it has its own descriptors and its CPU time can be told from that of everything else. It is
// bounded in sockets, connections per second and time, and ends by itself.
package attack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Arg is the first argument of a process that is one attack. The second is a Spec as JSON.
const Arg = "attack"

// Spec says what an attack's process does.
type Spec struct {
	Name   string
	Client string   // host:port of the client listener
	Admin  string   // host:port of the admin listener
	Peer   Peer     // the pod that the attack poses as; only for the attack named peer
	Tokens []string // bearer tokens, each of a subject of its own
	// Net makes the second number of the source addresses, 127.Net.0.1 to 127.Net.0.64, so that no
	// two attacks share one.
	Net    int
	Period time.Duration // how long it runs
	Scale  float64       // share of the full number of sockets and sessions, above 0 to 1
}

// Peer is the identity of the hostile pod.
type Peer struct {
	Victim        string // host:port of the peer listener of the attacked server
	Listen        string // host:port where the attacked server expects this pod
	Pod           string // this pod's name
	Cert, Key, CA string // files
}

// Result says what an attack did.
type Result struct {
	Connections int64 // made
	Failed      int64 // refused, or ended before the attack had what it wanted
	Peak        int64 // most at once
	Sent        int64 // bytes, without what TCP and TLS add
}

// Attacks lists every attack in the order in which they should begin: the last ones take as many
// sessions as they get.
var Attacks = []struct {
	Name, What string
	run        func(context.Context, *attacker)
}{
	{"headers", "8,000 sockets without a token, each with 30 kB of an endless header", headers},
	{"keepalive", "20,000 idle keep-alive connections without a token", keepAlive},
	{"slow-headers", "20,000 sockets that send two header lines and stop", slowHeaders},
	{"no-resume", "14,000 sockets with a token that name a session and never send resume", noResume},
	{"half-frames", "1,000 sockets with a token that send 900 kB of a message of 1 MB and stop", halfFrames},
	{"pipeline", "requests without end and answers that are never read, over HTTP and in sessions", pipeline},
	{"resume-lists", "resume with the longest lists that a message can hold, on 100 sockets", resumeLists},
	{"never-reads", "executions of yes, followed by sockets that are never read", neverReads},
	{"reads-slowly", "executions of yes, followed by sockets that are read at 1 kB/s", readsSlowly},
	{"evicts", "10 MiB of output after the other, by one subject", evicts},
	{"large", "argv, env, ids and errors of the largest size, finished executions piled up", large},
	{"floods", "floods of pings, pongs, acks and JSON that is none", floods},
	{"peer", "a pod with a certificate that sends garbage, opens links and reads nothing", peer},
	{"stdin", "95 sessions with 4 executions each that are sent 780 kB of stdin they never read", stdin},
}

// Main runs the attack that args describe, prints its Result as JSON and returns. It also ends when
// its stdin does, and with its parent.
func Main(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: %s SPEC", Arg)
	}
	var spec Spec
	if err := json.Unmarshal([]byte(args[0]), &spec); err != nil {
		return err
	}
	RaiseFileLimit()
	ctx, cancel := context.WithTimeout(context.Background(), spec.Period)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for _, attack := range Attacks {
		if attack.Name == spec.Name {
			a := &attacker{spec: spec}
			attack.run(ctx, a)
			a.wg.Wait()
			return json.NewEncoder(os.Stdout).Encode(a.result())
		}
	}
	return fmt.Errorf("unknown attack %q", spec.Name)
}

// RaiseFileLimit raises the limit of open files of this process, and of those that it starts, to what
// the system allows. Root may exceed the hard limit.
func RaiseFileLimit() {
	const files = 1 << 17
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}) == nil {
		return
	}
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}

// attacker counts what one attack does.
type attacker struct {
	spec Spec
	wg   sync.WaitGroup
	next atomic.Uint64 // source address and token

	connections, failed, held, peak, sent atomic.Int64
}

func (a *attacker) result() Result {
	return Result{a.connections.Load(), a.failed.Load(), a.peak.Load(), a.sent.Load()}
}

// scaled returns the share of n that this run uses.
func (a *attacker) scaled(n int) int { return max(1, int(float64(n)*a.spec.Scale)) }

// token returns the token of the next subject.
func (a *attacker) token() string { return a.spec.Tokens[a.next.Add(1)%uint64(len(a.spec.Tokens))] }

// ramp is how long an attack takes to open all its connections, unless there are few. It also limits
// how fast they are opened again: an attacker that only makes the kernel complete handshakes
// measures the kernel.
const ramp = 12 * time.Second

// keep holds n connections to addr until ctx ends, and hands each to use. When use returns, or the
// server refuses, the connection is made again.
func (a *attacker) keep(ctx context.Context, addr string, n int, use func(*conn) error) {
	turns := make(chan struct{})
	a.wg.Go(func() { giveTurns(ctx, turns, min(50*time.Millisecond, ramp/time.Duration(n))) })
	for range n {
		a.wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-turns:
				}
				if err := a.once(ctx, addr, use); err != nil && ctx.Err() == nil {
					a.failed.Add(1)
				}
			}
		})
	}
}

// giveTurns gives a turn each so often. Turns that nobody took are lost, so that a server that closes
// everything at once is not met by a burst.
func giveTurns(ctx context.Context, turns chan<- struct{}, each time.Duration) {
	const tick = 10 * time.Millisecond
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	due := 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		for due = min(due, 1) + float64(tick)/float64(each); due >= 1; due-- {
			select {
			case turns <- struct{}{}:
			default:
			}
		}
	}
}

// once makes one connection and uses it.
func (a *attacker) once(ctx context.Context, addr string, use func(*conn) error) error {
	source := &net.TCPAddr{IP: net.IPv4(127, byte(a.spec.Net), 0, 1+byte(a.next.Add(1)%64))}
	dialer := net.Dialer{LocalAddr: source, KeepAlive: -1}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	a.connections.Add(1)
	held := a.held.Add(1)
	defer a.held.Add(-1)
	for {
		peak := a.peak.Load()
		if held <= peak || a.peak.CompareAndSwap(peak, held) {
			break
		}
	}
	return use(&conn{Conn: raw, a: a})
}

// conn is one connection of an attack.
type conn struct {
	net.Conn
	a  *attacker
	in reader
	mu sync.Mutex // one frame after the other
}

// Write counts the bytes.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.a.sent.Add(int64(n))
	return n, err
}

var errClosed = errors.New("the server closed the connection")

// untilClosed discards what the server sends, and returns when it closes the connection.
func (c *conn) untilClosed() error {
	small := make([]byte, 64)
	for {
		if _, err := c.Read(small); err != nil {
			return errClosed
		}
	}
}
