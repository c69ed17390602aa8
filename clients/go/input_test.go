package troupe_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// cutInput dies after so many bytes from the client, in the middle of a frame as a network does.
type cutInput struct {
	net.Conn
	left int
}

func (c *cutInput) Read(p []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Input whose connection breaks at any byte is repeated, and the command gets each byte once.
func TestInputArrivesOnceOverCuts(t *testing.T) {
	const cuts = 20
	data := noise(3<<20, 15)
	rng := rand.New(rand.NewPCG(3, 5))
	s := &fakeServer{hang: true}
	s.wrap = func(n int, c net.Conn) net.Conn {
		if n >= cuts {
			return c
		}
		return &cutInput{Conn: c, left: 600 + rng.IntN(2*len(data)/cuts)}
	}
	c := dial(t, s.start(t), troupe.Options{DialRetry: 10 * time.Second})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "cat", ExecutionID: "x", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := e.Input(t.Context(), data); n != len(data) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := e.CloseInput(t.Context()); err != nil {
		t.Error(err)
	}
	if n := s.conns.Load(); n < cuts/2 {
		t.Errorf("only %d connections: the cuts did not happen", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(s.stdin["x"], data) {
		t.Errorf("the command got %d bytes that differ from the %d sent", len(s.stdin["x"]), len(data))
	}
}

// When the context of an Input ends, its bytes may have arrived. They are repeated after a cut all
// the same, because what is written next lies behind them.
func TestAbandonedInputKeepsItsPlace(t *testing.T) {
	arrived := make(chan struct{}, 1)
	s := &fakeServer{hang: true}
	first := true
	s.request = func(_ *fakeConn, m fakeRequest) bool {
		if m.Method == wire.MethodInput && first {
			first = false
			arrived <- struct{}{}
			return true // it is neither taken nor answered
		}
		return false
	}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "cat", ExecutionID: "x", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	p := []byte("first ")
	_, err = e.Input(ctx, p)
	var ie *troupe.InputError
	if !errors.As(err, &ie) || ie.InDoubt != len(p) || !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	copy(p, "wrong ") // it belongs to the caller again
	s.cut()
	if _, err := e.Input(t.Context(), []byte("second")); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := string(s.stdin["x"]); got != "first second" {
		t.Errorf("the command got %q", got)
	}
}

// A second writer's bytes make the server skip those of the first as repeated. The first learns it.
func TestInputConflictIsNoticed(t *testing.T) {
	s := &fakeServer{hang: true}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "cat", ExecutionID: "x", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); err != nil { // the stream is open now
		t.Fatal(err)
	}
	s.take("x", nil, []byte("of another client"))
	if _, err := e.Input(t.Context(), []byte("mine")); !errors.Is(err, troupe.ErrInputConflict) {
		t.Errorf("err = %v", err)
	}
}

// TestStdinWaitsForRoom: a server that holds too much input takes less of it, or takes it later. What it
// refuses is sent again, in order.
func TestStdinWaitsForRoom(t *testing.T) {
	const least = 1000
	s := &fakeServer{hang: true}
	times := 0
	s.request = func(c *fakeConn, m fakeRequest) bool {
		if m.Method != wire.MethodInput {
			return false
		}
		f, err := wire.ParseInputFrame(m.Params)
		if err != nil {
			t.Error(err)
		}
		times++
		if len(f.Payload) <= least && times%10 != 0 {
			return false
		}
		full := wire.Errorf(wire.CodeSessionLimit, "no room")
		full.Data = &wire.ErrorData{Limit: "input", Value: least, RetryAfterSeconds: 0.001}
		c.notify(wire.MethodInputTaken, wire.InputTaken{ExecutionID: "x", Offset: f.Offset, Error: full})
		return true
	}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "cat", ExecutionID: "x", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); err != nil { // the stream is open now
		t.Fatal(err)
	}
	data := noise(100_000, 3)
	if n, err := e.Stdin(t.Context()).Write(data); n != len(data) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(s.stdin["x"], data) {
		t.Errorf("the command got %d bytes that differ from the %d sent", len(s.stdin["x"]), len(data))
	}
}
