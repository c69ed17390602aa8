//go:build linux

package proc

import (
	"bytes"
	"io"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// The same job twice: start /bin/true, read both pipes to their ends, know that it is dead.
// BenchmarkTrue does it through a warm init, BenchmarkTrueOsExec with os/exec alone.

func oneTrue(tb testing.TB, r *Runner) { oneTrueIn(tb, r, "") }

func oneTrueIn(tb testing.TB, r *Runner, workspace string) {
	oneOf(tb, r, Spec{Argv: []string{"/bin/true"}, Workspace: workspace})
}

func oneOf(tb testing.TB, r *Runner, spec Spec) {
	t := r.NewTree("bench", "true")
	done := make(chan struct{})
	stdio, err := t.Start(spec, func(e Event) {
		if _, ok := e.(Dead); ok {
			close(done)
		}
	})
	if err != nil {
		tb.Error(err)
		return
	}
	var wg sync.WaitGroup
	for _, p := range []*Pipe{stdio.Stdout, stdio.Stderr} {
		wg.Go(func() { io.Copy(io.Discard, p); p.Close() })
	}
	<-done
	wg.Wait()
}

func oneTrueOsExec(tb testing.TB) {
	cmd := exec.Command("/bin/true")
	cmd.Env = []string{}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		tb.Error(err)
	}
}

func BenchmarkTrue(b *testing.B) {
	r := open(b, func(c *Config) { c.WarmInits = 8 })
	serial(b, func() { oneTrue(b, r) })
}

// What a domain costs: commands of one session, and the first command of each.
func BenchmarkTrueInSession(b *testing.B) {
	for _, level := range []string{IsolationNone, IsolationSession} {
		root := b.TempDir()
		isolate := func(c *Config) { c.WarmInits, c.Isolation = 8, Isolation{Level: level, Workspace: root} }
		b.Run(level+"/same", func(b *testing.B) {
			r := open(b, isolate)
			serial(b, func() { oneTrueIn(b, r, workspace(1)) })
		})
		b.Run(level+"/first", func(b *testing.B) {
			r, n := open(b, isolate), 0
			serial(b, func() {
				n++
				oneTrueIn(b, r, workspace(n))
				r.RemoveWorkspace(workspace(n))
			})
		})
		for name, hidden := range map[string]bool{"/argument": false, "/script": true} {
			b.Run(level+name, func(b *testing.B) {
				r := open(b, isolate)
				spec := Spec{Argv: []string{"/bin/sh", "-c", ":; /bin/true"}, Script: hidden, Workspace: workspace(1)}
				serial(b, func() { oneOf(b, r, spec) })
			})
		}
	}
}

func BenchmarkTrueOsExec(b *testing.B) { serial(b, func() { oneTrueOsExec(b) }) }

// serial also reports the median, which says more than the mean on a machine that does other things
// too.
func serial(b *testing.B, f func()) {
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		f()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
}

// eight runs f b.N times on eight goroutines.
func eight(b *testing.B, f func()) {
	b.ReportAllocs()
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range work {
				f()
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

func BenchmarkTrueParallel(b *testing.B) {
	r := open(b, func(c *Config) { c.WarmInits = 8 })
	eight(b, func() { oneTrue(b, r) })
}

func BenchmarkTrueOsExecParallel(b *testing.B) { eight(b, func() { oneTrueOsExec(b) }) }
