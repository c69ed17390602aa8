package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// proxy is a network that breaks: it cuts each connection after a random number of
// bytes from the server, or with upwards from the client, until it has cut enough of them.
type proxy struct {
	upwards  atomic.Bool
	carried  atomic.Int64 // bytes in the direction that is cut
	listener net.Listener
	target   func() string // host:port of the next connection
	mean     int64         // bytes between cuts
	left     atomic.Int64
	cuts     atomic.Int64
	all      sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
	closed   bool
}

func newProxy(t *testing.T, s *instance, cuts, mean int64) *proxy {
	t.Helper()
	return newProxyTo(t, s.addr, cuts, mean)
}

// newProxyTo asks target for each connection where it goes.
func newProxyTo(t *testing.T, target func() string, cuts, mean int64) *proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, mean: mean, open: map[net.Conn]bool{}}
	p.left.Store(cuts)
	p.all.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		for c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		p.all.Wait()
	})
	return p
}

// addr is where clients connect, as host:port.
func (s *instance) addr() string { return strings.TrimPrefix(s.http, "http://") }

func (p *proxy) ws() string { return "ws://" + p.listener.Addr().String() + "/ws" }

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target())
		if err != nil {
			in.Close()
			continue
		}
		if !p.track(in) || !p.track(out) {
			in.Close()
			out.Close()
			return
		}
		cut, whole := func() { p.forward(in, out) }, func() { _, _ = io.Copy(out, in) } // until one of them breaks
		if p.upwards.Load() {
			cut, whole = func() { p.forward(out, in) }, func() { _, _ = io.Copy(in, out) }
		}
		p.all.Go(func() {
			whole()
			out.Close()
			if p.upwards.Load() {
				in.Close()
			}
		})
		p.all.Go(func() {
			cut()
			in.Close()
			out.Close()
		})
	}
}

func (p *proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = true
	return !p.closed
}

// forward copies what one side sends, and cuts in the middle of it.
func (p *proxy) forward(to, from net.Conn) {
	if p.left.Add(-1) < 0 {
		n, _ := io.Copy(to, from) // until one of them breaks
		p.carried.Add(n)
		return
	}
	n, _ := io.CopyN(to, from, 1+rand.Int64N(2*p.mean))
	p.carried.Add(n)
	if n > 0 {
		p.cuts.Add(1)
	}
	// Every other cut takes with it what is under way. Not upwards: what the proxy has read would count as
	// carried, and be lost in the buffers of the kernel.
	if tcp, ok := to.(*net.TCPConn); ok && !p.upwards.Load() && rand.IntN(2) == 0 {
		_ = tcp.SetLinger(0)
	}
}

// TestPromise10OutputSurvivesFiftyCuts: a reader whose connection is cut at 50 random
// points of 10 MiB, another that comes later and is cut too, and one that is not, have
// the same bytes. Both streams, and bytes that are no text.
func TestPromise10OutputSurvivesFiftyCuts(t *testing.T) {
	s := launch(t)
	data := make([]byte, outputLimit-1<<20)
	for i := range data {
		data[i] = byte(rand.IntN(256))
	}
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	backoff := troupe.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond}
	cutting := newProxy(t, s, 50, 100<<10)
	cut, err := troupe.Dial(t.Context(), cutting.ws(), troupe.Options{Backoff: backoff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cut.Detach() })
	e, err := cut.Execute(t.Context(), wire.ExecuteParams{
		Command: fmt.Sprintf("head -c 1000000 /dev/zero >&2 & cat %s; wait; exit 5", file),
		Framing: wire.FramingRaw, Encoding: wire.EncodingBase64,
	})
	if err != nil {
		t.Fatal(err)
	}
	greeting := cut.Connected()
	attach := func(url string) *troupe.Execution {
		c, err := troupe.Attach(t.Context(), url, greeting.SessionID, greeting.ResumeToken, map[string]int64{e.ID(): 0},
			troupe.Options{Backoff: backoff})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Detach() })
		return c.Executions()[e.ID()]
	}
	second := newProxy(t, s, 10, 300<<10)
	readers := map[string]*troupe.Execution{
		"the reader that was cut": e, "the reader that was not": attach(s.ws),
		"the second that was cut": attach(second.ws()),
	}
	var all sync.WaitGroup
	for name, reader := range readers {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			var out, errs bytes.Buffer
			done, err := reader.Copy(ctx, &out, &errs)
			if err != nil || done.ExitCode != 5 || done.OutputBytes != int64(len(data))+1000000 {
				t.Errorf("%s: %+v, %v", name, done, err)
			}
			if sha256.Sum256(out.Bytes()) != sha256.Sum256(data) || !bytes.Equal(errs.Bytes(), make([]byte, 1000000)) {
				t.Errorf("%s has %d and %d bytes, or others than were written", name, out.Len(), errs.Len())
			}
		})
	}
	all.Wait()
	if n, m := cutting.cuts.Load(), second.cuts.Load(); n != 50 || m != 10 {
		t.Errorf("%d and %d cuts", n, m)
	}
}

