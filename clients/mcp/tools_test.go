//go:build linux

package mcp_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// TestToolsFitThePrompt: every client puts the tools into each of its prompts. A token has about four
// bytes.
func TestToolsFitThePrompt(t *testing.T) {
	a := connect(t, "ws://127.0.0.1:1/ws", nil)
	res, err := a.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, prompt := 0, 0
	for _, tool := range res.Tools {
		whole, _ := json.Marshal(tool)
		part, _ := json.Marshal(map[string]any{
			"name": tool.Name, "description": tool.Description, "input_schema": tool.InputSchema,
		})
		all, prompt = all+len(whole), prompt+len(part)
	}
	t.Logf("%d tools: %d tokens in the prompt, %d with annotations and schemas of results", len(res.Tools), prompt/4, all/4)
	if len(res.Tools) != 17 || all/4 >= 2500 {
		t.Errorf("%d tools with %d bytes; want 17 with less than 10000", len(res.Tools), all)
	}
}

func TestExec(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)

	out, text := a.call("exec", args{"command": "echo hello; sleep 0.1; echo oops >&2; exit 3"})
	if out["state"] != "exited" || out["exit_code"] != 3.0 || out["output"] != "hello\noops\n" {
		t.Errorf("%v", out)
	}
	if !strings.HasPrefix(text, "exit code 3 after ") || !strings.HasSuffix(text, "\nhello\noops\n") {
		t.Errorf("text %q", text)
	}
	out, _ = a.call("exec", args{
		"argv": []string{"sh", "-c", `cat; echo "$WHO in $(pwd)"`}, "stdin": "text\n", "cwd": "/", "env": args{"WHO": "me"},
	})
	if out["output"] != "text\nme in /\n" {
		t.Errorf("%v", out)
	}
	for _, c := range []struct{ in, want any }{
		{args{}, "give command"},
		{args{"command": "true", "argv": []string{"true"}}, "exclude each other"},
		{args{"command": "true", "cwd": "/nowhere"}, "/nowhere"},
		{args{"argv": []string{"no-such-program"}}, "no-such-program"},
		{args{"command": "true", "session": "local.gone"}, "Call open_session"},
		{args{"command": "true", "yield": 3}, "yield"},
	} {
		if got := a.refused("exec", c.in.(args)); !strings.Contains(got, c.want.(string)) {
			t.Errorf("%v: %q does not say %q", c.in, got, c.want)
		}
	}
}

// TestYield: a call returns a handle when its time is over, and the command goes on.
func TestYield(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	out, text := a.call("exec", args{"command": "echo one; read x; echo got $x", "keep_stdin": true, "yield_ms": 300})
	if out["state"] != "running" || out["output"] != "one\n" || !strings.Contains(text, "Continue with wait") {
		t.Fatalf("%v\n%s", out, text)
	}
	id := out["execution"]
	out, _ = a.call("wait", args{"execution": id, "yield_ms": 100, "offset": out["next_offset"]})
	if out["state"] != "running" || out["output"] != "" {
		t.Errorf("%v", out)
	}
	out, _ = a.call("write_stdin", args{"execution": id, "text": "it\n", "yield_ms": 5000})
	if out["state"] != "exited" || out["output"] != "got it\n" || out["exit_code"] != 0.0 {
		t.Errorf("%v", out)
	}
	out, _ = a.call("wait", args{"execution": id})
	if out["state"] != "exited" || out["output"] != "one\ngot it\n" {
		t.Errorf("%v", out)
	}
	if got := a.refused("write_stdin", args{"execution": id, "text": "x"}); !strings.Contains(got, "reads no stdin") {
		t.Error(got)
	}
	if got := a.refused("wait", args{"execution": "other"}); !strings.Contains(got, "list shows") {
		t.Error(got)
	}
}

