package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	lineLimit   = 8192
	outputLimit = 10485760
)

// record is all that a connection was sent of one execution.
type record struct {
	pieces   []*wire.Output
	warnings []wire.Warning
	done     wire.Completed
}

// collect reads on to the end of an execution, and checks that its pieces join.
func (c *socket) collect(id string) *record {
	c.t.Helper()
	r := new(record)
	offset := int64(0)
	for {
		m := c.next()
		switch m.Method {
		case wire.MethodOutput:
			if m.Output.ExecutionID != id {
				continue
			}
			r.pieces = append(r.pieces, m.Output)
			data, err := m.Output.Bytes()
			if err != nil {
				c.t.Fatal(err)
			}
			if m.Output.Gap != 0 || m.Output.Offset != offset+int64(len(data)) {
				c.t.Fatalf("a piece of %d bytes ends at %d after %d, with a gap of %d", len(data), m.Output.Offset, offset,
					m.Output.Gap)
			}
			offset = m.Output.Offset
		case wire.MethodWarning:
			var w wire.Warning
			if err := json.Unmarshal(m.Params, &w); err != nil {
				c.t.Fatal(err)
			}
			r.warnings = append(r.warnings, w)
			if w.Offset != offset {
				c.t.Errorf("a warning of %d comes at %d", w.Offset, offset)
			}
		case wire.MethodCompleted:
			if err := json.Unmarshal(m.Params, &r.done); err != nil {
				c.t.Fatal(err)
			}
			if r.done.ExecutionID != id {
				continue
			}
			if r.done.OutputBytes != offset {
				c.t.Errorf("completed with %d bytes of output, after %d", r.done.OutputBytes, offset)
			}
			return r
		}
	}
}

// run runs a command to its end.
func (c *socket) run(params wire.ExecuteParams) *record {
	c.t.Helper()
	return c.collect(c.start(params))
}

// text joins the pieces of a stream.
func (r *record) text(stream string) string {
	var b strings.Builder
	for _, piece := range r.pieces {
		if piece.Type == stream {
			b.WriteString(piece.Data)
		}
	}
	return b.String()
}

// TestPromise03StreamTimeoutKeepsPartialOutput: a silent command ends with
// stream_timeout and -32004, and the half line that it had printed is there. One that
// is paused meanwhile does not, until it runs again.
func TestPromise03StreamTimeoutKeepsPartialOutput(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := launch(t, "--stream-timeout", "2s")
	c, _ := session(t, s, "/ws")
	paused := c.start(wire.ExecuteParams{Command: "printf half; exec sleep 1000", ExecutionID: "paused"})
	if err := c.call(wire.MethodControl, wire.ControlParams{Type: wire.ControlPause, ExecutionID: paused},
		nil); err != nil {
		t.Fatal(err)
	}
	expired := func(r *record) {
		t.Helper()
		if out := r.text(wire.Stdout); out != "half" {
			t.Errorf("output %q", out)
		}
		d := r.done
		if d.Reason != wire.ReasonStreamTimeout || d.Error == nil || d.Error.Code != wire.CodeStreamTimeout ||
			d.Status != wire.StatusFailed || d.ExitCode != -15 {
			t.Errorf("%+v, error %+v", d, d.Error)
		}
	}
	for range 2 { // the clock by which the paused one's time would be up
		expired(c.run(wire.ExecuteParams{Command: "printf half; sleep 1000"}))
	}
	var status wire.StatusResult
	if err := c.call(wire.MethodStatus, struct{}{}, &status); err != nil ||
		status.Executions[paused].State != wire.StatePaused {
		t.Fatalf("%v, %+v", err, status.Executions[paused])
	}
	if err := c.call(wire.MethodControl, wire.ControlParams{Type: wire.ControlResume, ExecutionID: paused},
		nil); err != nil {
		t.Fatal(err)
	}
	var done wire.Completed
	c.notified(wire.MethodCompleted, &done)
	if done.ExecutionID != paused || done.Reason != wire.ReasonStreamTimeout || done.OutputBytes != 4 {
		t.Errorf("%+v", done)
	}
	// A command that prints now and then runs as long as it likes.
	dots := wire.ExecuteParams{Command: "for i in 1 2 3 4 5; do printf .; sleep 0.5; done; exit 3"}
	if r := c.run(dots); r.done.ExitCode != 3 {
		t.Errorf("%+v", r.done)
	}
}

