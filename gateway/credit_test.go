package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

func windowed(feed actors.Feed, n int64) actors.Feed {
	feed.Window = n
	return feed
}

// upTo reads output until the position offset.
func (c *client) upTo(offset int64) string {
	c.t.Helper()
	var all strings.Builder
	for {
		m := c.recv()
		if m.Output == nil || m.Output.Offset > offset {
			c.t.Fatalf("got %s %+v, want output up to %d", m.Method, m.Output, offset)
		}
		all.WriteString(m.Output.Data)
		if m.Output.Offset == offset {
			return all.String()
		}
	}
}

// quiet checks that nothing but the answer to a request comes now: what the server may send comes
// before it.
func (c *client) quiet(e *fakeConn) {
	c.t.Helper()
	e.client.Notify("marker", nil)
	if m := c.recv(); m.Method != "marker" {
		c.t.Fatalf("got %s %+v, want nothing", m.Method, m.Output)
	}
}

func (c *client) ack(id string, offset int64, completed bool) {
	c.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":%q,"offset":%d,"completed":%v}}`,
		id, offset, completed))
}

// wantAck waits for an ack that reached the engine.
func wantAck(t *testing.T, e *fakeConn, want wire.AckParams) {
	t.Helper()
	r := e.next(t)
	if p, ok := r.params.(*wire.AckParams); !ok || *p != want {
		t.Fatalf("the engine got %+v, want %+v", r.params, want)
	}
	e.client.Reply(r.id, struct{}{}, nil)
}

func TestAWindowBoundsWhatIsSentBeyondTheLastAck(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	text := strings.Repeat("0123456789abcde\n", 4096) // 64 KiB
	out.write(text)
	out.complete()
	c, e := f.connect(t)
	e.client.Follow(windowed(out.feed(0), 10_000))
	got := c.upTo(10_000)
	c.quiet(e)
	c.ack("x", 1, false)
	wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: 1})
	got += c.upTo(10_001)
	c.quiet(e)
	c.ack("x", 10_001, false)
	wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: 10_001})
	got += c.upTo(20_001)
	c.quiet(e)
	c.ack("x", 5, false) // an earlier offset changes nothing, and the engine need not hear of it
	c.quiet(e)
	for at := int64(20_001); at < out.End(); {
		c.ack("x", at, false)
		wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: at})
		at = min(at+10_000, out.End())
		got += c.upTo(at)
	}
	if got != text {
		t.Errorf("got %d bytes, which are not those of the command", len(got))
	}
	if m := c.recv(); m.Method != wire.MethodCompleted { // marks need no credit
		t.Fatalf("got %s, want completed", m.Method)
	}
	c.ack("x", out.End(), true)
	wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: out.End(), Completed: true})
	select {
	case p := <-e.claims:
		t.Errorf("the server acknowledged %+v in the client's place", p)
	default:
	}
}

// The end of an output of exactly the window's size comes without an ack.
func TestCompletedNeedsNoCredit(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 4096))
	out.complete()
	c, e := f.connect(t)
	e.client.Follow(windowed(out.feed(0), 4096))
	c.upTo(4096)
	if m := c.recv(); m.Method != wire.MethodCompleted {
		t.Fatalf("got %s", m.Method)
	}
}

// Gaps count as a moved offset, not as bytes.
func TestGapsNeedNoCredit(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	s := &script{waits: true, pieces: []transcript.Piece{
		{Data: []byte(strings.Repeat("a", 4000))},
		{Gap: 1 << 40},
		{Data: []byte(strings.Repeat("b", 4000))},
		{Gap: 1 << 41},
		{Data: []byte("c")},
		{Gap: 5},
	}}
	e.client.Follow(windowed(s.feed("x"), 4096))
	c.upTo(4000)
	if o := c.recv().Output; o == nil || o.Gap != 1<<40 || len(o.Data) != 96 {
		t.Fatalf("got %+v, want the gap and the 96 bytes that remain of the window", o)
	}
	c.quiet(e)
	c.ack("x", 1000, false) // an ack from before the gap gives its bytes back
	wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: 1000})
	c.upTo(4000 + 1<<40 + 1096)
	c.quiet(e)
	c.ack("x", 4000+1<<40+1096, false)
	wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: 4000 + 1<<40 + 1096})
	c.upTo(4000 + 1<<40 + 4000)
	if o := c.recv().Output; o == nil || o.Gap != 1<<41 || o.Data != "c" {
		t.Fatalf("got %+v, want the second gap", o)
	}
	if o := c.recv().Output; o == nil || o.Gap != 5 || o.Data != "" {
		t.Fatalf("got %+v, want the last gap", o)
	}
}

