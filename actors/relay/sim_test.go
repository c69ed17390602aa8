package relay

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// simSeeds is how many seeds a run has by default.
var simSeeds = 10_000

// TestSimulation runs the protocol with everything that goes wrong between pods, once for each
// seed. TROUPE_SEEDS is the number of seeds (default 10,000; 1,000 under the race detector),
// TROUPE_FIRST_SEED the first. A seed that fails replays with
//
//	TROUPE_SEED=N go test ./actors/relay -run TestSimulation -v
func TestSimulation(t *testing.T) {
	if seed := envInt("TROUPE_SEED", 0); seed != 0 {
		if msg := simulate(uint64(seed), t.Logf); msg != "" {
			t.Fatalf("seed %d: %s", seed, msg)
		}
		return
	}
	// Little of what a run makes lives long.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(600 << 20))
	first, n := envInt("TROUPE_FIRST_SEED", 1), envInt("TROUPE_SEEDS", simSeeds)
	var next, failed atomic.Uint64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for failed.Load() < 5 {
				i := next.Add(1)
				if i > uint64(n) {
					return
				}
				if msg := simulate(uint64(first)+i-1, nil); msg != "" {
					failed.Add(1)
					t.Errorf("seed %d: %s", uint64(first)+i-1, msg)
				}
			}
		})
	}
	workers.Wait()
	if n > 100 && simBlocked.Load() == 0 {
		t.Error("no command has waited for its reader")
	}
}

func envInt(name string, n int) int {
	if v, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return v
	}
	return n
}

// simBlocked counts how often commands waited for their readers, in all runs.
var simBlocked atomic.Int64

// simulate runs one seed and returns what was wrong.
func simulate(seed uint64, trace func(string, ...any)) (msg string) {
	defer func() {
		if p := recover(); p != nil {
			failure, ok := p.(simFailure)
			if !ok {
				panic(p)
			}
			msg = string(failure)
		}
	}()
	w := newWorld(seed)
	w.trace = trace
	const troubled = 20 * time.Second
	w.faults(troubled)
	w.run(troubled, w.allDone)
	w.heal()
	if !w.run(200*time.Second, w.allDone) {
		for _, u := range w.users {
			if !u.done {
				w.failf("never done: %s", u.describe())
			}
		}
	}
	// What is left of links is collected, and then nothing is said but heartbeats.
	if !w.run(60*time.Second, w.quiet) {
		for _, p := range w.pods {
			w.failf("%s still has %d proxies and %d origins", p.name, len(p.proxies), len(p.origins))
		}
	}
	simBlocked.Add(int64(w.blocked))
	w.run(5*time.Second, nil) // letters that are late
	frames := w.frames
	w.run(6*time.Second, nil)
	if w.frames != frames {
		w.failf("%d frames, and there is no link", w.frames-frames)
	}
	return ""
}

func (w *world) allDone() bool {
	for _, u := range w.users {
		if !u.done {
			return false
		}
	}
	return true
}

func (w *world) quiet() bool {
	for _, p := range w.pods {
		if len(p.proxies) > 0 || len(p.origins) > 0 || len(p.table.links) > 0 {
			return false
		}
	}
	return true
}
