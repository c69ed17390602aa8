package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// anyone takes a token for the subject's name.
type anyone struct{}

func (anyone) Authenticate(_ context.Context, token string) (string, error) {
	if token == "" {
		return "", ErrNoToken
	}
	return token, nil
}

// as returns the options to connect as a subject.
func as(subject string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + subject}}}
}

// TestTheLastSocketsAreForSubjectsThatHaveNone: one subject cannot shut out all others. Where there
// is one subject only, nothing is kept back.
func TestTheLastSocketsAreForSubjectsThatHaveNone(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxConnections, c.Auth = 10, anyone{} })
	for i := range 9 {
		if ws, h := f.dial(t, "/ws", as("greedy")); ws == nil {
			t.Fatalf("socket %d: %+v", i, h)
		}
	}
	_, h := f.dial(t, "/ws", as("greedy"))
	refusedFor(t, h, "reserved-connections", 1)
	if n := value(f.gateway.metrics.refused.WithLabelValues(refusedReserve)); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	if ws, h := f.dial(t, "/ws", as("modest")); ws == nil {
		t.Errorf("another subject: %+v", h)
	}

	if _, h := f.dial(t, "/ws", as("late")); h.status != http.StatusServiceUnavailable {
		t.Errorf("beyond all sockets: %+v", h)
	}

	open := start(t, func(c *Config) { c.MaxConnections = 10 })
	for i := range 10 {
		if ws, h := open.dial(t, "/ws", nil); ws == nil {
			t.Fatalf("without authentication, socket %d: %+v", i, h)
		}
	}
}

// refusedFor checks that a handshake was refused because its subject is at a limit.
func refusedFor(t *testing.T, h handshake, limit string, limitValue float64) {
	t.Helper()
	var body refusal
	err := json.Unmarshal([]byte(h.body), &body)
	if h.status != http.StatusTooManyRequests || h.header.Get("Retry-After") == "" || err != nil || body.Data == nil ||
		body.Code != wire.CodeSessionLimit || body.Data.Limit != limit || body.Data.Value != limitValue ||
		body.Data.RetryAfterSeconds <= 0 || !strings.Contains(body.Error, "close one") {
		t.Errorf("%+v, %v, want a refusal for %s", h, err, limit)
	}
}

// TestSocketsOfOneSubject: a subject has at most MaxPerSubject of them, others as many of their own,
// and the end of one makes room for one.
func TestSocketsOfOneSubject(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxPerSubject, c.Auth = 2, anyone{} })
	var last *websocket.Conn
	for _, subject := range []string{"alice", "bob"} {
		for i := range 2 {
			ws, h := f.dial(t, "/ws", as(subject))
			if ws == nil {
				t.Fatalf("socket %d of %s: %+v", i, subject, h)
			}
			last = ws
		}
		_, h := f.dial(t, "/ws", as(subject))
		refusedFor(t, h, "max-connections-per-subject", 2)
	}
	if n := value(f.gateway.metrics.refused.WithLabelValues(refusedSubject)); n != 2 {
		t.Errorf("%v refusals counted", n)
	}
	_ = last.Close(websocket.StatusNormalClosure, "")
	for deadline := time.Now().Add(testTimeout); ; {
		if ws, _ := f.dial(t, "/ws", as("bob")); ws != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place was not freed")
		}
	}
	_, h := f.dial(t, "/ws", as("alice"))
	refusedFor(t, h, "max-connections-per-subject", 2)
}

