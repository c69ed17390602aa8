package turn

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// worker takes a turn of g in a goroutine, holds it for a while, and sends its name to order.
func worker(g *gate, k Kind, name string, holds time.Duration, order chan<- string) {
	go func() {
		var t Turn
		t.take(g, k)
		order <- name
		time.Sleep(holds)
		t.giveBack(g)
	}()
	synctest.Wait() // it has its turn, or waits
}

// names returns those that were sent to order, once everything is over.
func names(order chan string) (all []string) {
	time.Sleep(time.Second)
	synctest.Wait()
	close(order)
	for name := range order {
		all = append(all, name)
	}
	return all
}

// TestTurnsComeInOrder: within a kind, whoever came first is first, and a turn that nobody wants is
// free again.
func TestTurnsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		got := make(chan string, 100)
		for _, name := range []string{"a", "b", "c"} {
			worker(g, Requests, name, time.Millisecond, got)
		}
		order := names(got)
		if want := []string{"a", "b", "c"}; !slices.Equal(order, want) || g.free != 1 || g.crowd != 0 {
			t.Errorf("order %v, %d turns free, %d wait", order, g.free, g.crowd)
		}
	})
}

// TestKindsGetTheSameTime: many of one kind, or long turns of it, do not hold up another, and a kind
// that has not waited for long has saved nothing up.
func TestKindsGetTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		order := make(chan string, 100)
		for range 6 {
			worker(g, Messages, "long", 10*time.Millisecond, order)
		}
		time.Sleep(25 * time.Millisecond) // two are done
		for range 12 {
			worker(g, Admin, "short", 2*time.Millisecond, order)
		}
		got := names(order)
		want := []string{
			"long", "long", "long", "short", // a kind begins with as much as the one that runs
			"short", "short", "short", "short", "short", "long", "short", "short", "short", "short", "short", "long",
			"short", "long",
		}
		if !slices.Equal(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
	})
}

// TestCrowdGivesWay: while many wait and turns wait for a processor, there is a pause behind each;
// otherwise there is none.
func TestCrowdGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		waiting int
		late    time.Duration
		pause   time.Duration
	}{
		"crowd": {crowd, notable, notable}, "long": {crowd, time.Second, maxPause},
		"few": {crowd - 1, time.Second, 0}, "processor free": {crowd, notable - 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(1)
				var first Turn
				first.take(g, Output)
				order := make(chan string, 100)
				for range c.waiting {
					worker(g, Output, "x", 0, order)
				}
				g.late = c.late
				began := time.Now()
				first.giveBack(g)
				<-order
				if took := time.Since(began); took != c.pause {
					t.Errorf("the next turn came after %v, want %v", took, c.pause)
				}
				names(order)
			})
		})
	}
}

// TestATurnThatIsKeptIsReplaced: whoever loses a turn holds up the others for a second, and not for
// ever; and when it comes back there are not more turns than before.
func TestATurnThatIsKeptIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		var lost Turn
		lost.take(g, Messages)
		began := time.Now()
		order := make(chan string, 100)
		worker(g, Output, "a", 0, order)
		worker(g, Output, "b", 0, order)
		<-order
		<-order
		if took := time.Since(began); took != patience {
			t.Errorf("the others waited for %v", took)
		}
		synctest.Wait()
		lost.giveBack(g)
		names(order)
		if g.free != 1 {
			t.Errorf("%d turns", g.free)
		}
	})
}

// TestTurnIsGivenBackOnce: also from elsewhere, and a second Take is none.
func TestTurnIsGivenBackOnce(t *testing.T) {
	g := newGate(1)
	var a Turn
	a.take(g, Peers)
	a.take(g, Peers)
	if !a.Held() || g.free != 0 {
		t.Errorf("held %v, %d free", a.Held(), g.free)
	}
	for range 2 {
		a.giveBack(g)
	}
	if a.Held() || g.free != 1 {
		t.Errorf("held %v, %d free", a.Held(), g.free)
	}
}

// TestAllowance: bytes and reads count, and each period begins anew.
func TestAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Allowance
		for range 2 {
			if a.Exceeds(AllowedBytes - perRead) {
				t.Error("the allowance exceeds itself")
			}
			if !a.Exceeds(1) {
				t.Error("a byte more does not exceed it")
			}
			time.Sleep(AllowedPeriod)
		}
		reads := 1
		for ; !a.Exceeds(0); reads++ {
		}
		if reads != AllowedBytes/perRead+1 {
			t.Errorf("%d empty reads exceed it", reads)
		}
	})
}
