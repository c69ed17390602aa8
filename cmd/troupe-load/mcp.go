package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// measureMCP compares a call of the tool exec over HTTP with a plain execute of the same command through the client
// package, in alternation, each over a connection that is open.
func measureMCP(ctx context.Context, e *env) error {
	s, err := e.start()
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	agent := &toolCaller{url: strings.TrimSuffix("http"+strings.TrimPrefix(s.ws, "ws"), "/ws") + "/mcp"}
	defer agent.http.CloseIdleConnections()
	opened, err := agent.call(ctx, "open_session", map[string]any{})
	if err != nil {
		return err
	}
	arguments := map[string]any{"session": opened["session"], "argv": []string{"/bin/true"}}
	rounds := 300
	if e.quick {
		rounds = 5
	}
	var plain, tool samples
	for i := range rounds + 20 { // the first warm connections and caches
		began := time.Now()
		if err := runTrue(ctx, c); err != nil {
			return err
		}
		middle := time.Now()
		out, err := agent.call(ctx, "exec", arguments)
		if err != nil {
			return err
		}
		if out["state"] != "exited" {
			return fmt.Errorf("exec has ended with %v", out)
		}
		if i >= 20 {
			plain, tool = append(plain, middle.Sub(began)), append(tool, time.Since(middle))
		}
	}
	more := tool.median() - plain.median()
	report("execute of /bin/true through the client package, median", ms(plain.median()), "", true)
	report("the tool exec over HTTP, median", ms(tool.median()), "", true)
	report("what the tool takes more", ms(more), "<= 1 ms", more <= time.Millisecond)
	return nil
}

// toolCaller calls the tools of /mcp.
type toolCaller struct {
	http http.Client
	url  string
}

func (a *toolCaller) call(ctx context.Context, tool string, arguments map[string]any) (map[string]any, error) {
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": tool, "arguments": arguments},
	})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := a.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Result struct {
			IsError           bool
			StructuredContent map[string]any
		}
	}
	_, data, _ := strings.Cut(string(text), "data: ") // the answer is the only event
	err = json.Unmarshal([]byte(data), &answer)
	if err != nil || answer.Result.IsError || answer.Result.StructuredContent == nil {
		return nil, fmt.Errorf("%s: %s: %s", tool, resp.Status, text)
	}
	return answer.Result.StructuredContent, nil
}
