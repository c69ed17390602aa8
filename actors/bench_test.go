package actors

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// benchEngine is an Engine with the real runner.
func benchEngine(b *testing.B, isolation proc.Isolation, change func(*Config)) *Engine {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "troupe-runner")
	build := exec.Command("go", "build", "-o", binary, "github.com/troupe-dev/troupe/cmd/troupe-runner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	runner, err := proc.Open(proc.Config{Binary: binary, Isolation: isolation})
	if err != nil {
		b.Fatal(err)
	}
	store, err := transcript.Open(transcript.Config{Dir: b.TempDir(), Budget: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{Limits: DefaultLimits(), Runner: ProcRunner(runner), Store: store}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		e.Close()
		_ = runner.Close()
		_ = store.Close()
	})
	return e
}

// benchClient tells of connected and of completions.
type benchClient struct {
	events chan any
	more   chan struct{}
}

func newBenchClient() *benchClient {
	return &benchClient{events: make(chan any, 16), more: make(chan struct{}, 1)}
}

func (c *benchClient) Reply(_ wire.ID, _ any, err *wire.Error) {
	if err != nil {
		c.events <- err
	}
}

func (c *benchClient) Notify(_ string, p any) {
	if hello, ok := p.(*wire.Connected); ok {
		c.events <- hello
	}
}
func (c *benchClient) Disconnect(wire.Cause) {}

func (c *benchClient) Follow(f Feed) bool {
	go func() {
		cur, err := f.Open(func() { c.more <- struct{}{} })
		if err != nil {
			c.events <- err
			return
		}
		defer cur.Close()
		buf := make([]byte, 64)
		for {
			p, err := cur.Next(buf)
			switch {
			case errors.Is(err, transcript.ErrWait):
				<-c.more
			case p.Mark != nil:
				c.events <- p.Mark
				return
			case err != nil:
				return
			}
		}
	}()
	return true
}

// BenchmarkExecuteTrue is /bin/true from the request to its completion, without
// a socket. proc.BenchmarkTrue is the share of the runner in it, and
// proc.BenchmarkTrueOsExec the baseline of both.
func BenchmarkExecuteTrue(b *testing.B) { benchExecuteTrue(b, nil) }

// BenchmarkExecuteTrueTraced is the same with every execution traced, up to the
// queue of the exporter: what --trace-endpoint costs.
func BenchmarkExecuteTrueTraced(b *testing.B) {
	benchExecuteTrue(b, func(c *Config) { c.Tracer = sdktrace.NewTracerProvider().Tracer("bench") })
}

func benchExecuteTrue(b *testing.B, change func(*Config)) {
	e := benchEngine(b, proc.Isolation{}, change)
	c := newBenchClient()
	conn := e.Connect(ConnectRequest{Subject: "bench"}, c)
	<-c.events
	b.ReportAllocs()
	for b.Loop() {
		conn.Request(wire.ID("1"), &wire.ExecuteParams{Argv: []string{"/bin/true"}})
		if done, ok := (<-c.events).(*wire.Completed); !ok || done.ExitCode != 0 {
			b.Fatalf("%+v", done)
		}
	}
	b.StopTimer()
	conn.Closed(wire.CauseClientDone, nil)
}

// BenchmarkOpenHundredSessions opens 100 sessions at once and reports the slowest
// hundredth: from the call of Connect to connected.
func BenchmarkOpenHundredSessions(b *testing.B) {
	for _, level := range []string{proc.IsolationNone, proc.IsolationSession} {
		b.Run(level, func(b *testing.B) {
			benchOpen(b, benchEngine(b, proc.Isolation{Level: level, Workspace: b.TempDir()}, nil))
		})
	}
}

func benchOpen(b *testing.B, e *Engine) {
	ballast := make([]byte, 16<<20) // as in trouped: see its tuneMemory
	defer runtime.KeepAlive(ballast)
	var took []time.Duration
	for b.Loop() {
		var mu sync.Mutex
		var all sync.WaitGroup
		conns := make([]*Connection, 100)
		for i := range conns {
			all.Go(func() {
				c := newBenchClient()
				began := time.Now()
				conns[i] = e.Connect(ConnectRequest{Subject: "bench"}, c)
				<-c.events
				d := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				took = append(took, d)
			})
		}
		all.Wait()
		for _, c := range conns {
			c.Closed(wire.CauseClientDone, nil)
		}
		for e.Stats().Sessions > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