// TestAnswersAreBounded: by default no answer has more than 16 KiB in either form, whatever the command
// prints, and what was left out is found by its offset.
func TestAnswersAreBounded(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	for name, command := range map[string]string{
		"lines":  "seq 1 100000",
		"quotes": `yes '"\"' | head -c 1000000`,
		"binary": "head -c 1000000 /dev/urandom",
		"zeros":  "head -c 100000 /dev/zero",
	} {
		res := a.try("exec", args{"command": command, "execution_id": name})
		text, structured := textOf(res), res.StructuredContent.(map[string]any)
		whole, _ := json.Marshal(structured)
		var compact strings.Builder
		encoder := json.NewEncoder(&compact)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(structured)
		if len(text) > 16<<10 || compact.Len() > 16<<10 || res.IsError {
			t.Errorf("%s: %d bytes of text, %d of JSON\n%.200s", name, len(text), compact.Len(), whole)
		}
		omitted, ok := structured["omitted"].(map[string]any)
		if !ok || !strings.Contains(text, "bytes omitted at offset") {
			t.Errorf("%s: nothing says what was omitted: %.300s", name, text)
			continue
		}
		at := omitted["offset"].(float64)
		next, _ := a.call("read_output", args{"execution": name, "offset": at, "max_bytes": 100})
		if next["offset"] != at || next["output"] == "" {
			t.Errorf("%s: %v", name, next)
		}
		if links := linksOf(res); len(links) != 1 {
			t.Errorf("%s: links %v", name, links)
		} else if read, err := a.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: links[0]}); err != nil ||
			len(read.Contents[0].Text) > 16<<10 || len(read.Contents[0].Text) < 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The whole of it, piece by piece.
	var got strings.Builder
	for at := 0.0; ; {
		p, _ := a.call("read_output", args{"execution": "lines", "offset": at, "max_bytes": 32_000})
		got.WriteString(p["output"].(string))
		if at = p["next_offset"].(float64); at == p["size"].(float64) {
			break
		}
	}
	var want strings.Builder
	for i := range 100_000 {
		fmt.Fprintln(&want, i+1)
	}
	if got.String() != want.String() {
		t.Errorf("%d bytes read, %d printed, or they differ", got.Len(), want.Len())
	}
}

func linksOf(res *sdk.CallToolResult) (uris []string) {
	for _, c := range res.Content {
		if c, ok := c.(*sdk.ResourceLink); ok {
			uris = append(uris, c.URI)
		}
	}
	return uris
}

func TestReadOutput(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	a.call("exec", args{"command": "for i in $(seq 1 3000); do echo line $i; done; printf end", "execution_id": "x"})
	p, _ := a.call("read_output", args{"execution": "x", "tail": 2})
	if p["output"] != "line 3000\nend" {
		t.Errorf("tail: %v", p)
	}
	p, text := a.call("read_output", args{"execution": "x", "grep": "^line 2?99$|end"})
	if p["matches"] != 3.0 || p["output"] != "775: line 99\n2574: line 299\n28893: end\n" {
		t.Errorf("grep: %v\n%s", p, text)
	}
	p, _ = a.call("read_output", args{"execution": "x", "grep": "line", "max_bytes": 40})
	if p["output"] != "0: line 1\n7: line 2\n14: line 3\n" || !strings.Contains(p["message"].(string), "3 of 3000 matches") {
		t.Errorf("%v", p)
	}
	p, _ = a.call("read_output", args{"execution": "x", "grep": "line", "max_bytes": 40, "offset": p["next_offset"]})
	if !strings.Contains(p["output"].(string), ": line 4\n") {
		t.Errorf("%v", p)
	}
	for want, in := range map[string]args{
		"outside":            {"execution": "x", "offset": 1 << 40},
		"regular expression": {"execution": "x", "grep": "("},
		"give one":           {"execution": "x", "tail": 1, "offset": 1},
	} {
		if got := a.refused("read_output", in); !strings.Contains(got, want) {
			t.Errorf("%v: %q", in, got)
		}
	}
}

// TestCancelAnswersWhenTheTreeIsDead: also what the command has started in a session of its own.
func TestCancelAnswersWhenTheTreeIsDead(t *testing.T) {
	a := connect(t, "ws://"+launch(t, "--cancel-grace", "1s")+"/ws", nil)
	out, _ := a.call("exec", args{
		"command":  `trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 0.1; done`,
		"yield_ms": 500,
	})
	child := strings.TrimSpace(out["output"].(string))
	end, text := a.call("cancel", args{"execution": out["execution"]})
	if end["state"] != "exited" || end["reason"] != "canceled" || !strings.Contains(text, "canceled (SIGKILL)") {
		t.Errorf("%v\n%s", end, text)
	}
	alive, _ := a.call("exec", args{"command": "kill -0 " + child + " 2>/dev/null && echo alive || echo dead"})
	if alive["output"] != "dead\n" {
		t.Errorf("%v", alive)
	}
	again, _ := a.call("cancel", args{"execution": out["execution"]})
	if again["reason"] != "canceled" {
		t.Errorf("a second cancel: %v", again)
	}
}