// TestSocketsThatNeverResumeAreBounded: they hold no session, so they give way to later ones, and a
// client that does resume gets in among them.
func TestSocketsThatNeverResumeAreBounded(t *testing.T) {
	const most = 16
	f := start(t, func(c *Config) { c.MaxConnections = most })
	resume := func() {
		t.Helper()
		ws, h := f.dial(t, "/ws?session=honest", nil)
		if ws == nil {
			t.Fatalf("handshake: %+v", h)
		}
		c, e := &client{t, ws}, f.accepted(t)
		for e.req.SessionID != "honest" {
			e = f.accepted(t)
		}
		c.send(`{"jsonrpc":"2.0","id":1,"method":"resume","params":{"resume_token":"t"}}`)
		e.client.Reply(e.next(t).id, &wire.ResumeResult{SessionID: "pod-1"}, nil)
		if m := c.recv(); m.Err != nil {
			t.Fatal(m.Err)
		}
	}
	resume()
	first, h := f.dial(t, "/ws?session=pod-1", nil)
	if first == nil {
		t.Fatalf("handshake: %+v", h)
	}
	for range 4 * most {
		if ws, h := f.dial(t, "/ws?session=pod-1", nil); ws == nil {
			t.Fatalf("handshake: %+v", h)
		}
		if n := f.gateway.resumes.permits.used(); n > most/4 {
			t.Fatalf("%d sockets wait for resume, want at most %d", n, most/4)
		}
	}
	(&client{t, first}).wantClose(wire.CauseReadTimeout.Code())
	resume()
	if n := value(f.gateway.metrics.refused.WithLabelValues(refusedUnresumed)); n == 0 {
		t.Error("none is counted as closed")
	}
}

// partial is the beginning of a masked text frame of n bytes.
func partial(n int, text string) []byte {
	frame := binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, uint64(n))
	return append(append(frame, 0, 0, 0, 0), text...)
}

// TestUnfinishedMessagesAreBounded: of many sockets with 30 kB of a message that does not end, no
// more are read than may have so much, and small messages are heard meanwhile.
func TestUnfinishedMessagesAreBounded(t *testing.T) {
	f := start(t, nil)
	honest, e := f.connect(t)
	for range MediumMessages + 20 {
		raw := f.rawClient(t, "")
		f.accepted(t)
		if _, err := raw.Write(partial(60_000, strings.Repeat(" ", 30_000))); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(testTimeout); f.gateway.medium.awaited() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("none waits")
		}
	}
	if n := f.gateway.medium.used(); n != MediumMessages {
		t.Errorf("%d messages above %d bytes are read, want %d", n, SmallMessage, MediumMessages)
	}
	honest.send(`{"jsonrpc":"2.0","id":1,"method":"signal","params":{"execution_id":"x","signal":"HUP"}}`)
	e.client.Reply(e.next(t).id, struct{}{}, nil)
	if m := honest.recv(); m.Err != nil {
		t.Error(m.Err)
	}
}

// TestMessageThatPausesEndsTheConnection: a message of which nothing comes holds its buffer only so
// long, also if control frames come between its fragments.
func TestMessageThatPausesEndsTheConnection(t *testing.T) {
	s := idleSocket(t)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.sent = 1 // no ping is due
	s.conn.heard.Store(clock())
	s.frameBegan.Store(clock() - int64(messageTimeout))
	s.tick(timer)
	if s.ending != wire.CauseReadTimeout {
		t.Errorf("ended by %q", s.ending)
	}
	if got := s.readCause(errConnectionEnds); got == wire.CauseClientGone {
		t.Errorf("the end of the read is put down to the client")
	}
}

// TestReaderReadsOnWhenInputIsStuck: input that no command reads holds the reader up, but not for
// ever: a CANCEL may be behind it. Other requests hold it up for as long as they take.
func TestReaderReadsOnWhenInputIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			method string
			goesOn bool
		}{{wire.MethodInput, true}, {wire.MethodExecute, false}} {
			s := idleSocket(t)
			s.admit(request{id: wire.ID("1"), method: c.method, size: maxInFlightBytes + 1})
			passed := make(chan struct{}, 1)
			go func() {
				s.awaitCapacity()
				passed <- struct{}{}
			}()
			time.Sleep(inputPatience - time.Millisecond)
			synctest.Wait()
			if len(passed) != 0 {
				t.Errorf("%s: the reader does not stop", c.method)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if goesOn := len(passed) != 0; goesOn != c.goesOn {
				t.Errorf("%s: the reader goes on: %t", c.method, goesOn)
			}
			s.end(wire.CauseClientGone)
			synctest.Wait()
		}
	})
}

