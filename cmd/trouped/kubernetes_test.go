package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// cluster answers a trouped as an API server would, or does not: these tests are
// about what trouped makes of it. A real one is asked in e2e/k8s.
type cluster struct {
	t      *testing.T
	server *httptest.Server
	dir    string // of the service account

	mu       sync.Mutex
	answer   http.HandlerFunc
	requests []string // method, path and body
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), answer: knows}
	c.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.requests = append(c.requests, r.Method+" "+r.URL.Path+" "+string(body))
		answer := c.answer
		c.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer(w, r)
	}))
	t.Cleanup(c.server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	for name, content := range map[string]string{"token": "own", "ca.crt": string(ca), "namespace": "tests"} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// knows accepts tokens "good:NAME", and lets everybody but nobody open sessions.
func knows(w http.ResponseWriter, r *http.Request) {
	var object map[string]any
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
		panic(err)
	}
	switch spec, _ := object["spec"].(map[string]any); path.Base(r.URL.Path) {
	case "tokenreviews":
		name, ok := strings.CutPrefix(fmt.Sprint(spec["token"]), "good:")
		object["status"] = map[string]any{
			"authenticated": ok, "audiences": spec["audiences"],
			"user": map[string]any{"username": name},
		}
	case "subjectaccessreviews":
		object["status"] = map[string]any{"allowed": spec["user"] != "nobody"}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}

func (c *cluster) become(answer http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// in makes a process believe that it is in a pod of the cluster.
func (c *cluster) in(cmd *exec.Cmd) {
	u, _ := url.Parse(c.server.URL)
	host, port, _ := net.SplitHostPort(u.Host)
	cmd.Env = append(cmd.Env, "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port,
		"TROUPED_TEST_ACCOUNT="+c.dir, "TROUPE_POD=troupe-0", "TROUPE_POD_UID=3f7a")
}

// told waits for a request with all of the texts.
func (c *cluster) told(texts ...string) {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c.mu.Lock()
		all := slices.Clone(c.requests)
		c.mu.Unlock()
		if slices.ContainsFunc(all, func(request string) bool {
			return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(request, text) })
		}) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no request with %q among:\n%s", texts, strings.Join(all, "\n"))
		}
		time.Sleep(5 * time.Millisecond) // a poll, bounded by the deadline
	}
}

func unavailable(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "etcd is gone", http.StatusServiceUnavailable)
}