// A rune is not cut by the window: its halves would become U+FFFD.
func TestAWindowDoesNotCutRunes(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 4094) + strings.Repeat("\U0001F600", 100))
	out.complete()
	c, e := f.connect(t)
	e.client.Follow(windowed(out.feed(0), 4096))
	got := c.upTo(4094)
	c.quiet(e)
	for at := int64(1); at <= 2; at++ {
		c.ack("x", at, false)
		wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: at})
	}
	got += c.upTo(4098)
	c.ack("x", 4098, false)
	wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: 4098})
	got += c.upTo(out.End())
	if strings.Contains(got, "\uFFFD") || strings.Count(got, "\U0001F600") != 100 {
		t.Errorf("got %q", got[4094:])
	}
}

func TestAWrongAckChangesNothing(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 8192))
	c, e := f.connect(t)
	e.client.Follow(windowed(out.feed(0), 4096))
	c.upTo(4096)
	for _, bad := range []string{
		`{"execution_id":"x","offset":4097}`, `{"execution_id":"x","offset":9223372036854775807}`,
		`{"execution_id":"x","offset":4096,"completed":true}`, `{"execution_id":"x","offset":-1}`,
		`{"execution_id":"x"}`, `{"offset":1}`, `{"execution_id":"x","offset":9223372036854775808}`,
		`{"execution_id":"x","offset":"1"}`, `{"execution_id":"x","offset":1.5}`,
	} {
		c.send(`{"jsonrpc":"2.0","method":"ack","params":` + bad + `}`) // never answered
		c.send(`{"jsonrpc":"2.0","id":7,"method":"ack","params":` + bad + `}`)
		if m := c.recv(); m.Err == nil || m.Err.Code != wire.CodeInvalidParams || string(m.ID) != "7" {
			t.Errorf("%s: got %s %+v", bad, m.Method, m.Err)
		}
	}
	if len(e.requests) != 0 {
		t.Errorf("the engine got %+v", (<-e.requests).params)
	}
	// What this connection does not follow, the engine knows.
	c.send(`{"jsonrpc":"2.0","id":8,"method":"ack","params":{"execution_id":"y","offset":1}}`)
	r := e.next(t)
	e.client.Reply(r.id, nil, wire.Errorf(wire.CodeNoProcess, "this session has no execution \"y\""))
	if m := c.recv(); m.Err == nil || m.Err.Code != wire.CodeNoProcess {
		t.Errorf("got %+v", m)
	}
}

// A flood of acks is slowed down as one of requests is.
func TestAcksAreCountedAsInFlight(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2 * MaxInFlight {
			c.ack("y", int64(i+1), false)
		}
	}()
	<-done
	deadline := time.Now().Add(testTimeout)
	for len(e.requests) < MaxInFlight && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	s, _ := e.client.(*socket)
	for !s.isBackpressured() && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := len(e.requests); n != MaxInFlight {
		t.Errorf("%d acks are under way, want %d", n, MaxInFlight)
	}
	for range 2 * MaxInFlight {
		e.client.Reply(e.next(t).id, struct{}{}, nil)
	}
}

func (s *socket) isBackpressured() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backpressured
}

