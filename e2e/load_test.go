package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// load is clients that run commands back to back while something is done to
// the pod, and what became of each of their executions.
type load struct {
	r    *release
	stop chan struct{}
	left <-chan struct{} // the test has ended, perhaps without a call of end
	wg   sync.WaitGroup

	mu       sync.Mutex
	finished map[string]int // executions that ended as they should, by pod
	problems map[string]int // broken promises, and how often each
	oneShots int            // sessions of one command each, opened at the first attempt
	warned   int            // sessions that were told of the drain
	caught   int            // of these, sessions in which a command was running then
	refused  int            // executions refused with -32008, to be repeated elsewhere
}

// startLoad starts clients that run until end. The oneShots among them open a
// session for each command and do not try twice: at any time, some pod must accept
// them.
func startLoad(t *testing.T, r *release, clients, oneShots int) *load {
	t.Helper()
	ctx := t.Context()
	l := &load{r: r, stop: make(chan struct{}), left: ctx.Done(), finished: map[string]int{}, problems: map[string]int{}}
	t.Cleanup(l.wg.Wait) // no test after a failed one has this load beside its own
	for i := range clients {
		l.wg.Go(func() { l.client(ctx, i) })
	}
	for i := range oneShots {
		l.wg.Go(func() { l.oneShot(ctx, clients+i) })
	}
	return l
}

// oneShot opens one session after the other, for one short command each.
func (l *load) oneShot(ctx context.Context, number int) {
	opt := l.r.options()
	opt.DialRetry = 0
	for !l.stopped() {
		c, err := troupe.Dial(ctx, l.r.url(), opt)
		if err != nil {
			l.problem("client %d got no session: %v", number, err)
			continue
		}
		if err := l.execution(ctx, c, number, 1); err != nil {
			l.problem("client %d: %v", number, err)
		}
		_ = c.Close() // the command's end is what counts
		l.note(func() { l.oneShots++ })
	}
}

// client opens one session after the other until the load is stopped.
func (l *load) client(ctx context.Context, number int) {
	for !l.stopped() {
		if err := l.session(ctx, number); err != nil {
			l.problem("client %d: %v", number, err)
			return
		}
	}
}

// session runs commands in one session until that ends in a way that the
// server explained. Every other end is an error.
//
// Clients with an even number leave when they are told of the drain, as
// programs should; the others go on until they are refused, as programs do.
func (l *load) session(ctx context.Context, number int) error {
	var draining atomic.Bool
	var running atomic.Bool
	opt := l.r.options()
	opt.OnNotice = func(n troupe.Notice) {
		if n.Kind == troupe.NoticeDraining && draining.CompareAndSwap(false, true) {
			l.told(running.Load())
		}
	}
	c, err := troupe.Dial(ctx, l.r.url(), opt)
	if err != nil {
		return fmt.Errorf("no session: %w", err)
	}
	defer c.Close()
	for !l.stopped() && (number%2 == 1 || !draining.Load()) {
		running.Store(true)
		err := l.execution(ctx, c, number, 4+rand.IntN(8))
		running.Store(false)
		switch {
		case err == nil:
		case !draining.Load():
			return err
		case wire.CodeOf(err) == wire.CodeDraining, errors.Is(err, errNotStarted):
			l.note(func() { l.refused++ })
			return nil
		default:
			return err
		}
	}
	return nil
}

// errNotStarted marks a command that certainly never ran: its session had
// ended, as announced, before the server took it.
var errNotStarted = errors.New("the session had ended before the command was taken")

// execution runs one command of so many quarters of a second and checks its end and its output.
func (l *load) execution(ctx context.Context, c *troupe.Client, number, steps int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tag := fmt.Sprintf("%d-%08x", number, rand.Uint32())
	lines := 200 + rand.IntN(800)
	e, err := c.Execute(ctx, wire.ExecuteParams{
		Command: fmt.Sprintf(`i=0; while [ $i -lt %d ]; do seq -f "%s $i %%g" %d; i=$((i+1)); sleep 0.25; done`, steps, tag,
			lines),
	})
	if errors.Is(err, troupe.ErrNoSession) || errors.Is(err, troupe.ErrSessionEnded) ||
		errors.Is(err, troupe.ErrSessionLost) {
		return fmt.Errorf("%w: %w", errNotStarted, err)
	}
	if err != nil {
		return err
	}
	got, want := sha256.New(), sha256.New()
	for i := range steps {
		for line := 1; line <= lines; line++ {
			fmt.Fprintf(want, "%s %d %d\n", tag, i, line)
		}
	}
	done, err := e.Copy(ctx, got, got)
	if err != nil {
		return fmt.Errorf("execution %s was lost: %w", tag, err)
	}
	if done.Reason != wire.ReasonExited || done.ExitCode != 0 || done.DroppedBytes+done.TruncatedBytes != 0 {
		return fmt.Errorf("execution %s ended with %s", tag, compact(done))
	}
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		return fmt.Errorf("execution %s: the output is not complete: %s", tag, compact(done))
	}
	l.note(func() { l.finished[c.Connected().Pod]++ })
	return nil
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	case <-l.left:
		return true
	default:
		return false
	}
}

func (l *load) note(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *load) told(running bool) {
	l.note(func() {
		l.warned++
		if running {
			l.caught++
		}
	})
}

func (l *load) problem(format string, args ...any) {
	l.note(func() { l.problems[fmt.Sprintf(format, args...)]++ })
}

// finishedOn is a check for eventually: n executions ended well on the pod.
func (l *load) finishedOn(pod string, n int) func(context.Context) error {
	return func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.problems) > 0 || l.finished[pod] >= n {
			return nil // what is wrong is in the report
		}
		return fmt.Errorf("%d on %s of %s", l.finished[pod], pod, compact(l.finished))
	}
}

// end stops the load and fails the test for every execution that was lost and
// every client whose session ended without a reason. It also fails when the
// drain met no running command: then nothing was proved.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, n := range l.finished {
		total += n
	}
	t.Logf("%d executions ended well, by pod %s; %d sessions were told of the drain, %d of them while a command ran; %d commands were refused with an explanation; %d one-command sessions",
		total, compact(l.finished), l.warned, l.caught, l.refused, l.oneShots)
	for _, problem := range slices.Sorted(maps.Keys(l.problems)) {
		t.Errorf("%d times: %s", l.problems[problem], problem)
	}
	if l.caught == 0 {
		t.Error("no command was running when the drain began: nothing was proved")
	}
}
