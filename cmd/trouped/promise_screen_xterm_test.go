package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// recordings of what programs draw, and the program that compares terminals.
const screenTestdata = "../../actors/screen/testdata/"

// received is what a viewer's terminal is given: output, drawings and sizes, in their order.
type received struct {
	steps []map[string]any
	size  [2]int
	gaps  int
	drawn bool
	tail  []byte // of the output
}

// follow reads until the output has a text.
func (r *received) follow(t *testing.T, e *troupe.Execution, until string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	for !bytes.Contains(r.tail, []byte(until)) {
		ev, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("%v; the output ends with %q", err, r.tail)
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			r.steps = append(r.steps, map[string]any{"output": bytes.Clone(ev.Data)})
			r.tail = append(r.tail[max(0, len(r.tail)-len(until)):], ev.Data...)
			ev.Release()
		case *troupe.Resized:
			r.resize(ev.Cols, ev.Rows)
		case *troupe.Gap:
			r.gaps++
		case *troupe.Screen:
			r.drawn = true
			r.resize(ev.Cols, ev.Rows)
			r.steps = append(r.steps, map[string]any{"output": bytes.Clone(ev.Data)})
		}
	}
	r.tail = nil
}

func (r *received) resize(cols, rows int) {
	if r.size != [2]int{cols, rows} {
		r.size = [2]int{cols, rows}
		r.steps = append(r.steps, map[string]any{"resize": r.size})
	}
}

// judge says how a terminal that was given what a late viewer got differs from one that was given all.
func judge(t *testing.T, all, late *received) []string {
	t.Helper()
	var in bytes.Buffer
	lines := json.NewEncoder(&in)
	for _, step := range append([]map[string]any{{"cols": 80, "rows": 24}}, append(all.steps,
		map[string]any{"viewer": late.steps}, map[string]any{"end": true})...) {
		if err := lines.Encode(step); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", screenTestdata+"compare.mjs")
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Report []string }
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return answer.Report
}

// drawn is the first part of what a program drew when it was recorded.
func drawn(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	lines := bufio.NewScanner(plain)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event [3]any
		if json.Unmarshal(lines.Bytes(), &event) == nil && event[1] == "o" {
			all = append(all, event[2].(string)...)
		}
	}
	return all[:len(all)*3/5]
}

const nuls = 100000

// again draws a recording so often that screens are drawn anywhere in it, and waits once for a key. NULs, which
// draw nothing, then take the place of all that was kept of it.
const again = `stty raw -echo; n=$1; half=$((n/2))
	while [ $n -gt 0 ]; do
		n=$((n-1)); cat "$0"
		if [ $n = $half ]; then printf '\033]2;half\a'; dd bs=1 count=1 >/dev/null 2>&1; fi
	done
	head -c $2 /dev/zero; printf '\033]2;the end\a'; sleep 600`

// TestLateViewersSeeWhatProgramsDraw: with recordings of real programs, xterm.js, which the console uses, is in the
// same state whether it was given everything or only what a late viewer gets.
func TestLateViewersSeeWhatProgramsDraw(t *testing.T) {
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if _, err := exec.LookPath("node"); err != nil {
		skip("needs Node: %v", err)
	}
	if _, err := os.Stat("../../gateway/console/web/node_modules/@xterm/headless"); err != nil {
		skip("needs `npm ci --prefix gateway/console/web`: %v", err)
	}
	files, err := filepath.Glob(screenTestdata + "*.cast.gz")
	if err != nil || len(files) < 8 {
		t.Fatalf("recordings: %v, %v", files, err)
	}
	s := launch(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			output := drawn(t, file)
			path := filepath.Join(t.TempDir(), "output")
			if err := os.WriteFile(path, output, 0o600); err != nil {
				t.Fatal(err)
			}
			times := 200<<10/len(output) + 2
			c, err := troupe.Dial(t.Context(), s.ws, troupe.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			e, err := c.Execute(t.Context(), wire.ExecuteParams{
				ExecutionID: "shell", Scrollback: 64 << 10, Terminal: &wire.Terminal{Cols: 80, Rows: 24},
				Argv: []string{"sh", "-c", again, path, fmt.Sprint(times), fmt.Sprint(nuls)},
			})
			if err != nil {
				t.Fatal(err)
			}
			first := &received{}
			first.follow(t, e, "\x1b]2;half\a")
			if err := e.Resize(t.Context(), 100, 30); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Input(t.Context(), []byte("x")); err != nil {
				t.Fatal(err)
			}
			first.follow(t, e, "\x1b]2;the end\a")
			late := &received{size: [2]int{80, 24}}
			late.follow(t, attachAll(t, s, c).Executions()["shell"], "\x1b]2;the end\a")
			if late.gaps == 0 || !late.drawn {
				t.Fatalf("%d gaps, drawn %v", late.gaps, late.drawn)
			}
			all := &received{steps: []map[string]any{
				{"output": append(bytes.Repeat(output, times-times/2), "\x1b]2;half\a"...)},
				{"resize": [2]int{100, 30}},
				{"output": append(bytes.Repeat(output, times/2), string(make([]byte, nuls))+"\x1b]2;the end\a"...)},
			}}
			for _, difference := range judge(t, all, late) {
				t.Error(difference)
			}
		})
	}
}
