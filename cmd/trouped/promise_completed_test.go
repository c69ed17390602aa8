package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// TestPromise08CompletedFollowsTheLastByte: a command that writes as much as it can
// and exits in the same breath, over and over.
func TestPromise08CompletedFollowsTheLastByte(t *testing.T) {
	s := launch(t)
	c, _ := session(t, s, "/ws")
	big := filepath.Join(t.TempDir(), "big")
	text := strings.Repeat("0123456789abcde\n", 1<<16)
	if err := os.WriteFile(big, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 20 { // collect fails when output follows, or offsets do not join
		r := c.run(wire.ExecuteParams{Argv: []string{"cat", big}})
		if r.text(wire.Stdout) != text || r.done.ExitCode != 0 {
			t.Fatalf("%d of %d bytes, %+v", len(r.text(wire.Stdout)), len(text), r.done)
		}
		r = c.run(wire.ExecuteParams{Command: "printf out; printf err >&2; kill -9 $$"})
		if r.text(wire.Stdout) != "out" || r.text(wire.Stderr) != "err" || r.done.ExitCode != -9 ||
			r.done.Signal != "SIGKILL" || r.done.Reason != wire.ReasonSignaled {
			t.Fatalf("%+v", r.done)
		}
	}
	if err := c.call(wire.MethodStatus, struct{}{}, nil); err != nil {
		t.Error(err)
	}
	if len(c.kept) > 0 {
		t.Errorf("after the last completion came %+v", c.kept)
	}
}

// TestPromise08BackgroundChildren: one that holds the output open delays the end by
// the drain time at most, one that does not not at all. Either is dead when
// process.completed comes, and named in it.
func TestPromise08BackgroundChildren(t *testing.T) {
	s := launchWith(t, fixed{SurvivorGrace: 300 * time.Millisecond}.with(t))
	c, _ := session(t, s, "/ws")
	for _, child := range []struct{ name, script string }{
		{"holds the output", `SLEEP 1000 & echo hi`},
		{"daemon", `setsid SLEEP 1000 </dev/null >/dev/null 2>&1 & echo hi`},
		{"holds one stream, ignores signals", `BASH -c 'trap "" TERM HUP; exec SLEEP 1000' >/dev/null & echo hi`},
	} {
		t.Run(child.name, func(t *testing.T) {
			m := newTrace(t)
			r := c.run(wire.ExecuteParams{Argv: m.argv(child.script + "; exit 6")})
			m.none()
			d := r.done
			if d.Reason != wire.ReasonExited || d.ExitCode != 6 || r.text(wire.Stdout) != "hi\n" {
				t.Errorf("%+v, %q", d, r.text(wire.Stdout))
			}
			if d.Survivors == nil || d.Survivors.Count != 1 || len(d.Survivors.Commands) != 1 {
				t.Fatalf("survivors %+v", d.Survivors)
			}
			// It may be found before its execve, still under the name of the shell that forked it.
			if !slices.Contains([]string{m.name, "setsid"}, d.Survivors.Commands[0]) {
				t.Errorf("survivors %q, want %s", d.Survivors.Commands, m.name)
			}
			if d.ExecutionTime > 20 {
				t.Errorf("it took %v s", d.ExecutionTime)
			}
		})
	}
	t.Run("many", func(t *testing.T) {
		m := newTrace(t)
		r := c.run(wire.ExecuteParams{Argv: m.argv(`for i in {1..50}; do SLEEP 1000 & done; echo hi`)})
		m.none()
		if v := r.done.Survivors; v == nil || v.Count != 50 || len(v.Commands) != 32 {
			t.Errorf("survivors %+v", v)
		}
	})
}

// kept starts a command that leaves a server behind on purpose, and reads on to its end.
func kept(t *testing.T, c *troupe.Client, m *trace) *troupe.Execution {
	t.Helper()
	ctx := bounded(t)
	e, err := c.Execute(ctx, wire.ExecuteParams{
		Argv:   m.argv(`setsid BASH -c 'while :; do echo later; sleep 0.02; done' & echo now; exit 2`),
		OnExit: wire.ExitKeep,
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		event, err := e.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if done, ok := event.(*troupe.Completed); ok {
			if done.ExitCode != 2 || done.Reason != wire.ReasonExited {
				t.Errorf("%+v", done)
			}
			return e
		}
	}
}

// TestPromise08KeptSurvivors: with on_exit keep, what the command leaves behind
// lives on, its output is still recorded and delivered, to a late reader too, and it
// dies with CANCEL or with the session.
func TestPromise08KeptSurvivors(t *testing.T) {
	s := launch(t, "--cancel-grace", "200ms")
	for _, end := range []struct {
		name string
		end  func(*troupe.Client, *troupe.Execution) error
	}{
		{"cancel", func(_ *troupe.Client, e *troupe.Execution) error { return e.Cancel(t.Context()) }},
		{"signal KILL", func(_ *troupe.Client, e *troupe.Execution) error { return e.Signal(t.Context(), "KILL") }},
		{"session", func(c *troupe.Client, _ *troupe.Execution) error { return c.Close() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			c, m, ctx := s.dial(), newTrace(t), bounded(t)
			e := kept(t, c, m)
			m.await(1)
			later := 0
			for later < 20 {
				event, err := e.Next(ctx)
				if err != nil {
					t.Fatalf("after completion, and %d bytes of later output: %v", later, err)
				}
				if out, ok := event.(*troupe.Output); ok {
					later += len(out.Data)
				}
			}
			status, err := c.Status(ctx)
			if err != nil || status.Executions[e.ID()].State != wire.StateKept ||
				status.Executions[e.ID()].Offset < int64(later) {
				t.Errorf("%+v, %v", status, err)
			}
			late, err := troupe.Attach(ctx, s.ws, c.ID(), c.Connected().ResumeToken, nil, troupe.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer late.Detach()
			first, err := late.Executions()[e.ID()].Next(ctx)
			if out, ok := first.(*troupe.Output); !ok || !strings.HasPrefix(string(out.Data), "now\n") &&
				!strings.HasPrefix(string(out.Data), "later\n") {
				t.Errorf("a late reader begins with %+v, %v", first, err)
			}
			if err := end.end(c, e); err != nil {
				t.Error(err)
			}
			m.gone()
		})
	}
	s.awaitActive(2) // the clients whose execution was ended and not their session
}
