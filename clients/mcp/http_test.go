//go:build linux

package mcp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// bearer sends a token with each request, and can cut all that are under way.
type bearer struct {
	token string
	http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.RoundTripper.RoundTrip(r)
}

// visit connects a client to /mcp.
func visit(t testing.TB, listen, token string, opt *sdk.ClientOptions) *agent {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, opt)
	s, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{
		Endpoint: "http://" + listen + "/mcp", MaxRetries: -1,
		HTTPClient: &http.Client{Transport: bearer{token, transport}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &agent{t, s}
}

func TestHTTP(t *testing.T) {
	var told atomic.Int64
	a := visit(t, launch(t), "", &sdk.ClientOptions{
		ProgressNotificationHandler: func(context.Context, *sdk.ProgressNotificationClientRequest) { told.Add(1) },
	})
	if got := a.refused("exec", args{"command": "true"}); !strings.Contains(got, "session") {
		t.Errorf("without a session: %q", got)
	}
	s, _ := a.call("open_session", args{"name": "test"})
	out, text := a.call("exec", args{"session": s["session"], "command": "echo hi; sleep 0.3; exit 4", "yield_ms": 100})
	if out["state"] != "running" {
		t.Errorf("%s", text)
	}
	out, _ = a.call("wait", args{"session": s["session"], "execution": out["execution"]})
	if out["exit_code"] != 4.0 || out["output"] != "hi\n" {
		t.Errorf("%v", out)
	}
	if got := a.refused("open_session", args{"name": "Not a name"}); !strings.Contains(got, "a-z") {
		t.Error(got)
	}
}

// TestHTTPWaitsLongerThanAnAnswerMay: the server's time limits for requests do not end a call.
func TestHTTPWaitsLongerThanAnAnswerMay(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 17 s")
	}
	t.Parallel()
	messages := make(chan string, 10)
	a := visit(t, launch(t), "", &sdk.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) {
			messages <- r.Params.Message
		},
	})
	s, _ := a.call("open_session", nil)
	params := &sdk.CallToolParams{Name: "exec", Arguments: args{
		"session": s["session"], "command": "echo begun; sleep 16; echo done", "yield_ms": 30_000,
	}}
	params.SetProgressToken("p")
	res, err := a.CallTool(t.Context(), params)
	if err != nil || !strings.Contains(textOf(res), "begun\ndone\n") {
		t.Fatalf("%v %v", res, err)
	}
	if m := <-messages; m != "10s, 6 bytes: begun" {
		t.Errorf("progress %q", m)
	}
}

// TestHTTPAccess: /mcp has the rules of /ws for tokens and Origins, and one subject's sessions are
// not another's.
func TestHTTPAccess(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("alice alice-token-alice-token\nbob bob-token-bob-token-bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := launch(t, "--auth", "token", "--token-file", tokens)
	post := func(header ...string) (int, http.Header) {
		r, _ := http.NewRequest(http.MethodPost, "http://"+listen+"/mcp", strings.NewReader(
			`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	const good = "Bearer alice-token-alice-token"
	if status, h := post(); status != 401 || h.Get("WWW-Authenticate") == "" {
		t.Errorf("no token: %d %v", status, h)
	}
	if status, _ := post("Authorization", "Bearer wrong"); status != 401 {
		t.Errorf("wrong token: %d", status)
	}
	if status, _ := post("Authorization", good, "Origin", "https://evil.example"); status != 403 {
		t.Errorf("another origin: %d", status)
	}
	if status, _ := post("Authorization", good, "Origin", "http://"+listen); status != 200 {
		t.Errorf("the same origin: %d", status)
	}
	http.DefaultClient.CloseIdleConnections()

	alice := visit(t, listen, "alice-token-alice-token", nil)
	bob := visit(t, listen, "bob-token-bob-token-bob", nil)
	s, _ := alice.call("open_session", nil)
	in := args{"session": s["session"], "command": "echo hi"}
	alice.call("exec", in)
	if got := bob.refused("exec", in); !strings.Contains(got, "no session") {
		t.Errorf("bob in alice's session: %q", got)
	}
	began := time.Now()
	alice.call("close_session", args{"session": s["session"]})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
}

// fleet starts two trouped that are peers, and returns their addresses.
func fleet(t *testing.T) (pods [2]string) {
	t.Helper()
	var peers [2]string
	for i := range peers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peers[i] = l.Addr().String()
		_ = l.Close()
	}
	for i := range pods {
		pods[i] = launch(t, "--pod", fmt.Sprint("pod-", i), "--peer-listen", peers[i], "--peer-insecure",
			"--peers", fmt.Sprintf("pod-0=%s,pod-1=%s", peers[0], peers[1]))
	}
	return pods
}

// TestAnyPodServesAnyHandle: a call that is cut by the network leaves its command running, which is
// found again on another pod.
func TestAnyPodServesAnyHandle(t *testing.T) {
	pods := fleet(t)
	one, two := visit(t, pods[0], "", nil), visit(t, pods[1], "", nil)
	s, _ := one.call("open_session", nil)
	in := args{
		"session": s["session"], "execution_id": "build", "command": "echo begun; sleep 1; echo built > result; echo done",
		"yield_ms": 60_000,
	}
	ctx, cut := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cut()
	if _, err := one.CallTool(ctx, &sdk.CallToolParams{Name: "exec", Arguments: in}); err == nil {
		t.Fatal("the call was not cut")
	}
	var out map[string]any
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the pods have to meet first
		res := two.try("wait", args{"session": s["session"], "execution": "build", "offset": 0})
		if !res.IsError {
			out = res.StructuredContent.(map[string]any)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(textOf(res))
		}
	}
	if out["state"] != "exited" || out["output"] != "begun\ndone\n" {
		t.Errorf("%v", out)
	}
	if out, _ := two.call("exec", in); out["output"] != "begun\ndone\n" {
		t.Errorf("a retry on the other pod: %v", out)
	}
	if f, _ := two.call("read_file", args{"session": s["session"], "path": "result"}); f["content"] != "built\n" {
		t.Errorf("%v", f)
	}
	if l, _ := two.call("list", args{"session": s["session"]}); len(l["executions"].([]any)) != 1 || l["pod"] != "pod-0" {
		t.Errorf("%v", l)
	}
	two.call("close_session", args{"session": s["session"]})
	if got := one.refused("list", args{"session": s["session"]}); !strings.Contains(got, "open_session") {
		t.Error(got)
	}
}

// TestProtectedResourceMetadata: an agent without a token learns where to get one, if trouped was told.
func TestProtectedResourceMetadata(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("alice alice-token-alice-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := launch(t, "--auth", "token", "--token-file", tokens, "--mcp-resource", "https://troupe.example.com/mcp",
		"--authorization-servers", "https://id.example.com")
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Post("http://"+listen+"/mcp", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	const challenge = `Bearer realm="troupe", resource_metadata="https://troupe.example.com/.well-known/oauth-protected-resource/mcp"`
	if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != http.StatusUnauthorized || got != challenge {
		t.Errorf("%d, challenge %s", resp.StatusCode, got)
	}
	for _, path := range []string{"", "/mcp"} {
		resp, err := http.Get("http://" + listen + "/.well-known/oauth-protected-resource" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := `{"authorization_servers":["https://id.example.com"],"bearer_methods_supported":["header"],` +
			`"resource":"https://troupe.example.com/mcp"}`; string(body) != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}
