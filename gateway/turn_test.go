package gateway

import (
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/turn"
	"github.com/troupe-dev/troupe/actors/wire"
)

// pipeConn is a connection whose other end has sent so many bytes.
func pipeConn(t *testing.T, sent int) *netConn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go theirs.Write(make([]byte, sent))
	return &netConn{Conn: ours, metrics: newMetrics(nil), timeout: time.Second}
}

// takeTurns takes all turns there are, and returns a function that gives them back.
func takeTurns() func() {
	turns := make([]turn.Turn, turn.Most())
	for i := range turns {
		turns[i].Take(turn.Admin)
	}
	return func() {
		for i := range turns {
			turns[i].GiveBack()
		}
	}
}

func awaitNoTurn(t *testing.T, mine *turn.Turn) {
	t.Helper()
	for began := time.Now(); mine.Held(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("it keeps its turn")
		}
	}
}

// TestFloodsLeaveAProcessorToRequests: however many connections always have more to read, all but
// one processor at most handle them, and a client that sends little waits for none of them.
func TestFloodsLeaveAProcessorToRequests(t *testing.T) {
	giveBack := takeTurns()
	flooded := pipeConn(t, 2*turn.AllowedBytes)
	read := make(chan int)
	go func() {
		sum := 0
		for sum < 2*turn.AllowedBytes && !flooded.turn.Held() {
			n, _ := flooded.Read(make([]byte, 1024))
			sum += n
		}
		read <- sum
	}()
	if n, err := pipeConn(t, 1024).Read(make([]byte, 1024)); n != 1024 || err != nil {
		t.Errorf("a short message: %d, %v", n, err)
	}
	select {
	case <-read:
		giveBack()
		t.Fatal("a flood passed without a turn")
	case <-time.After(50 * time.Millisecond):
	}
	giveBack()
	if n := <-read; n >= turn.AllowedBytes || !flooded.turn.Held() {
		t.Errorf("read %d bytes, with a turn: %v", n, flooded.turn.Held())
	}
	go flooded.Write([]byte("pong")) // which waits for the client
	awaitNoTurn(t, &flooded.turn)
}

// TestReaderThatWaitsHasNoTurn: a client with too many requests in flight holds up no other.
func TestReaderThatWaitsHasNoTurn(t *testing.T) {
	s := idleSocket(t)
	for range MaxInFlight {
		s.admit(request{id: wire.ID("1"), method: wire.MethodSignal, size: 1})
	}
	s.conn.turn.Take(turn.Messages)
	passed := make(chan struct{})
	go func() {
		s.awaitCapacity()
		close(passed)
	}()
	awaitNoTurn(t, &s.conn.turn)
	s.commit([]item{{answer: true, size: 1}}, nil)
	<-passed
}

// TestRequestsTakeTurns: however many clients connect at once, all but one processor at most read
// their requests. A handler has no turn, since it may wait, and neither has a connection that
// net/http keeps for a while behind its refusal.
func TestRequestsTakeTurns(t *testing.T) {
	l, addr := limited(t, 8, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*httpConn); !ok || c.turn.Held() {
			t.Errorf("a handler has a turn, or no connection: %v", ok)
		}
	}))
	giveBack := takeTurns()
	waits := openTo(t, addr, getRoot)
	waits.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := waits.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a request was answered without a turn: %v", err)
	}
	// Those that connect meanwhile and send nothing make room for each other.
	for range 3 * l.max {
		openTo(t, addr, "")
	}
	giveBack()
	if got := answerOf(t, waits); got != http.StatusOK {
		t.Errorf("a request that waited got %d", got)
	}
	large := "GET / HTTP/1.1\r\nHost: x\r\nX-Fill: " + strings.Repeat("x", 2*MaxHeader)
	if got := answerOf(t, openTo(t, addr, large)); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header got %d", got)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		if c.turn.Held() {
			t.Error("a connection behind its refusal keeps its turn")
		}
	}
}
