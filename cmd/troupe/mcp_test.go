//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
)

// mcpProgram is a `troupe mcp` that a test talks to.
type mcpProgram struct {
	*program
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startMCP(t *testing.T, url string) *mcpProgram {
	t.Helper()
	p := troupeCmd(t, []string{"TROUPE_SERVER=" + url, "HOME=" + t.TempDir()}, "mcp")
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
	m := &mcpProgram{p, in, bufio.NewScanner(out)}
	hello := m.ask(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",` +
		`"capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`)
	if caps := fmt.Sprint(hello["capabilities"]); strings.Contains(caps, "logging") || !strings.Contains(caps, "tools") {
		t.Errorf("capabilities %v", caps)
	}
	fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return m
}

func (m *mcpProgram) ask(request string) map[string]any {
	m.t.Helper()
	fmt.Fprintln(m.in, request)
	if !m.lines.Scan() {
		m.t.Fatal("troupe mcp ended")
	}
	var answer struct{ Result map[string]any }
	if err := json.Unmarshal(m.lines.Bytes(), &answer); err != nil || answer.Result == nil {
		m.t.Fatalf("%s: %v", m.lines.Bytes(), err)
	}
	return answer.Result
}

// call calls a tool and returns what a model reads.
func (m *mcpProgram) call(tool, arguments string) string {
	m.t.Helper()
	result := m.ask(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + arguments + `}}`)
	return fmt.Sprint(result["content"])
}

// end closes stdin, and checks that the program ends without having said anything else.
func (m *mcpProgram) end() {
	m.t.Helper()
	_ = m.in.Close()
	if m.lines.Scan() {
		m.t.Errorf("stdout has %q", m.lines.Text())
	}
	if code := m.exit(); code != 0 || m.stderr.String() != "" {
		m.t.Errorf("exit code %d, stderr %q", code, m.stderr.String())
	}
}

// TestMCP: an agent starts `troupe mcp` and talks to it over pipes, one JSON message to a line; it ends
// with its stdin, and its stdout has nothing else. Its commands go on, and the next run finds them.
func TestMCP(t *testing.T) {
	s := launch(t)
	first := startMCP(t, s.url)
	got := first.call("exec", `{"command":"echo hi; sleep 1; echo ho","execution_id":"x","yield_ms":200}`)
	session := regexp.MustCompile(`session ([^ ,]+), execution x`).FindStringSubmatch(got)
	if !strings.Contains(got, "running after") || !strings.Contains(got, "hi\n") || session == nil {
		t.Fatal(got)
	}
	first.end()
	second := startMCP(t, s.url)
	got = second.call("wait", `{"session":"`+session[1]+`","execution":"x","offset":0}`)
	if !strings.Contains(got, "exit code 0") || !strings.Contains(got, "hi\nho\n") {
		t.Error(got)
	}
	if got := second.call("list", `{"session":"`+session[1]+`x"}`); !strings.Contains(got, "open_session") {
		t.Error(got)
	}
	second.end()
}
