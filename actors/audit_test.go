package actors

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// TestEveryEndIsAccountedOnce: in the metrics and in the audit log, also when
// something in the server fails.
func TestEveryEndIsAccountedOnce(t *testing.T) {
	for _, how := range []string{"exit", "start failed", "process panic", "session panic", "session panic, overtaken", "close", "close, overtaken", "kept, session panic", "kept, close", "kept, process panic", "kept, gone"} {
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
				if r.Subject != "alice" || r.Session == "" || r.Execution != "x" || len(r.Argv) != 1 || r.Cwd != "/" || r.Completed.Reason != reason {
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
				if strings.Contains(line, "actor panicked") && strings.Contains(line, fmt.Sprintf(want, find[wire.Connected](c).SessionID)) {
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