func TestPauseResumeSignalList(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	out, _ := a.call("exec", args{
		"command": `trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.05; done`, "yield_ms": 500,
	})
	id := out["execution"]
	if p, _ := a.call("pause", args{"execution": id}); p["status"] != "paused" {
		t.Errorf("%v", p)
	}
	if w, text := a.call("wait", args{"execution": id, "yield_ms": 0}); w["state"] != "paused" {
		t.Errorf("%v %s", w, text)
	}
	if p, _ := a.call("resume", args{"execution": id}); p["status"] != "resumed" {
		t.Errorf("%v", p)
	}
	a.call("signal", args{"execution": id, "signal": "INT"})
	if w, _ := a.call("wait", args{"execution": id}); w["exit_code"] != 7.0 || w["output"] != "ready\nint\n" {
		t.Errorf("%v", w)
	}
	if got := a.refused("signal", args{"execution": id, "signal": "INT"}); !strings.Contains(got, "not running") {
		t.Error(got)
	}
	a.call("write_file", args{"path": "x", "content": "y"})
	l, text := a.call("list", nil)
	if n := len(l["executions"].([]any)); n != 1 || !strings.Contains(text, "exit code 7") {
		t.Errorf("%d listed: %s", n, text)
	}
}

// TestRetryRunsOnce: a call with an execution_id that was used does not run the command again.
func TestRetryRunsOnce(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	in := args{"command": "echo run >> runs; cat runs; sleep 0.4; echo end", "execution_id": "once", "yield_ms": 100}
	a.call("exec", in)
	in["yield_ms"] = 5000
	for range 2 {
		if out, _ := a.call("exec", in); out["output"] != "run\nend\n" || out["state"] != "exited" {
			t.Errorf("%v", out)
		}
	}
}

// TestSessions: two sessions have files of their own, and calls that name none share one.
func TestSessions(t *testing.T) {
	a := connect(t, "ws://"+launch(t, "--isolation", "session")+"/ws", nil)
	one, _ := a.call("open_session", nil)
	two, _ := a.call("open_session", nil)
	a.call("write_file", args{"session": one["session"], "path": "f", "content": "secret"})
	if got := a.refused("read_file", args{"session": two["session"], "path": "f"}); !strings.Contains(got, "f: ") {
		t.Error(got)
	}
	a.call("exec", args{"command": "echo mine > own", "execution_id": "own"})
	if f, _ := a.call("read_file", args{"path": "own"}); f["content"] != "mine\n" {
		t.Errorf("%v", f)
	}
	if got := a.refused("wait", args{"session": two["session"], "execution": "own"}); !strings.Contains(got, "no execution") {
		t.Error(got)
	}
	a.call("close_session", args{"session": one["session"]})
	if got := a.refused("exec", args{"session": one["session"], "command": "true"}); !strings.Contains(got, "open_session") {
		t.Error(got)
	}
}

// TestNoServer: what a model reads says what is wrong, in time.
func TestNoServer(t *testing.T) {
	a := connect(t, "ws://127.0.0.1:1/ws", nil)
	began := time.Now()
	if got := a.refused("exec", args{"command": "true"}); !strings.Contains(got, "127.0.0.1:1") {
		t.Error(got)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestOutOfMemoryIsTold: with the limit and the peak, so that a model can do something about it.
func TestOutOfMemoryIsTold(t *testing.T) {
	a := connect(t, "ws://"+launch(t, "--max-memory", "64MiB")+"/ws", nil)
	out, text := a.call("exec", args{"command": "echo begun; tail < /dev/zero", "yield_ms": 30_000})
	memory, ok := out["memory"].(map[string]any)
	if out["reason"] != "out_of_memory" || !ok || memory["limit_bytes"] != float64(64<<20) ||
		memory["peak_bytes"].(float64) < 32<<20 || out["output"] != "begun\n" {
		t.Errorf("%v", out)
	}
	if !strings.Contains(text, "out_of_memory") || !strings.Contains(text, "memory limit 67108864 bytes, peak") {
		t.Error(text)
	}
}

// TestSurvivorsAreTold: a model learns that what it started in the background is gone.
func TestSurvivorsAreTold(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	out, text := a.call("exec", args{"command": "sleep 1000 & echo started"})
	if out["exit_code"] != 0.0 || !strings.Contains(text, "1 processes outlived the command and were killed: sleep") {
		t.Errorf("%v\n%s", out, text)
	}
}
