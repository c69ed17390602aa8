package gateway

import (
	"net"
	"testing"
	"time"

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

// TestFloodsLeaveAProcessorToRequests: however many connections always have more to read, all but
// one processor at most handle them, and a short message passes.
func TestFloodsLeaveAProcessorToRequests(t *testing.T) {
	for range cap(turns) {
		turns <- struct{}{}
	}
	flooded := pipeConn(t, 4096)
	read := make(chan int)
	go func() {
		n, _ := flooded.Read(make([]byte, 1024))
		read <- n
	}()
	if n, err := pipeConn(t, 100).Read(make([]byte, 1024)); n != 100 || err != nil {
		t.Errorf("a short message: %d, %v", n, err)
	}
	select {
	case <-read:
		t.Error("a flood passed without a turn")
	case <-time.After(50 * time.Millisecond):
	}
	for range cap(turns) {
		<-turns
	}
	if n := <-read; n != 1024 || len(turns) != 1 {
		t.Errorf("read %d bytes, with %d turns taken", n, len(turns))
	}
	go flooded.Write([]byte("pong")) // which waits for the client
	for began := time.Now(); len(turns) > 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("a reader that waits for its client keeps its turn")
		}
	}
}

// TestReaderThatWaitsHasNoTurn: a client with too many requests in flight holds up no other.
func TestReaderThatWaitsHasNoTurn(t *testing.T) {
	s := idleSocket(t)
	for range MaxInFlight {
		s.admit(request{id: wire.ID("1"), method: wire.MethodSignal, size: 1})
	}
	s.conn.turn.take()
	passed := make(chan struct{})
	go func() {
		s.awaitCapacity()
		close(passed)
	}()
	for began := time.Now(); len(turns) > 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("it keeps its turn")
		}
	}
	s.commit([]item{{answer: true, size: 1}}, nil)
	<-passed
}