// A client that sends no acks has what was written to it, from when process.completed was.
func TestTheServerAcknowledgesForAClientWithoutWindow(t *testing.T) {
	f := startBreakable(t)
	out := newOutputs(t).create("x")
	out.write("hello\n")
	c, e := f.connect(t)
	e.client.Follow(out.feed(0))
	c.upTo(6)
	c.quiet(e)
	if len(e.claims) != 0 {
		t.Errorf("acknowledged %+v before the end", <-e.claims)
	}
	out.Mark(&wire.Completed{ExecutionID: "x", Status: wire.StatusCompleted, Reason: wire.ReasonExited})
	wantClaim(t, e, wire.AckParams{ExecutionID: "x", Offset: 6, Completed: true})
	out.write("survivor\n")
	wantClaim(t, e, wire.AckParams{ExecutionID: "x", Offset: 15, Completed: true})
	// What could not be written is not acknowledged.
	second := newOutputs(t).create("y")
	second.complete()
	breakConn(t, e, 0)
	e.client.Follow(second.feed(0))
	e.end(t)
	if len(e.claims) != 0 {
		t.Errorf("acknowledged %+v, which was not written", <-e.claims)
	}
}

func wantClaim(t *testing.T, e *fakeConn, want wire.AckParams) {
	t.Helper()
	select {
	case got := <-e.claims:
		if got != want {
			t.Fatalf("acknowledged %+v, want %+v", got, want)
		}
	case <-time.After(testTimeout):
		t.Fatalf("did not acknowledge %+v", want)
	}
}

// With a window, delivered is what the client acknowledged, also of an output that was sent to its
// end.
func TestDeliveredIsWhatWasAcknowledged(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	for _, id := range []string{"done", "unacked", "half", "kept"} {
		out := outs.create(id)
		out.write("hello\n")
		switch id {
		case "half":
		case "kept": // survivors of the command may still write
			out.Mark(&wire.Completed{ExecutionID: id, Status: wire.StatusCompleted, Reason: wire.ReasonExited})
		default:
			out.complete()
		}
		e.client.Follow(windowed(out.feed(0), 4096))
		c.upTo(6)
		if id != "half" {
			c.recv()
		}
	}
	c.ack("done", 6, true)
	c.ack("unacked", 6, false)
	c.ack("half", 2, false)
	c.ack("kept", 6, true)
	for range 4 {
		e.client.Reply(e.next(t).id, struct{}{}, nil)
	}
	_ = c.ws.Close(websocket.StatusGoingAway, "")
	if got := fmt.Sprint(e.end(t).delivered); got != "map[half:2 unacked:6]" {
		t.Errorf("delivered %s", got)
	}
}

// A follow that begins again acknowledges the offset at which it begins, whatever was sent before.
func TestAFollowThatIsReplacedHasNewCredit(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 20_000))
	c, e := f.connect(t)
	e.client.Follow(windowed(out.feed(0), 4096))
	c.upTo(4096)
	e.client.Follow(windowed(out.feed(5000), 5000))
	c.upTo(10_000)
	c.quiet(e)
	e.client.Follow(out.feed(10_000)) // without a window
	c.upTo(20_000)
}

// What a follower holds between its turns is small: a session may have a hundred.
func TestFollowersThatWaitHoldLittle(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	const n = 50
	for i := range n {
		out := outs.create(fmt.Sprint(i))
		out.write(strings.Repeat("\x01", 3*pullSize)) // each byte becomes six
		e.client.Follow(windowed(out.feed(0), 8192))
	}
	got := make(map[string]int64)
	for total := int64(0); total < n*8192; {
		o := c.recv().Output
		total += o.Offset - got[o.ExecutionID]
		got[o.ExecutionID] = o.Offset
	}
	for range 2 * n {
		c.quiet(e) // each follower finds out in a turn of its own that it must wait
	}
	s, _ := e.client.(*socket)
	s.mu.Lock() // before the end of the connection, which the race detector must see
	defer s.mu.Unlock()
	if len(s.following) != n {
		t.Fatalf("%d followers", len(s.following))
	}
	for _, follower := range s.following {
		if cap(follower.rest) > RestSize {
			t.Fatalf("a follower holds %d bytes", cap(follower.rest))
		}
	}
}