// TestAnswersThatMayBeLargeGoAlone: the reader waits until status is answered and written, so that a
// client that does not read makes the server hold one such answer, not as many as it asks for.
func TestAnswersThatMayBeLargeGoAlone(t *testing.T) {
	for _, method := range []string{wire.MethodStatus, wire.MethodResume} {
		s := idleSocket(t)
		s.admit(request{id: wire.ID("1"), method: method, size: 1})
		s.mu.Lock()
		if !s.full() {
			t.Errorf("%s: more is read behind it", method)
		}
		s.mu.Unlock()
	}
}

// TestLargeMessagesTakeTurns: of one subject no more than half are held at a time while there are
// others, and those that wait come in their order.
func TestLargeMessagesTakeTurns(t *testing.T) {
	quit := make(chan struct{})
	p := newPermits(4, true)
	take := func(subject string) chan bool {
		done := make(chan bool, 1)
		waiting := p.awaited() + p.used()
		go func() { done <- p.acquire(subject, quit) }()
		for p.awaited()+p.used() == waiting {
			time.Sleep(time.Millisecond)
		}
		return done
	}
	a, b, third := take("a"), take("a"), take("a")
	if !<-a || !<-b || p.used() != 2 || p.awaited() != 1 {
		t.Fatalf("%d held, %d wait", p.used(), p.awaited())
	}
	other := take("b")
	if !<-other {
		t.Fatal("another subject waits for the first")
	}
	fourth := take("a")
	p.release("a")
	if !<-third || len(fourth) != 0 {
		t.Error("not in their order")
	}
	close(quit)
	if <-fourth || p.used() != 3 || p.awaited() != 0 {
		t.Errorf("after the end %d are held and %d wait", p.used(), p.awaited())
	}
	all := newPermits(4, false)
	for range 4 {
		if !all.acquire("only", make(chan struct{})) {
			t.Error("the only subject does not get all")
		}
	}
}

// TestPermitsAreGivenBack: by messages of every size and by those that are refused, for the next
// ones.
func TestPermitsAreGivenBack(t *testing.T) {
	f := start(t, nil)
	f.engine.handle = func(c *fakeConn, r fakeRequest) { c.client.Reply(r.id, struct{}{}, nil) }
	ws, h := f.dial(t, "/ws", nil)
	if ws == nil {
		t.Fatalf("handshake: %+v", h)
	}
	c := &client{t, ws}
	for i := range 3 * LargeMessages {
		for _, size := range []int{10, SmallMessage + 1, MediumMessage + 1, defaultMaxMessage - 200} {
			c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"input","params":{"execution_id":"x","data":%q}}`,
				i, strings.Repeat("x", size)))
			if m := c.recv(); m.Err != nil {
				t.Fatal(m.Err)
			}
		}
		c.send("garbage" + strings.Repeat("x", MediumMessage))
		if m := c.recv(); m.Err == nil {
			t.Fatal("garbage is not refused")
		}
		c.send(`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"argv":["a"` +
			strings.Repeat(`,""`, maxCheapElements+1) + `]}}`)
		if m := c.recv(); m.Err != nil {
			t.Fatal(m.Err)
		}
	}
	c.send(`{"jsonrpc":"2.0","id":1,"method":"pong"}`)
	c.recv()
	if m, l := f.gateway.medium.used(), f.gateway.large.used(); m != 0 || l != 0 {
		t.Errorf("%d medium and %d large permits are held", m, l)
	}
}

// TestClientsThatReadNothingLeaveBuffers: however many connections hold the buffers of large
// messages, another one gets its output, in smaller messages.
func TestClientsThatReadNothingLeaveBuffers(t *testing.T) {
	f := start(t, nil)
	for range LargeOutputs {
		if !f.gateway.outputs.tryAcquire("those that do not read") {
			t.Fatal("no large buffers")
		}
	}
	c, e := f.connect(t)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 3*SmallOutput))
	e.client.Follow(out.feed(0))
	for total := 0; total < 3*SmallOutput; {
		frame, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		var m struct{ Params wire.Output }
		if err := json.Unmarshal(frame, &m); err != nil || len(frame) > SmallOutput {
			t.Fatalf("a message of %d bytes: %v", len(frame), err)
		}
		total += len(m.Params.Data)
	}
	f.gateway.outputs.release("those that do not read")
}
