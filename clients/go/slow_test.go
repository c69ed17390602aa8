package troupe_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// An execution that the consumer does not read delays no other execution for longer than the stall
// timeout. It can be cancelled, it is known to have ended, and it is read later without a loss.
func TestUnreadExecutionIsParked(t *testing.T) {
	for _, tc := range []struct {
		name   string
		noLive bool // the server resumes at the start of a connection only
	}{{"resume on the connection", false}, {"resume on a new connection", true}} {
		t.Run(tc.name, func(t *testing.T) {
			script := noise(4<<20, 10)
			s := &fakeServer{script: script, noLive: tc.noLive}
			c := dial(t, s.start(t), troupe.Options{BufferBytes: 300_000, StallTimeout: 20 * time.Millisecond})
			unread, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x", ExecutionID: "unread"})
			if err != nil {
				t.Fatal(err)
			}
			if err := unread.Cancel(t.Context()); err != nil {
				t.Errorf("cancel behind unread output: %v", err)
			}
			var out bytes.Buffer
			if _, err := c.Run(t.Context(), wire.ExecuteParams{Command: "y"}, &out, &out); err != nil ||
				!bytes.Equal(out.Bytes(), script) {
				t.Errorf("the other execution: %d bytes, %v", out.Len(), err)
			}
			if _, err := unread.Wait(t.Context()); err != nil {
				t.Errorf("Wait without reading: %v", err)
			}
			got, other := collect(t, unread)
			if !bytes.Equal(got, script) || len(other) != 1 {
				t.Errorf("%d bytes and events %v, want the %d sent", len(got), other, len(script))
			}
			if n := s.conns.Load(); !tc.noLive && n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// A consumer that is slow, but reads, slows the server: it is not parked.
func TestSlowReaderIsNotParked(t *testing.T) {
	script := noise(2<<20, 11)
	s := &fakeServer{script: script}
	c := dial(t, s.start(t), troupe.Options{BufferBytes: 100_000, StallTimeout: 5 * time.Second})
	w := &slowWriter{}
	if _, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, w, w); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Bytes(), script) || s.count(wire.MethodResume) != 0 {
		t.Errorf("%d bytes, %d resumes", w.Len(), s.count(wire.MethodResume))
	}
}

type slowWriter struct{ bytes.Buffer }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond) // the slowness under test
	return w.Buffer.Write(p)
}

// The buffer's bound holds however much the server sends.
func TestBufferIsBounded(t *testing.T) {
	s := &fakeServer{script: noise(3<<20, 12)}
	c := dial(t, s.start(t), troupe.Options{BufferBytes: 200_000, StallTimeout: time.Millisecond})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Detach()
	if _, err := e.Next(t.Context()); err == nil {
		t.Error("Next after Detach gave an event")
	}
	if off := e.Offset(); off != 0 {
		t.Errorf("delivered %d, want 0", off)
	}
}

func TestDiscard(t *testing.T) {
	s := &fakeServer{script: noise(3<<20, 13)}
	c := dial(t, s.start(t), troupe.Options{BufferBytes: 200_000, StallTimeout: time.Hour})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	e.Discard()
	if done, err := e.Wait(t.Context()); err != nil || done.OutputBytes != 3<<20 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(c.Executions()); n != 0 {
		t.Errorf("%d executions are still followed", n)
	}
}

// BenchmarkReceive is the whole path: a loopback socket, the frame, the
// decoder, the offsets and the buffer, for 10 MiB in pieces of 64 KiB. The
// server's encoding runs on the same cores.
func BenchmarkReceive(b *testing.B) {
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, 0123456789 times over.\n"), 10<<20/68)
	for _, bc := range []struct {
		name     string
		encoding wire.Encoding
		script   []byte
	}{{"base64", wire.EncodingBase64, noise(10<<20, 14)}, {"text", wire.EncodingUTF8, text}} {
		b.Run(bc.name, func(b *testing.B) {
			s := &fakeServer{script: bc.script, encoding: bc.encoding}
			c := dial(b, s.start(b), troupe.Options{})
			b.SetBytes(int64(len(bc.script)))
			b.ReportAllocs()
			for b.Loop() {
				done, err := c.Run(b.Context(), wire.ExecuteParams{Command: "x", Encoding: bc.encoding}, nil, nil)
				if err != nil || done.OutputBytes != int64(len(bc.script)) {
					b.Fatal(done, err)
				}
			}
		})
	}
}
