//go:build linux

package mcp_test

import (
	"slices"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// BenchmarkOverhead compares the tool exec with a plain execute of the same command on a connection
// that is open, one after the other, from the request to the end of /bin/true. It prints the medians and
// their difference in microseconds.
func BenchmarkOverhead(b *testing.B) {
	listen := launch(b)
	c, err := troupe.Dial(b.Context(), "ws://"+listen+"/ws", troupe.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	plain := func() {
		if _, err := c.Run(b.Context(), wire.ExecuteParams{Argv: []string{"/bin/true"}}, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	compare := func(b *testing.B, tool func()) {
		var plains, tools []time.Duration
		for range 50 { // connections, caches
			plain()
			tool()
		}
		for b.Loop() {
			began := time.Now()
			plain()
			middle := time.Now()
			tool()
			plains, tools = append(plains, middle.Sub(began)), append(tools, time.Since(middle))
		}
		median := func(all []time.Duration) float64 {
			slices.Sort(all)
			return float64(all[len(all)/2].Microseconds())
		}
		p, t := median(plains), median(tools)
		b.ReportMetric(p, "plain-µs")
		b.ReportMetric(t, "tool-µs")
		b.ReportMetric(t-p, "overhead-µs")
	}
	b.Run("stdio", func(b *testing.B) {
		a := connect(b, "ws://"+listen+"/ws", nil)
		compare(b, func() { a.call("exec", args{"argv": []string{"/bin/true"}}) })
	})
	b.Run("HTTP", func(b *testing.B) {
		a := visit(b, listen, "", nil)
		s, _ := a.call("open_session", nil)
		compare(b, func() { a.call("exec", args{"session": s["session"], "argv": []string{"/bin/true"}}) })
	})
	b.Run("read_output", func(b *testing.B) {
		a := visit(b, listen, "", nil)
		s, _ := a.call("open_session", nil)
		a.call("exec", args{"session": s["session"], "command": "seq 1 100000", "execution_id": "x"})
		compare(b, func() { a.call("read_output", args{"session": s["session"], "execution": "x", "offset": 100_000}) })
	})
}
