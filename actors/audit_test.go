package actors

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/asynkron/protoactor-go/actor"
	dto "github.com/prometheus/client_model/go"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestEveryEndIsAccountedOnce: in the metrics and in the audit log, also when
// something in the server fails.
func TestEveryEndIsAccountedOnce(t *testing.T) {
	for _, how := range []string{
		"exit", "start failed", "process panic", "session panic", "session panic, overtaken",
		"close", "close, overtaken", "kept, session panic", "kept, close", "kept, process panic", "kept, gone",
	} {
		t.Run(how, func(t *testing.T) {
			panics := ""
			probe := func(kind string, msg any) {
				if kind == panics {
					panics = ""
					panic("injected")
				}
			}
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var records []AuditRecord
				h := newHarness(t, newFakeRunner(nil), func(c *Config) {
					c.AuditArgv = true
					c.Audit = func(r AuditRecord) {
						mu.Lock()
						defer mu.Unlock()
						records = append(records, r)
					}
				}, probe)
				c := connect(h.Engine, ConnectRequest{})
				p := wire.ExecuteParams{ExecutionID: "x", Argv: []string{"prog"}}
				kept := how[:4] == "kept"
				if kept {
					p.OnExit = wire.ExitKeep
				}
				c.execute("1", p)
				synctest.Wait()
				tree := h.runner.tree("x")
				how, overtaken := strings.CutSuffix(how, ", overtaken")
				tree.overtaken = overtaken
				if how != "start failed" {
					tree.run()
				}
				if kept {
					tree.emit(proc.Exited{})
				}
				synctest.Wait()
				reason := wire.ReasonExited
				switch how {
				case "exit":
					tree.exit(0)
				case "start failed":
					tree.emit(proc.StartFailed{Err: proc.ErrNoRunner})
					tree.die(proc.Dead{})
					reason = wire.ReasonStartFailed
				case "kept, gone":
					tree.die(proc.Dead{})
				case "process panic", "kept, process panic":
					panics = "process"
					c.control("2", wire.ControlPause, "x")
				case "session panic", "kept, session panic":
					panics = "session"
					c.control("2", wire.ControlPause, "x")
				}
				if !kept && (how == "process panic" || how == "session panic") {
					reason = wire.ReasonInternal
				}
				if how == "close" {
					reason = wire.ReasonDrain
				}
				time.Sleep(moment)
				synctest.Wait()
				h.stop(t, c)
				if len(records) != 1 {
					t.Fatalf("%d audit records", len(records))
				}
				r := records[0]
				if r.Subject != "alice" || r.Session == "" || r.Execution != "x" || len(r.Argv) != 1 || r.Cwd != "" ||
					r.Completed.Reason != reason {
					t.Errorf("audit record %+v, %+v", r, r.Completed)
				}
				total := 0.0
				for _, r := range wire.Reasons() {
					var m dto.Metric
					if err := h.metrics.executions.WithLabelValues(string(r)).Write(&m); err != nil {
						t.Fatal(err)
					}
					total += m.GetCounter().GetValue()
				}
				if total != 1 {
					t.Errorf("counted %v times", total)
				}
			})
		})
	}
}

