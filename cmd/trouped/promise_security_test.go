package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// nobody is an ordinary user. For root there is no protection from root.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// shared makes a directory that nobody owns, with copies of this binary and the
// runner: those of the tests are where only their user may go.
func shared(t *testing.T) (dir, own, runner string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to become another user")
	}
	dir, err := os.MkdirTemp("", "trouped-shared-") //nolint:usetesting // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errorsOf(os.Chmod(dir, 0o755), os.Chown(dir, int(nobody.Uid), int(nobody.Gid))); err != nil {
		t.Fatal(err)
	}
	binary, err := runnerBinary()
	if err != nil {
		t.Fatal(err)
	}
	own, runner = filepath.Join(dir, "trouped"), filepath.Join(dir, "troupe-runner")
	for to, from := range map[string]string{own: "/proc/self/exe", runner: binary} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		// Readable on purpose: a binary that is not would protect its process by itself.
		if err := os.WriteFile(to, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, own, runner
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// attackResults runs the attack as a command and returns what it achieved, by victim.
func attackResults(t *testing.T, s *instance, own string) map[string]string {
	t.Helper()
	c := s.dial()
	var out bytes.Buffer
	done, err := c.Run(bounded(t), wire.ExecuteParams{
		Argv: []string{own},
		Env:  map[string]string{"TROUPED_TEST_MAIN": "attack"},
	}, &out, &out)
	if err != nil || done.ExitCode != 0 {
		t.Fatalf("%+v, %v: %s", done, err, &out)
	}
	results := map[string]string{}
	for line := range strings.Lines(out.String()) {
		victim, achieved, _ := strings.Cut(strings.TrimSpace(line), ":")
		results[victim] = strings.TrimSpace(achieved)
	}
	return results
}

// TestPromise14CommandsOfTheSameUserAreKeptOut: a command of the same, ordinary user,
// below the real server, reads neither memory nor environment nor descriptors of its
// init, the runner and trouped, and traces none of them. It does all of that to a
// process that is not protected, so it knows how.
func TestPromise14CommandsOfTheSameUserAreKeptOut(t *testing.T) {
	dir, own, runner := shared(t)
	s := launchWith(t, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = own, own
		cmd.SysProcAttr.Credential = nobody
		cmd.Env = append(cmd.Env, "SECRET=hunter2")
	}, "--data-dir", filepath.Join(dir, "data"), "--workdir", dir, "--runner-binary", runner)
	results := attackResults(t, s, own)
	if got, want := results["victim"], "environ maps mem auxv io fd ptrace pidfd_getfd"; got != want {
		t.Errorf("on an unprotected process works %q, want %q", got, want)
	}
	for _, victim := range []string{"init", "runner", "trouped"} {
		if got, there := results[victim]; got != "" || !there {
			t.Errorf("to the %s a command can do: %q (%v)", victim, got, results)
		}
	}
}