// TestPromise04LinesArriveExactly: lines around the limit, with and without a
// newline, and with a rune across it, through a real pipe and a real socket.
func TestPromise04LinesArriveExactly(t *testing.T) {
	s := launch(t)
	c, _ := session(t, s, "/ws")
	dir := t.TempDir()
	for _, line := range []struct{ name, text string }{
		{"8191", strings.Repeat("a", lineLimit-1)},
		{"8192", strings.Repeat("b", lineLimit)},
		{"8193", strings.Repeat("c", lineLimit+1)},
		{"10 MiB", strings.Repeat("d", 10<<20)},
		{"rune that fits", strings.Repeat("e", lineLimit-3) + "€"},
		{"rune of three across", strings.Repeat("f", lineLimit-1) + "€" + strings.Repeat("f", 100)},
		{"rune of four across", strings.Repeat("g", lineLimit-2) + "🎭" + strings.Repeat("g", 100)},
		{"runes only", strings.Repeat("€", 20000)},
	} {
		for _, newline := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, newline %v", line.name, newline), func(t *testing.T) {
				input, want, rest := "before\n"+line.text, "before\n", ""
				if newline {
					input, rest = input+"\nafter\n", "after\n"
				}
				var cutLines, cutBytes int64
				switch cut := lineLimit; {
				case len(line.text) > lineLimit:
					for !utf8.RuneStart(line.text[cut]) {
						cut--
					}
					want += line.text[:cut] + "[TRUNCATED]\n" + rest
					cutLines, cutBytes = 1, int64(len(line.text)-cut)
					if newline {
						cutBytes++
					}
				case newline:
					want += line.text + "\n" + rest
				default:
					want += line.text
				}
				file := filepath.Join(dir, "input")
				if err := os.WriteFile(file, []byte(input), 0o600); err != nil {
					t.Fatal(err)
				}
				r := c.run(wire.ExecuteParams{Argv: []string{"cat", file}})
				if out := r.text(wire.Stdout); out != want {
					t.Errorf("%d bytes that end in %q, want %d that end in %q", len(out), tail(out), len(want), tail(want))
				}
				if d := r.done; d.TruncatedLines != cutLines || d.TruncatedBytes != cutBytes || d.DroppedLines != 0 ||
					d.DroppedBytes != 0 || d.ExitCode != 0 {
					t.Errorf("%+v, want %d lines and %d bytes truncated", d, cutLines, cutBytes)
				}
				for _, piece := range r.pieces {
					if piece.Truncated != strings.HasSuffix(piece.Data, "[TRUNCATED]\n") || piece.Truncated &&
						strings.Count(piece.Data, "\n") != 1 {
						t.Errorf("truncated %v: %q", piece.Truncated, tail(piece.Data))
					}
				}
			})
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-30):] }

// TestPromise04PromptsDoNotWait: what has no newline yet arrives within 100 ms. The
// command says when it wrote; the best of some tries counts, since the machine may be busy.
func TestPromise04PromptsDoNotWait(t *testing.T) {
	s := launch(t)
	c, _ := session(t, s, "/ws")
	best := time.Hour
	for began := time.Now(); best > 100*time.Millisecond && time.Since(began) < 20*time.Second; {
		id := c.start(wire.ExecuteParams{Command: `printf 'name? %s' $(date +%s%N); exec sleep 1000`})
		m := c.next()
		for m.Method != wire.MethodOutput {
			m = c.next()
		}
		now := time.Now()
		var wrote int64
		if _, err := fmt.Sscanf(m.Output.Data, "name? %d", &wrote); err != nil {
			t.Fatalf("%q: %v", m.Output.Data, err)
		}
		best = min(best, now.Sub(time.Unix(0, wrote)))
		c.request(wire.MethodControl, wire.ControlParams{Type: wire.ControlCancel, ExecutionID: id})
		c.collectEnd(id)
	}
	t.Logf("after %v", best)
	if best > 100*time.Millisecond {
		t.Errorf("a prompt came after %v at best", best)
	}
}

// collectEnd skips to the end of an execution.
func (c *socket) collectEnd(id string) (done wire.Completed) {
	c.t.Helper()
	for done.ExecutionID != id {
		c.notified(wire.MethodCompleted, &done)
	}
	return done
}