// TestOwnEndsKeepTheirReason: an end that the process actor has not seen when its session fails is
// what it was, unless the session's kill was it.
func TestOwnEndsKeepTheirReason(t *testing.T) {
	for name, c := range map[string]struct {
		events []proc.Event
		reason wire.Reason
	}{
		"crash": {[]proc.Event{proc.Exited{Signal: syscall.SIGSEGV}}, wire.ReasonSignaled},
		"memory, at exit": {
			[]proc.Event{proc.Exited{Signal: syscall.SIGKILL, OutOfMemory: true}},
			wire.ReasonOutOfMemory,
		},
		"memory, at death":    {[]proc.Event{proc.Dead{OutOfMemory: true}}, wire.ReasonOutOfMemory},
		"session's memory":    {[]proc.Event{proc.Dead{Exceeded: proc.BoundMemory}}, wire.ReasonOutOfMemory},
		"session's processes": {[]proc.Event{proc.Dead{Exceeded: proc.BoundProcesses}}, wire.ReasonProcessLimit},
		"session's disk":      {[]proc.Event{proc.Dead{Exceeded: proc.BoundDisk}}, wire.ReasonDiskLimit},
		"runner":              {[]proc.Event{proc.Dead{RunnerLost: true}}, wire.ReasonRunnerLost},
		"start":               {[]proc.Event{proc.StartFailed{Err: &proc.StartError{}}}, wire.ReasonStartFailed},
		"killed":              {[]proc.Event{proc.Exited{Signal: syscall.SIGKILL}}, wire.ReasonInternal},
		"killed while starts": {[]proc.Event{proc.StartFailed{Err: proc.ErrKilled}}, wire.ReasonInternal},
		"killed before":       {nil, wire.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const late = time.Microsecond // less than Kill takes
				var reasons []wire.Reason
				var panics atomic.Bool
				h := newHarness(t, newFakeRunner(nil), func(c *Config) {
					c.Audit = func(r AuditRecord) { reasons = append(reasons, r.Completed.Reason) }
				}, func(kind string, msg any) {
					_, started := msg.(*actor.Started)
					_, event := msg.(treeEvent)
					switch {
					case kind == "process" && (event || started && c.events == nil):
						time.Sleep(late)
					case kind == "session" && panics.CompareAndSwap(true, false):
						panic("injected")
					}
				})
				client := connect(h.Engine, ConnectRequest{})
				client.execute("1", wire.ExecuteParams{ExecutionID: "x", Argv: []string{"prog"}})
				if c.events != nil {
					synctest.Wait()
				}
				time.Sleep(late / 2) // the session has made it, and its actor is about to begin
				tree := h.runner.tree("x")
				tree.overtaken = true
				if len(c.events) > 0 {
					if _, failed := c.events[0].(proc.StartFailed); !failed {
						tree.run()
						time.Sleep(time.Second)
					}
				}
				for _, e := range c.events {
					if dead, ok := e.(proc.Dead); ok {
						tree.die(dead)
					} else {
						tree.emit(e)
					}
				}
				panics.Store(true)
				client.control("2", wire.ControlPause, "x")
				time.Sleep(moment)
				synctest.Wait()
				h.stop(t, client)
				if len(reasons) != 1 || reasons[0] != c.reason {
					t.Errorf("endRecorded as %v, want %s", reasons, c.reason)
				}
			})
		})
	}
}

// TestPanicsAreLoggedWithSessionAndExecution: the stack says what went wrong; these say for whom.
func TestPanicsAreLoggedWithSessionAndExecution(t *testing.T) {
	for kind, want := range map[string]string{"session": " session=%s ", "process": " session=%s execution=x "} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var out bytes.Buffer
			panics := ""
			h := newHarness(t, newFakeRunner(running), func(c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil))
			}, func(k string, _ any) {
				if k == panics {
					panics = ""
					panic("injected")
				}
			})
			c := connect(h.Engine, ConnectRequest{})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
			synctest.Wait()
			panics = kind
			c.control("2", wire.ControlPause, "x")
			synctest.Wait()
			h.stop(t, c)
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(out.String()) {
				if strings.Contains(line, "actor panicked") &&
					strings.Contains(line, fmt.Sprintf(want, find[wire.Connected](c).SessionID)) {
					return
				}
			}
			t.Errorf("%s:\n%s", kind, out.String())
		})
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestAnExecutionKeepsNoLargeArguments: while it runs, an execution holds neither its environment
// nor arguments of any size, only their digest and, where the audit log wants them, short ones.
func TestAnExecutionKeepsNoLargeArguments(t *testing.T) {
	for _, want := range []struct {
		arg  int
		full bool
		kept bool
	}{{10, true, true}, {10, false, false}, {MaxAuditArgv, true, false}} {
		synctest.Test(t, func(t *testing.T) {
			records := make(chan AuditRecord, 1)
			h := newHarness(t, newFakeRunner(running), func(c *Config) {
				c.AuditArgv, c.Audit = want.full, func(r AuditRecord) { records <- r }
			}, nil)
			c := connect(h.Engine, ConnectRequest{})
			argv := []string{"prog", strings.Repeat("x", want.arg)}
			c.execute("1", wire.ExecuteParams{ExecutionID: "x", Argv: argv, Env: map[string]string{"A": "b"}})
			synctest.Wait()
			digest, kept := ArgvDigest(argv), weak.Make(&argv[0])
			h.runner.tree("x").spec = proc.Spec{}
			runtime.GC()
			if holds := kept.Value() != nil; holds != want.kept {
				t.Errorf("%+v: the engine holds the arguments: %t", want, holds)
			}
			h.runner.tree("x").exit(0)
			synctest.Wait()
			r := <-records
			if r.ArgvSHA256 != digest || (r.Argv != nil) != want.kept {
				t.Errorf("%+v: the record has %d arguments and the digest %s", want, len(r.Argv), r.ArgvSHA256)
			}
			h.stop(t, c)
		})
	}
}
