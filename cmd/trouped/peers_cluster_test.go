package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

func TestPeerServiceSettingsAreChecked(t *testing.T) {
	const whole = "--peer-listen :9400 --peer-cert c --peer-key k --peer-ca a "
	for args, want := range map[string]string{
		whole + "--peer-service troupe-peers":                                    "",
		"--peer-service troupe-peers":                                            "--peer-listen must name",
		whole + "--peer-service troupe-peers --peers a=10.0.0.1:1":               "--peer-service contradicts --peers",
		whole + "--peer-service Troupe":                                          "--peer-service must be the name of a Service",
		whole + "--peer-service a,b=c":                                           "--peer-service must be the name of a Service",
		"--peer-listen 127.0.0.1:1 --peer-insecure --peer-service troupe-peers":  "--peer-service contradicts --peer-insecure",
		"--peer-listen 127.0.0.1:1 --peer-insecure --peers a=127.0.0.1:1":        "",
		"--peer-listen :9400 --peer-service troupe-peers --kubernetes off":       "--peer-cert, --peer-key and --peer-ca are needed",
		whole + "--peer-service troupe-peers --kubernetes off --auth kubernetes": "",
	} {
		_, err := parse(strings.Fields(args)...)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// peerServiceArgs are those of a pod of a Service.
func peerServiceArgs(t *testing.T) []string {
	t.Helper()
	files := sign(t, newAuthority(t), t.TempDir(), peers.CertName)
	return []string{
		"--peer-service", "troupe-peers", "--peer-listen", peerAddrs(1)[0],
		"--peer-cert", files.Cert, "--peer-key", files.Key, "--peer-ca", files.CA,
	}
}

// TestPeerServiceOutOfOrder: an API server that refuses, fails or hangs from the start keeps no pod
// from serving its own sessions. A client that asks for a session of another pod gets its answer
// within the time that it waits before it comes again: the session may live.
func TestPeerServiceOutOfOrder(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"refuses": forbidden,
		"fails":   unavailable,
		"hangs":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"garbage": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newCluster(t)
			cluster.become(answer)
			s := launchWith(t, cluster.in, append(peerServiceArgs(t), "--kubernetes", "off")...)
			cluster.told("GET /apis/discovery.k8s.io/v1/namespaces/tests/endpointslices")
			c := s.dial()
			if done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "exit 4"}, io.Discard, io.Discard); err != nil ||
				done.ExitCode != 4 {
				t.Errorf("a command ended with %+v, %v", done, err)
			}
			session := c.Detach()
			if c, err := troupe.Attach(t.Context(), s.ws, session.ID, session.ResumeToken, nil, troupe.Options{}); err != nil {
				t.Errorf("its own session: %v", err)
			} else if err := c.Close(); err != nil {
				t.Error(err)
			}
			began := time.Now()
			_, err := troupe.Attach(t.Context(), s.ws, "troupe-9."+strings.Repeat("0", 32), "token", nil, troupe.Options{})
			if refused := new(wire.Error); !errors.As(err, &refused) || refused.Code != wire.CodeInternal ||
				refused.Data == nil ||
				refused.Data.RetryAfterSeconds == 0 || time.Since(began) > 30*time.Second {
				t.Errorf("somebody's session: %v after %v", err, time.Since(began))
			}
			if n := s.metric("troupe_kubernetes_following"); n != 0 {
				t.Errorf("troupe_kubernetes_following is %v", n)
			}
			if n := s.metric(`troupe_kubernetes_failures_total{operation="list"}`); name != "hangs" && n == 0 {
				t.Error("no failure was counted")
			}
			s.signal(syscall.SIGTERM)
			if code := s.exit(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if n := strings.Count(s.stderr.String(), `"level":"WARN"`); n > 1 || name != "hangs" && n != 1 {
				t.Errorf("%d warnings", n)
			}
			s.leftNothing()
		})
	}
}

// TestPeerServiceNeedsACluster: exit code 2, and one line that names what is missing.
func TestPeerServiceNeedsACluster(t *testing.T) {
	cluster := newCluster(t)
	for name, c := range map[string]struct {
		prepare func(*exec.Cmd)
		want    string
	}{
		"no cluster": {
			func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "KUBERNETES_SERVICE_HOST=") },
			"KUBERNETES_SERVICE_HOST",
		},
		"no account": {func(cmd *exec.Cmd) {
			cluster.in(cmd)
			cmd.Env = append(cmd.Env, "TROUPED_TEST_ACCOUNT=/nonexistent")
		}, path.Join("/nonexistent", "token")},
	} {
		cmd := trouped(t, append(peerServiceArgs(t), "--listen", "127.0.0.1:0", "--admin-listen", "", "--data-dir",
			filepath.Join(t.TempDir(), "data"))...)
		c.prepare(cmd)
		out, err := cmd.CombinedOutput()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
			t.Errorf("%s: ended with %v", name, err)
		}
		line := strings.TrimSuffix(string(out), "\n")
		if !strings.HasPrefix(line, "trouped: --peer-service troupe-peers: ") || !strings.Contains(line, c.want) ||
			strings.Contains(line, "\n") {
			t.Errorf("%s: output is %q, want one line with %q", name, out, c.want)
		}
	}
}