// TestPromise14NobodyPosesAsTheRunner: in socket mode there is no socket while there
// are commands, so none can connect in the runner's place, or beside it. The runner
// is the first process of a PID namespace, as it is in a container.
func TestPromise14NobodyPosesAsTheRunner(t *testing.T) {
	dir, own, runner := shared(t)
	container := []string{
		"unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "setpriv", "--reuid", "65534",
		"--regid", "65534", "--clear-groups",
	}
	if out, err := exec.CommandContext(t.Context(), container[0],
		append(container[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no PID namespace to be had: %v %s", err, out)
	}
	sock := filepath.Join(dir, "runner.sock")
	s := launchWith(t, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = own, own
		cmd.SysProcAttr.Credential = nobody
	}, "--data-dir", filepath.Join(dir, "data"), "--workdir", dir, "--runner", "unix://"+sock)
	inContainer := func(cmd *exec.Cmd) {
		path, err := exec.LookPath(container[0])
		if err != nil {
			t.Fatal(err)
		}
		// Not separated: the pretender needs the runner's program and the socket's directory.
		cmd.Path, cmd.Args = path, slices.Concat(container, []string{runner, "--isolation", "none"}, cmd.Args[1:])
	}
	first := startRunner(t, sock, inContainer)
	c := s.dial()
	m := newTrace(t)
	// The pretender dials for as long as it lives.
	pretender := ready(t, c,
		m.argv(fmt.Sprintf(`setsid SLEEP 1000 >/dev/null 2>&1 & echo ready; exec -a %s %s --connect %s`, m.name, runner,
			sock)))
	m.await(2)
	var out bytes.Buffer
	done, err := c.Run(bounded(t), wire.ExecuteParams{Command: "ls -a " + dir}, &out, io.Discard)
	if err != nil || done.ExitCode != 0 || strings.Contains(out.String(), "runner.sock") ||
		!strings.Contains(out.String(), "troupe-runner") {
		t.Errorf("%+v, %v, a command sees %q", done, err, &out)
	}
	inside := children(t, first.Process.Pid)
	if len(inside) != 1 {
		t.Fatalf("the container has %d first processes", len(inside))
	}
	if err := syscall.Kill(inside[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if done := completed(t, pretender); done.Reason != wire.ReasonRunnerLost {
		t.Errorf("%+v", done)
	}
	m.gone()
	startRunner(t, sock, inContainer)
	healthy(t, s)
	c.Detach()
	s.signal(syscall.SIGTERM)
	s.exit()
	if n := strings.Count(s.stderr.String(), `"msg":"runner connected"`); n != 2 {
		t.Errorf("%d runners connected, two were started", n)
	}
}

// TestPromise14Tokens: who has none, a wrong one, a malformed one or comes from a
// foreign page does not get in; and the token that does is in no argv, no
// environment of a command and no log.
func TestPromise14Tokens(t *testing.T) {
	const token, other = "correct-horse-battery-staple", "another-token-of-somebody-else"
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("alice "+token+"\nbob "+other+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, "--auth", "token", "--token-file", file, "--log-level", "debug", "--audit-argv", "full")
	subprotocol := func(token string) string {
		return "troupe.v1, base64url.bearer.authorization.troupe.dev." + base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	for _, c := range []struct {
		name   string
		header http.Header
		status int
	}{
		{"none", http.Header{}, 401},
		{"wrong", http.Header{"Authorization": {"Bearer " + token + "x"}}, 401},
		{"prefix", http.Header{"Authorization": {"Bearer " + token[:20]}}, 401},
		{"another scheme", http.Header{"Authorization": {"Basic " + token}}, 401},
		{"subject instead of token", http.Header{"Authorization": {"Bearer alice"}}, 401},
		{"wrong subprotocol", http.Header{"Sec-Websocket-Protocol": {subprotocol("wrong-wrong-wrong")}}, 401},
		{"token as the only subprotocol", http.Header{"Sec-Websocket-Protocol": {strings.TrimPrefix(subprotocol(token),
			"troupe.v1, ")}}, 401},
		{"foreign page", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"https://evil.example"}}, 403},
		{"header", http.Header{"Authorization": {"Bearer " + token}}, 101},
		{"subprotocol", http.Header{"Sec-Websocket-Protocol": {subprotocol(token)}}, 101},
		{"own page", http.Header{"Authorization": {"Bearer " + token}, "Origin": {s.http}}, 101},
	} {
		for _, path := range []string{"/ws", "/ws/mcp"} {
			sock := knock(t, s, path, c.header)
			status, header, err := sock.hear()
			if err != nil || status != c.status {
				t.Errorf("%s on %s: %d, %v, want %d", c.name, path, status, err, c.status)
			}
			if got := header.Get("Sec-Websocket-Protocol"); strings.Contains(got, "bearer") {
				t.Errorf("%s: the token comes back in %q", c.name, got)
			}
			sock.conn.Close()
		}
	}
	alice, err := troupe.Dial(t.Context(), s.ws, troupe.Options{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	// A session belongs to its subject, whoever has its token.
	if _, err := troupe.Attach(t.Context(), s.ws, alice.ID(), alice.Connected().ResumeToken, nil,
		troupe.Options{Token: other}); err == nil {
		t.Error("bob got alice's session")
	}
	var out bytes.Buffer
	done, err := alice.Run(bounded(t),
		wire.ExecuteParams{Command: "cat /proc/*/cmdline; env; tr '\\0' '\\n' </proc/self/environ; ls -l /proc/self/fd"},
		&out, &out)
	if err != nil || done == nil || !strings.Contains(out.String(), "PATH=") {
		t.Fatalf("%+v, %v", done, err)
	}
	resume := alice.Connected().ResumeToken
	if err := alice.Close(); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	s.exit()
	encoded := base64.RawURLEncoding.EncodeToString([]byte(token))
	for where, text := range map[string]string{"commands": out.String(), "the log": s.stderr.String()} {
		for what, secret := range map[string]string{"token": token, "encoded token": encoded, "resume token": resume} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s is in what %s can see", what, where)
			}
		}
	}
	// What is told to commands on purpose.
	env := strings.ReplaceAll(out.String(), "\nTROUPE_ISOLATION="+isolationSession+"\n", "\n")
	// The command's own script, in what its shell was started with.
	env = regexp.MustCompile(`\nTROUPE_COMMAND=cat [^\n]*`).ReplaceAllString(env, "")
	for _, name := range []string{"TROUPE", "TROUPED_TEST_MAIN", "GORACE"} {
		if strings.Contains(env, "\n"+name) {
			t.Errorf("a command has trouped's variable %s", name)
		}
	}
}

// TestPromise14GreedyExecutionEndsAlone: over --max-memory one execution ends, with
// its whole tree; its neighbours in the same session and in another go on.
func TestPromise14GreedyExecutionEndsAlone(t *testing.T) {
	for _, cgroup := range []string{"auto", "off"} {
		t.Run("cgroup "+cgroup, func(t *testing.T) {
			s := launch(t, "--max-memory", "64MiB", "--cgroup", cgroup)
			c, other := s.dial(), s.dial()
			modest := []*trace{newTrace(t), newTrace(t)}
			ready(t, c, modest[0].argv("echo ready; exec SLEEP 1000"))
			ready(t, other, modest[1].argv("echo ready; exec SLEEP 1000"))
			// Each of four takes less than the limit, all of them more.
			for _, script := range []string{
				`head -c 500000000 /dev/zero | tail >/dev/null; SLEEP 1000`,
				`for i in 1 2 3 4; do (head -c 40000000 /dev/zero; SLEEP 1000) | tail >/dev/null & done; wait`,
			} {
				m := newTrace(t)
				e, err := c.Execute(t.Context(), wire.ExecuteParams{Argv: m.argv(script)})
				if err != nil {
					t.Fatal(err)
				}
				if done := completed(t, e); done.Reason != wire.ReasonOutOfMemory || done.Status != wire.StatusFailed {
					t.Errorf("%+v", done)
				}
				m.none()
			}
			for _, m := range modest {
				if len(m.found()) != 1 {
					t.Errorf("of a modest execution are left: %s", m.found())
				}
			}
			if done, err := c.Run(bounded(t), wire.ExecuteParams{Command: "exit 3"}, nil, nil); err != nil ||
				done.ExitCode != 3 {
				t.Errorf("%+v, %v", done, err)
			}
		})
	}
}
