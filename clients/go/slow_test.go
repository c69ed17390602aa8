package troupe_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// window is small, so that tests go around it often.
const window = 256 << 10

// An execution that the consumer does not read delays no other: the server stops sending at the
// window, the socket is read, and the rest is read later without a loss or a new connection.
func TestUnreadExecutionDelaysNothing(t *testing.T) {
	script := noise(4<<20, 10)
	s := &fakeServer{script: script}
	c := dial(t, s.start(t), troupe.Options{Window: window})
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
	got, other := collect(t, unread)
	if !bytes.Equal(got, script) || len(other) != 1 {
		t.Errorf("%d bytes and events %v, want the %d sent", len(got), other, len(script))
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// The server is never more than the window ahead of the last ack, and the end is acknowledged.
func TestWindowBoundsWhatIsSent(t *testing.T) {
	s := &fakeServer{script: noise(4<<20, 11), piece: 5000}
	c := dial(t, s.start(t), troupe.Options{Window: window})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x", ExecutionID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := collect(t, e); !bytes.Equal(got, s.script) {
		t.Errorf("%d bytes", len(got))
	}
	_ = c.Close() // behind the acks
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsent > window || s.unsent < window/2 {
		t.Errorf("%d bytes were under way, want about %d", s.unsent, window)
	}
	if n := len(s.acks); n < 4<<20/window || n > 4*(4<<20/window)+1 {
		t.Errorf("%d acks for %d windows", n, 4<<20/window)
	}
	if last := s.acks[len(s.acks)-1]; last != (wire.AckParams{ExecutionID: "x", Offset: 4 << 20, Completed: true}) {
		t.Errorf("the last ack is %+v", last)
	}
}

// A consumer acknowledges the end only once it has taken it, also when the connection breaks between
// the arrival of the end and its being read: the resume names the execution, and its end is
// acknowledged on the new connection.
func TestEndIsAcknowledgedOnceItIsRead(t *testing.T) {
	s, resumed, repeat := &fakeServer{script: noise(100_000, 12)}, make(chan string, 1), make(chan struct{})
	s.request = func(_ *fakeConn, m fakeRequest) bool {
		if m.Method == wire.MethodResume {
			resumed <- string(m.Params)
		}
		return false
	}
	s.output = func(n int, out *wire.Output) *wire.Output {
		if n == 1 {
			<-repeat // until everything has been read
		}
		return out
	}
	c := dial(t, s.start(t), troupe.Options{Window: window})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x", ExecutionID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	acked := func() (n int, completed bool) {
		_, _ = c.Status(t.Context()) // behind the acks
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, a := range s.acks {
			completed = completed || a.Completed
		}
		return len(s.acks), completed
	}
	if n, completed := acked(); n != 0 || completed {
		t.Errorf("%d acks before anything was read, of the end: %t", n, completed)
	}
	s.cut()
	if params := <-resumed; !strings.Contains(params, `"executions":{"x":0}`) {
		t.Errorf("resume with %s acknowledges what was not read", params)
	}
	if got, other := collect(t, e); !bytes.Equal(got, s.script) || len(other) != 1 {
		t.Errorf("%d bytes, %v", len(got), other)
	}
	if n, _ := acked(); n != 0 {
		t.Errorf("%d acks of what the new connection has not brought", n)
	}
	close(repeat)
	for completed := false; !completed; { // the test's own timeout ends it otherwise
		_, completed = acked()
	}
	if s.count(wire.MethodResume) != 1 {
		t.Errorf("%d resumes, want 1", s.count(wire.MethodResume))
	}
}

// A window full of tiny pieces costs little more than its bytes.
func TestTinyPiecesAreJoined(t *testing.T) {
	s := &fakeServer{script: noise(100_000, 13), piece: 1, hang: true}
	s.output = func(_ int, out *wire.Output) *wire.Output { out.Type = wire.Stdout; return out }
	c := dial(t, s.start(t), troupe.Options{Window: 20_000})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for got := 0; got < 100_000; {
		ev, err := e.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got += len(ev.(*troupe.Output).Data)
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A server without acks is slowed down by TCP for a consumer that is slow, and nothing is lost.
func TestSlowReaderOfAnOldServer(t *testing.T) {
	script := noise(2<<20, 11)
	s := &fakeServer{script: script, old: true}
	c := dial(t, s.start(t), troupe.Options{Window: 100_000})
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

func TestWindowIsChecked(t *testing.T) {
	for _, window := range []int{-1, wire.MinWindow - 1, wire.MaxWindow + 1} {
		if _, err := troupe.Dial(t.Context(), "ws://unused", troupe.Options{Window: window}); err == nil ||
			!strings.Contains(err.Error(), "must be from 4096 to 16777216") {
			t.Errorf("a window of %d: %v", window, err)
		}
	}
}

func TestDiscard(t *testing.T) {
	s := &fakeServer{script: noise(3<<20, 13)}
	c := dial(t, s.start(t), troupe.Options{Window: window})
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