func forbidden(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"%s is forbidden"}`, path.Base(r.URL.Path))
}

// TestClusterDecidesWhoMayConnect: each answer of the API server becomes the HTTP
// status that says the same.
func TestClusterDecidesWhoMayConnect(t *testing.T) {
	cluster := newCluster(t)
	s := launchWith(t, func(cmd *exec.Cmd) {
		cluster.in(cmd)
		fixed{NoAuthCache: true}.with(t)(cmd)
	}, "--auth", "kubernetes", "--auth-audience", "us")
	dial := func(token string) (*troupe.Client, int, string) {
		t.Helper()
		c, err := troupe.Dial(t.Context(), s.ws, troupe.Options{Token: token})
		var refused *troupe.HandshakeError
		switch {
		case err == nil:
			return c, http.StatusSwitchingProtocols, ""
		case errors.As(err, &refused):
			return nil, refused.StatusCode, refused.Body
		default:
			t.Fatal(err)
			return nil, 0, ""
		}
	}
	c, code, body := dial("good:system:serviceaccount:tests:ann")
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("a good token: %d %s", code, body)
	}
	cluster.told("tokenreviews", `"audiences":["us"]`)
	cluster.told("subjectaccessreviews", `"namespace":"tests"`, `"group":"troupe.dev"`, `"resource":"sessions"`,
		`"verb":"create"`)
	if done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "true"}, io.Discard, io.Discard); err != nil ||
		done.ExitCode != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, x := range []struct {
		name, token, want string
		code              int
		answer            http.HandlerFunc
	}{
		{"no token", "", "a bearer token is required", 401, knows},
		{"a bad token", "bad", "the bearer token is not valid", 401, knows},
		{"no permission", "good:nobody", "nobody may not create sessions.troupe.dev in the namespace tests", 403, knows},
		{"API server down", "good:ann", "authentication is unavailable", 503, unavailable},
		{"trouped may not ask", "good:ann", "authentication is unavailable", 503, forbidden},
	} {
		cluster.become(x.answer)
		if _, code, body := dial(x.token); code != x.code || !strings.Contains(body, x.want) {
			t.Errorf("%s: %d %s, want %d with %q", x.name, code, body, x.code, x.want)
		}
	}
	_, metrics := s.get(s.admin + "/metrics")
	for _, line := range []string{
		`troupe_kubernetes_failures_total{operation="tokenreview"} 2`,
		`troupe_kubernetes_request_seconds_count{operation="subjectaccessreview"} 2`,
		`troupe_auth_failures_total{kind="unavailable"} 2`, `troupe_auth_failures_total{kind="forbidden"} 1`,
	} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, secret := range []string{"good:", "Bearer"} {
		if strings.Contains(s.stderr.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if !strings.Contains(s.stderr.String(), `"msg":"audit","subject":"system:serviceaccount:tests:ann"`) {
		t.Error("the audit log does not name the service account")
	}
}

// TestPodTellsTheCluster of its sessions and of what happens to it, to the last Event.
func TestPodTellsTheCluster(t *testing.T) {
	cluster := newCluster(t)
	s := launchWith(t, cluster.in, "--max-sessions", "1")
	const patch, events = "PATCH /api/v1/namespaces/tests/pods/troupe-0 ", "POST /api/v1/namespaces/tests/events "
	cluster.told(patch, `"controller.kubernetes.io/pod-deletion-cost":"0"`, `"troupe.dev/sessions":"0"`)
	c := s.dial()
	cluster.told(patch, `"controller.kubernetes.io/pod-deletion-cost":"1"`, `"troupe.dev/sessions":"1"`)
	if _, err := troupe.Dial(t.Context(), s.ws, troupe.Options{}); err == nil {
		t.Fatal("a second session of one")
	}
	cluster.told(events, `"reason":"SessionLimitReached"`, `"uid":"3f7a"`, "--max-sessions is 1")
	if err := syscall.Kill(s.runner, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cluster.told(events, `"reason":"RunnerLost"`)
	cluster.told(events, `"reason":"RunnerConnected"`)
	x := execute(t, c, "echo; sleep 0.1")
	s.signal(syscall.SIGTERM)
	cluster.told(events, `"reason":"Draining"`, "open: 1, with 1 executions running, which may finish for 300s")
	completed(t, x) // until its client has the end, a session stays
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	cluster.told(events, `"reason":"Drained"`)
	if strings.Contains(s.stderr.String(), `"level":"WARN"`) {
		t.Error("there were warnings")
	}
}

// TestClusterOutOfOrder: a cluster that does not answer, or refuses everything, costs
// nothing: commands run, the drain ends, and there is one warning for each kind of report.
func TestClusterOutOfOrder(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"refuses": forbidden,
		"fails":   unavailable,
		"hangs":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t)
			cluster.become(answer)
			s := launchWith(t, cluster.in, "--max-sessions", "1")
			cluster.told("PATCH")
			c := s.dial()
			for range 3 {
				if _, err := troupe.Dial(t.Context(), s.ws, troupe.Options{}); err == nil {
					t.Fatal("a second session of one")
				}
			}
			cluster.told("POST")
			e := execute(t, c, "echo; sleep 0.1; echo done")
			s.signal(syscall.SIGTERM)
			if done := completed(t, e); done.ExitCode != 0 {
				t.Errorf("completed with %+v", done)
			}
			if code := s.exit(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if n := strings.Count(s.stderr.String(), `"level":"WARN"`); n > 2 || name != "hangs" && n != 2 {
				t.Errorf("%d warnings", n)
			}
			s.leftNothing()
		})
	}
}

// TestNoReports: trouped reports nothing without a cluster, or without being asked to.
func TestNoReports(t *testing.T) {
	cluster := newCluster(t)
	for name, prepare := range map[string]func(*exec.Cmd){
		"off":            func(cmd *exec.Cmd) { cluster.in(cmd); cmd.Args = append(cmd.Args, "--kubernetes", "off") },
		"no account":     func(cmd *exec.Cmd) { cluster.in(cmd); cmd.Env = append(cmd.Env, "TROUPED_TEST_ACCOUNT=/nonexistent") },
		"not in cluster": func(*exec.Cmd) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := launchWith(t, prepare)
			s.signal(syscall.SIGTERM)
			if code := s.exit(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if strings.Contains(s.stderr.String(), `"level":"WARN"`) {
				t.Error("there were warnings")
			}
		})
	}
	if len(cluster.requests) > 0 {
		t.Errorf("the cluster heard %v", cluster.requests)
	}
}

// TestClusterIsMissing: exit code 2, and one line that names what is not there.
func TestClusterIsMissing(t *testing.T) {
	cluster := newCluster(t)
	without := func(name string) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(cluster.dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			cluster.in(cmd)
			cmd.Env = append(cmd.Env, "TROUPED_TEST_ACCOUNT="+dir)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(*exec.Cmd)
		code    int
		want    string
	}{
		{
			"variables", func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "KUBERNETES_SERVICE_HOST=") }, exitUsage,
			"KUBERNETES_SERVICE_HOST",
		},
		{"token", without("token"), exitUsage, "/token: no such file"},
		{"authority", without("ca.crt"), exitUsage, "/ca.crt: no such file"},
		{"namespace", without("namespace"), exitUsage, "needs --namespace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			program, started := marker(t)
			cmd := trouped(t, "--auth", "kubernetes", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
				"--data-dir", filepath.Join(t.TempDir(), "data"), "--runner-binary", program)
			c.prepare(cmd)
			out, err := cmd.CombinedOutput()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != c.code {
				t.Errorf("ended with %v, want exit status %d", err, c.code)
			}
			line := strings.TrimSuffix(string(out), "\n")
			if !strings.HasPrefix(line, "trouped: --auth kubernetes") || !strings.Contains(line, c.want) ||
				strings.Contains(line, "\n") {
				t.Errorf("output is %q, want one line with %q", out, c.want)
			}
			if _, err := os.Lstat(started); err == nil {
				t.Error("the runner was started")
			}
		})
	}
}

func TestKubernetesSettingsAreChecked(t *testing.T) {
	for args, want := range map[string]string{
		"--auth kubernetes --listen :1":      "",
		"--auth kubernetes --token-file f":   "--token-file has no effect with --auth kubernetes",
		"--auth kubernetes --auth-audience=": "--auth-audience must name",
		"--namespace Troupe":                 "--namespace must be",
		"--namespace troupe-1":               "",
		"--kubernetes on":                    "is not one of auto, off",
		"--kubernetes off --auth kubernetes": "",
	} {
		_, err := parse(strings.Fields(args)...)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