// TestPromise10ResumeIsRefusedOrServed: by a wrong token, after the session's end and
// after the execution's.
func TestPromise10ResumeIsRefusedOrServed(t *testing.T) {
	s := launch(t, "--resume-window", "2s")
	c, greeting := session(t, s, "/ws")
	if r := c.run(wire.ExecuteParams{ExecutionID: "x", Command: "echo hello; exit 3"}); r.done.ExitCode != 3 {
		t.Fatalf("%+v", r.done)
	}
	c.start(wire.ExecuteParams{ExecutionID: "y", Command: "sleep 1000"}) // keeps the session from giving way
	refused := func(why, id, token string) {
		t.Helper()
		c := open(t, s, "/ws?session="+id)
		m := c.answer(c.request(wire.MethodResume, wire.ResumeParams{ResumeToken: token}))
		if m.Err == nil || m.Err.Code != wire.CodeNoSession ||
			m.Err.Message != "no such session, or the token is not its token" {
			t.Errorf("%s: %+v", why, m)
		}
		if end := c.end(); end.code != 4006 {
			t.Errorf("%s: %v", why, end)
		}
		if _, err := troupe.Attach(t.Context(), s.ws, id, token, nil, troupe.Options{}); !errors.Is(err,
			troupe.ErrNoSession) {
			t.Errorf("%s: Attach says %v", why, err)
		}
	}
	refused("wrong token", greeting.SessionID, strings.Repeat("0", len(greeting.ResumeToken)))
	refused("no such session", "vm.00000000000000000000000000000000", greeting.ResumeToken)

	served := func(after int64, want string) {
		t.Helper()
		late := open(t, s, "/ws?session="+greeting.SessionID)
		var result wire.ResumeResult
		err := late.call(wire.MethodResume, wire.ResumeParams{
			ResumeToken: greeting.ResumeToken, Executions: map[string]int64{"x": after, "z": 0},
		}, &result)
		if err != nil || result.Executions["x"].State != wire.StateExited || result.Executions["x"].Completed == nil ||
			fmt.Sprint(result.Unknown) != "[z]" {
			t.Fatalf("%v, %+v", err, result)
		}
		text := ""
		for {
			m := late.next()
			if m.Output != nil {
				text += m.Output.Data
			}
			if m.Method == wire.MethodCompleted {
				break
			}
		}
		if text != want {
			t.Errorf("from %d on: %q, want %q", after, text, want)
		}
		late.cut()
	}
	served(0, "hello\n")
	served(3, "lo\n")
	served(6, "")
	if late := open(t, s, "/ws?session="+greeting.SessionID); late.call(wire.MethodResume, wire.ResumeParams{
		ResumeToken: greeting.ResumeToken, Executions: map[string]int64{"x": 7},
	}, nil).Code != wire.CodeInvalidParams {
		t.Error("an offset past the end is accepted")
	} else {
		late.cut()
	}
	c.cut()
	s.awaitActive(0) // no client comes back
	refused("expired", greeting.SessionID, greeting.ResumeToken)
}

// memory reads a figure of /proc/PID/status, in bytes.
func (s *instance) memory(field string) int64 {
	s.t.Helper()
	return s.memoryOf(s.cmd.Process.Pid, field)
}

func (s *instance) memoryOf(pid int, field string) int64 {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), field+":")
	var kB int64
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		s.t.Fatal(err)
	}
	return kB << 10
}

// TestPromise10ReaderThatNeverReads: ten clients ask for 10 MiB each and do not read
// a byte of it. The commands are not held up, trouped does not hold their output
// in memory, and whoever reads gets all of it.
func TestPromise10ReaderThatNeverReads(t *testing.T) {
	s := launch(t)
	warm, _ := session(t, s, "/ws")
	warm.run(wire.ExecuteParams{Command: "head -c 10000000 /dev/zero | tr '\\0' '\\n'", Framing: wire.FramingRaw})
	before := s.memory("VmRSS")
	var greetings []wire.Connected
	for range 10 {
		c, greeting := session(t, s, "/ws")
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		greetings = append(greetings, greeting)
		c.request(wire.MethodExecute, wire.ExecuteParams{
			ExecutionID: "x",
			Command:     "head -c 10000000 /dev/zero | tr '\\0' x; exit 3", Framing: wire.FramingRaw,
		})
	}
	for _, greeting := range greetings {
		// Another connection of the same session sees the command end.
		c := open(t, s, "/ws?session="+greeting.SessionID)
		if err := c.call(wire.MethodResume, map[string]any{
			"resume_token": greeting.ResumeToken,
			"executions":   map[string]int64{},
		}, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			var status wire.StatusResult
			if err := c.call(wire.MethodStatus, struct{}{}, &status); err != nil {
				return err
			}
			if x := status.Executions["x"]; x.Completed == nil || x.Completed.ExitCode != 3 || x.Offset != 10000000 {
				return fmt.Errorf("%+v", x)
			}
			return nil
		})
	}
	if grown := s.memory("VmHWM") - before; grown > 64<<20 { // 100 MB of output
		t.Errorf("trouped grew by %d bytes", grown)
	} else {
		t.Logf("trouped grew by %d bytes", grown)
	}
	reader := open(t, s, "/ws?session="+greetings[0].SessionID)
	reader.request(wire.MethodResume, wire.ResumeParams{ResumeToken: greetings[0].ResumeToken})
	if r := reader.collect("x"); r.done.OutputBytes != 10000000 || r.text(wire.Stdout) != strings.Repeat("x", 10000000) {
		t.Errorf("%+v", r.done)
	}
}
