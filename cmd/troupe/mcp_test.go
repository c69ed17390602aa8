//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestMCP: an agent starts `troupe mcp` and talks to it over pipes, one JSON message to a line; it ends
// with its stdin, and its stdout has nothing else.
func TestMCP(t *testing.T) {
	s := launch(t)
	p := troupeCmd(t, []string{"TROUPE_SERVER=" + s.url, "HOME=" + t.TempDir()}, "mcp")
	p.cmd.Stdout = nil
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.start()
	lines := bufio.NewScanner(out)
	ask := func(request string) (result map[string]any) {
		t.Helper()
		fmt.Fprintln(in, request)
		if !lines.Scan() {
			t.Fatal("troupe mcp ended")
		}
		var answer struct{ Result map[string]any }
		if err := json.Unmarshal(lines.Bytes(), &answer); err != nil || answer.Result == nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		return answer.Result
	}
	hello := ask(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",` +
		`"capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`)
	if caps := fmt.Sprint(hello["capabilities"]); strings.Contains(caps, "logging") || !strings.Contains(caps, "tools") {
		t.Errorf("capabilities %v", caps)
	}
	fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	result := ask(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"exec","arguments":{"command":"echo hi"}}}`)
	if got := fmt.Sprint(result["content"]); !strings.Contains(got, "exit code 0") || !strings.Contains(got, "hi\n") {
		t.Errorf("%v", result)
	}
	_ = in.Close()
	if lines.Scan() {
		t.Errorf("stdout has %q", lines.Text())
	}
	if code := p.exit(); code != 0 || p.stderr.String() != "" {
		t.Errorf("exit code %d, stderr %q", code, p.stderr.String())
	}
}
