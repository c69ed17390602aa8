package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// tool calls a tool of /mcp through the ingress, each time over a connection of its own.
func (r *release) tool(ctx context.Context, name string, arguments map[string]any) (map[string]any, error) {
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": name, "arguments": arguments},
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.host+"/mcp", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := httpClient(throughIngress).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // the status is the error
		return nil, fmt.Errorf("%s: %s", resp.Status, b)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data := strings.TrimPrefix(lines.Text(), "data: ") // of an event; or the whole answer
		var answer struct {
			Error  *wire.Error
			Result *struct {
				IsError           bool
				StructuredContent map[string]any
				Content           []struct{ Text string }
			}
		}
		switch err := json.Unmarshal([]byte(data), &answer); {
		case err != nil || answer.Result == nil && answer.Error == nil:
		case answer.Error != nil:
			return nil, answer.Error
		case answer.Result.IsError:
			return nil, fmt.Errorf("%s: %s", name, compact(answer.Result.Content))
		default:
			return answer.Result.StructuredContent, nil
		}
	}
	return nil, errors.Join(errors.New("the answer broke off"), lines.Err())
}

// TestAgentsGoOnWhilePodsAreRolled: an agent whose requests come to any of three pods starts a command, and follows
// it by its id and the offset while all of them are replaced. Protects from: an endpoint that needs affinity, and
// handles that live in a pod's memory.
func TestAgentsGoOnWhilePodsAreRolled(t *testing.T) {
	t.Parallel()
	const values = "replicaCount: 3\ndrain: {timeoutSeconds: 90}"
	r := install(t, "agents", values)
	before := r.readyPods(t, replicas)
	call := func(name string, arguments map[string]any) map[string]any {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), commandBound)
		defer cancel()
		out, err := r.tool(ctx, name, arguments)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return out
	}
	session := call("open_session", map[string]any{"name": "rolled"})
	about := func(more map[string]any) map[string]any {
		more["session"], more["execution"] = session["session"], "build"
		return more
	}
	started := call("exec", map[string]any{
		"session": session["session"], "execution_id": "build", "keep_stdin": true, "yield_ms": 0,
		"command": `(i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done) & read x; kill $!; echo "told: $x"`,
	})
	if started["state"] != "running" {
		t.Fatalf("the command is %v", started)
	}

	rolled := make(chan error, 1)
	go func() {
		rolled <- r.upgrade(t.Context(), values, fmt.Sprintf("podAnnotations: {e2e.troupe.dev/rollout: %q}", time.Now()))
	}()
	var output strings.Builder
	offset, calls, cuts := 0.0, 0, 0
	follow := func() (state any) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), commandBound)
		defer cancel()
		out, err := r.tool(ctx, "wait", about(map[string]any{"offset": offset, "yield_ms": 300}))
		if calls++; err != nil { // it is repeated, from the same offset
			cuts++
			t.Logf("call %d was cut: %v", calls, err)
			return nil
		}
		if out["offset"] != offset || out["omitted"] != nil {
			t.Fatalf("output from %v on, want %v; omitted %v", out["offset"], offset, out["omitted"])
		}
		fmt.Fprint(&output, out["output"])
		offset, _ = out["next_offset"].(float64)
		return out["state"]
	}
	for pending := true; pending; {
		select {
		case err := <-rolled:
			if err != nil {
				t.Fatal(err)
			}
			pending = false
		default:
			follow()
		}
	}
	for i := range before {
		if before[i].Name != session["pod"] { // which drains, since the command runs
			gone(t, &before[i])
		}
	}
	if l := call("list", map[string]any{"session": session["session"]}); l["pod"] != session["pod"] {
		t.Errorf("the session is on %v, was on %v", l["pod"], session["pod"])
	}
	call("write_stdin", about(map[string]any{"text": "enough\n", "yield_ms": 0}))
	eventually(t, commandBound, "the end of the command", func(context.Context) error {
		if state := follow(); state != "exited" {
			return fmt.Errorf("it is %v", state)
		}
		return nil
	})
	t.Logf("%d calls while the pods were replaced, of which %d were cut", calls, cuts)
	if cuts > 3 {
		t.Errorf("%d of %d calls were cut", cuts, calls)
	}
	lines := strings.Split(strings.TrimSuffix(output.String(), "\n"), "\n")
	if last := lines[len(lines)-1]; last != "told: enough" || len(lines) < 50 {
		t.Errorf("%d lines, the last is %q", len(lines), last)
	}
	for i, line := range lines[:len(lines)-1] {
		if want := fmt.Sprintf("line %d", i+1); line != want {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
}

// TestOperatorSeesAllPodsThroughTheIngress: with one pod that stands still the listing comes within 2 s, has what the
// others hold, and names that pod; the operator ends a session and does not see what runs in it.
func TestOperatorSeesAllPodsThroughTheIngress(t *testing.T) {
	needNodes(t)
	t.Parallel()
	r := newRelease("operators")
	t.Cleanup(func() { r.cleanUp(t) })
	values := fmt.Sprintf(`
replicaCount: %d
auth:
  mode: kubernetes
  kubernetes:
    grantTo: [{kind: ServiceAccount, name: alice, namespace: %[2]s}]
    operators: [{kind: ServiceAccount, name: olga, namespace: %[2]s}]
`, replicas, r.namespace)
	if err := r.create(t.Context(), values); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alice", "olga"} {
		account(t, r.namespace, name)
	}
	alice, olga := r.as(t, "alice"), accountToken(t, r.namespace, "olga", "troupe")
	pods := r.readyPods(t, replicas)
	for i := range pods {
		opt := r.optionsTo(&pods[i])
		opt.Token = alice.Token
		execution := start(t, r.dialWith(t, opt), wire.ExecuteParams{Command: "echo ready; exec sleep 1000"})
		execution.Discard() // a session waits for its clients to take the end of what they follow
	}
	list := r.listing(t, olga)
	if len(list.Sessions) != replicas || len(list.Missing) != 0 {
		t.Fatalf("%d sessions, missing %v", len(list.Sessions), list.Missing)
	}
	for _, s := range list.Sessions {
		if !strings.HasSuffix(s.Subject, ":alice") || len(s.Executions) != 1 || s.Executions[0].Command != "" {
			t.Errorf("the operator sees %s", compact(s))
		}
	}

	server := containerProcess(t, &pods[0], "/trouped", "--config")
	server.signal(t, "STOP")
	list = r.listing(t, olga)
	server.signal(t, "CONT")
	if len(list.Sessions) != replicas-1 || len(list.Missing) != 1 || list.Missing[0].Pod != pods[0].Name {
		t.Errorf("without %s: %d sessions, missing %v", pods[0].Name, len(list.Sessions), list.Missing)
	}
	r.readyPods(t, replicas)
	victim := list.Sessions[0].ID
	if status, body := r.ask(t, http.MethodDelete, "/api/v1/sessions/"+victim, olga); status != http.StatusAccepted {
		t.Errorf("%d %s", status, body)
	}
	eventually(t, time.Minute, "the session's end", func(context.Context) error {
		if status, body := r.ask(t, http.MethodGet, "/api/v1/sessions/"+victim, olga); status != http.StatusNotFound {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	output := "/api/v1/sessions/" + list.Sessions[1].ID + "/executions/" + list.Sessions[1].Executions[0].ID + "/output"
	if status, body := r.ask(t, http.MethodGet, output, olga); status != http.StatusForbidden {
		t.Errorf("the operator reads output: %d %s", status, body)
	}
}

// listing returns everybody's sessions. The ingress may choose a pod that stands still: then it asks again.
func (r *release) listing(t *testing.T, token string) *wire.SessionList {
	t.Helper()
	list := new(wire.SessionList)
	eventually(t, commandBound, "a listing", func(context.Context) error {
		began := time.Now()
		status, body := r.ask(t, http.MethodGet, "/api/v1/sessions", token)
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the listing took %s", took)
		}
		*list = wire.SessionList{}
		return json.Unmarshal([]byte(body), list)
	})
	return list
}

// ask sends a request to the API through the ingress. The status is 0 if no answer comes.
func (r *release) ask(t *testing.T, method, path, token string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := httpClient(throughIngress).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
