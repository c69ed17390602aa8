package actors

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func newInputBudget() *inputBudget {
	return &inputBudget{limit: MaxInputBytes, refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})}
}

// TestUnreadInputIsBounded: however many executions leave input unread, together they hold no more
// than the bound, each may hold its reserve, and what was given back is there again.
func TestUnreadInputIsBounded(t *testing.T) {
	const size = 780_000
	b, held := newInputBudget(), 0
	for _, subject := range []string{"a", "b", "c"} {
		for range 100 {
			if b.take(subject, 0, size) {
				held++
			}
		}
	}
	if b.total > MaxInputBytes || b.total != int64(held)*(size-InputReserve) {
		t.Errorf("%d bytes are held of %d inputs", b.total, held)
	}
	if !b.take("d", 0, InputReserve) {
		t.Error("an execution does not get its reserve")
	}
	if b.take("a", InputReserve, size) {
		t.Error("an execution gets more when nothing is left")
	}
	for range held {
		for subject, n := range b.held {
			b.give(subject, 0, size)
			_ = n
			break
		}
	}
	if b.total != 0 || len(b.held) != 0 {
		t.Errorf("%d bytes are held in the end, of %v", b.total, b.held)
	}
}

// TestUnreadInputOfOneSubjectLeavesRoomForAnother: it may have half, and a small request finds room
// where a large one does not.
func TestUnreadInputOfOneSubjectLeavesRoomForAnother(t *testing.T) {
	b := newInputBudget()
	for b.take("greedy", 0, 780_000) {
	}
	if b.total > MaxInputBytes/2 {
		t.Errorf("one subject holds %d bytes", b.total)
	}
	if !b.take("greedy", 0, InputReserve+64<<10) {
		t.Error("no room for a small request")
	}
	if !b.take("modest", 0, 1<<20) {
		t.Error("no room for another subject")
	}
}

// TestInputBytesAreCountedOnce: whatever the order in which an execution's input comes and goes.
func TestInputBytesAreCountedOnce(t *testing.T) {
	b, waiting := newInputBudget(), int64(0)
	var queue []int64
	for i := range int64(500) {
		n := (i * 7919) % 9000
		if i%3 < 2 && b.take("a", waiting, n) {
			queue, waiting = append(queue, n), waiting+n
		} else if len(queue) > 0 {
			waiting -= queue[0]
			b.give("a", waiting, queue[0])
			queue = queue[1:]
		}
		if want := max(waiting-InputReserve, 0); b.total != want {
			t.Fatalf("%d bytes are held of %d that wait", b.total, waiting)
		}
	}
	b.give("a", 0, waiting)
	if b.total != 0 {
		t.Errorf("%d bytes are held in the end", b.total)
	}
}
