package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// buildDir is made and removed by TestMain.
var buildDir string

// runnerBinary builds troupe-runner once for all tests of the package.
var runnerBinary = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(buildDir, "troupe-runner")
	cmd := exec.Command("go", "build", "-o", buildDir, "github.com/troupe-dev/troupe/cmd/troupe-runner",
		"github.com/troupe-dev/troupe/cmd/troupe-files")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the runner: %w\n%s", err, out)
	}
	return binary, nil
})

// instance is a trouped in a process of its own.
type instance struct {
	t      *testing.T
	cmd    *exec.Cmd
	ws     string // ws://…/ws
	http   string // http://…, clients' side
	admin  string // http://…
	data   string
	runner int           // its pid
	stderr *bytes.Buffer // complete once the process has ended
	ended  chan error
}

// launch starts trouped and waits until it says that it is ready.
func launch(t *testing.T, args ...string) *instance {
	t.Helper()
	return launchWith(t, func(*exec.Cmd) {}, args...)
}

// launchWith lets prepare change how trouped is started.
func launchWith(t *testing.T, prepare func(*exec.Cmd), args ...string) *instance {
	t.Helper()
	binary, err := runnerBinary()
	if err != nil {
		t.Fatal(err)
	}
	s := &instance{t: t, data: filepath.Join(t.TempDir(), "data"), stderr: new(bytes.Buffer), ended: make(chan error, 1)}
	s.cmd = trouped(t, append([]string{
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
		"--data-dir", s.data, "--workdir", t.TempDir(), "--runner-binary", binary,
	}, args...)...)
	s.cmd.Stdout = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell starts it
	prepare(s.cmd)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.stderr.Write(append(lines.Bytes(), '\n'))
			var line struct {
				Msg, Listen, Admin string
				PID                int
			}
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				continue
			}
			switch line.Msg {
			case "runner is up":
				s.runner = line.PID
			case "ready":
				s.http, s.ws, s.admin = "http://"+line.Listen, "ws://"+line.Listen+"/ws", "http://"+line.Admin
				close(ready)
			}
		}
		s.ended <- s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended if the test went well
		<-s.ended
		if t.Failed() {
			t.Logf("trouped said:\n%s", s.stderr)
		}
	})
	select {
	case <-ready:
	case err := <-s.ended:
		t.Fatalf("trouped ended: %v\n%s", err, s.stderr)
	case <-time.After(30 * time.Second):
		t.Fatal("trouped is not ready after 30 s")
	}
	return s
}

func (s *instance) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	if sig == syscall.SIGSTOP {
		eventually(s.t, s.isStopped)
	}
}

// isStopped checks that no thread runs any more: each stops when it next comes by, and on a busy machine that takes
// a while.
func (s *instance) isStopped() error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("%d threads, %w", len(tasks), err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if err != nil {
			return err
		}
		// https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: pid (comm) state ...
		if _, state, _ := bytes.Cut(stat, []byte(") ")); !bytes.HasPrefix(state, []byte("T")) {
			return fmt.Errorf("%s: %.1s", task, state)
		}
	}
	return nil
}

// exit waits for the end and returns the exit code, -1 for a signal.
func (s *instance) exit() int {
	s.t.Helper()
	select {
	case err := <-s.ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return 0
	case <-time.After(30 * time.Second):
		s.t.Fatal("trouped has not ended after 30 s")
		return 0
	}
}

// leftNothing looks for what trouped must have taken with it when it ended.
func (s *instance) leftNothing() {
	s.t.Helper()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", s.runner)); err == nil || s.runner == 0 {
		s.t.Errorf("the runner, process %d, is still there", s.runner)
	}
	if _, err := os.Lstat(s.data); err == nil {
		s.t.Error("the data directory was left behind")
	}
}

func (s *instance) get(url string) (int, string) {
	s.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// await asks until the answer has the status. It returns how the last one read.
func (s *instance) await(url string, status int) string {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		got, body := s.get(url)
		if got == status {
			return body
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s answers %d %s, want %d", url, got, body, status)
		}
		time.Sleep(5 * time.Millisecond) // a poll, bounded by the deadline
	}
}

func (s *instance) dial() *troupe.Client {
	s.t.Helper()
	c, err := troupe.Dial(s.t.Context(), s.ws, troupe.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Detach() })
	return c
}

// execute starts a command and waits until it has printed its first output.
func execute(t *testing.T, c *troupe.Client, command string) *troupe.Execution {
	t.Helper()
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: command})
	if err != nil {
		t.Fatal(err)
	}
	for {
		event, err := e.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := event.(*troupe.Output); ok {
			return e
		}
	}
}

// completed waits for the end of an execution.
func completed(t *testing.T, e *troupe.Execution) *wire.Completed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done, err := e.Copy(ctx, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// marked returns the processes of the machine whose command line has the marker.
func marked(t *testing.T, marker string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err == nil && bytes.Contains(line, []byte(marker)) {
			found = append(found, fmt.Sprintf("%s: %q", path, line))
		}
	}
	return found
}

// gone waits, as little as it can, for the marked processes to be dead: after a SIGKILL trouped
// does not announce their death.
func gone(t *testing.T, marker string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := marked(t, marker)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %s", strings.Join(left, ", "))
		}
		time.Sleep(5 * time.Millisecond) // a poll, bounded by the deadline
	}
}

func TestServesUntilSIGTERM(t *testing.T) {
	s := launch(t, "--env", "GREETING=hello")
	c := s.dial()
	var out bytes.Buffer
	done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "echo $GREETING $TROUPED_TEST_MAIN; exit 3"}, &out,
		io.Discard)
	if err != nil || done.ExitCode != 3 || out.String() != "hello\n" {
		t.Errorf("got %q, %+v, %v", out.String(), done, err)
	}
	if status, body := s.get(s.http + "/health"); status != 200 || !strings.Contains(body, `"active_sessions":1`) {
		t.Errorf("/health: %d %s", status, body)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/debug/pprof/": 404,
		"/debug/pprof/heap": 404,
	} {
		if status, body := s.get(s.admin + path); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	_, metrics := s.get(s.admin + "/metrics")
	for _, line := range []string{
		"troupe_runner_up 1", "troupe_sessions 1",
		"troupe_transcript_budget_bytes 2.147483648e+09", "troupe_build_info{", "go_goroutines",
	} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if !strings.Contains(s.stderr.String(), `"msg":"audit","subject":"anonymous"`) {
		t.Error("no audit line")
	}
	s.leftNothing()
}

// TestDrainLetsCommandsFinish: the rollout at noon, and Ctrl-C in a terminal, which
// goes to the whole process group and must end neither runner nor command.
// Readiness goes first, running commands finish, their output and end still arrive.
func TestDrainLetsCommandsFinish(t *testing.T) {
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		to   func(pid int) int
	}{
		{"SIGTERM to trouped", syscall.SIGTERM, func(pid int) int { return pid }},
		{"SIGINT to its group", syscall.SIGINT, func(pid int) int { return -pid }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launch(t)
			fifo := filepath.Join(t.TempDir(), "go-on")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			e := execute(t, s.dial(), "echo ready; read word <"+fifo+"; echo $word")
			if err := syscall.Kill(c.to(s.cmd.Process.Pid), c.sig); err != nil {
				t.Fatal(err)
			}
			s.await(s.admin+"/readyz", http.StatusServiceUnavailable)
			if status, _ := s.get(s.admin + "/healthz"); status != 200 {
				t.Errorf("/healthz is %d: the kubelet would restart a draining pod", status)
			}
			if _, err := troupe.Dial(t.Context(), s.ws, troupe.Options{}); err == nil {
				t.Error("a draining server opened a session")
			}
			if err := os.WriteFile(fifo, []byte("finished\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			done, err := e.Copy(t.Context(), &out, io.Discard)
			if err != nil || done.Reason != wire.ReasonExited || done.ExitCode != 0 || out.String() != "finished\n" {
				t.Errorf("got %q, %+v, %v", out.String(), done, err)
			}
			if code := s.exit(); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
}

// TestSignalsIgnoredAtStartStayIgnored: by nohup, or by a script that starts trouped in the
// background. Commands do not inherit that.
func TestSignalsIgnoredAtStartStayIgnored(t *testing.T) {
	s := launchWith(t, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `trap "" INT HUP; exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	})
	s.signal(syscall.SIGINT)
	s.signal(syscall.SIGHUP)
	c := s.dial()
	for _, sig := range []string{"INT", "HUP"} {
		e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "kill -" + sig + " $$; echo alive"})
		if err != nil {
			t.Fatal(err)
		}
		if done := completed(t, e); done.Reason != wire.ReasonSignaled {
			t.Errorf("a command that gets SIG%s ends with %s", sig, done.Reason)
		}
	}
	s.await(s.admin+"/readyz", http.StatusOK) // a drain would have begun
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestDrainTimeoutCancelsTheRest(t *testing.T) {
	s := launch(t, "--drain-timeout", "100ms", "--cancel-grace", "100ms")
	marker := fmt.Sprintf("troupe-drain-%d", os.Getpid())
	e := execute(t, s.dial(), "trap '' TERM; echo ready; while :; do sleep 0.1; done # "+marker)
	s.signal(syscall.SIGTERM)
	if done := completed(t, e); done.Reason != wire.ReasonDrain {
		t.Errorf("reason %s", done.Reason)
	}
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if left := marked(t, marker); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

// TestSecondSignalEndsAtOnce: whoever presses Ctrl-C twice wants the prompt
// back, and no orphans.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	s := launch(t)
	marker := fmt.Sprintf("troupe-second-%d", os.Getpid())
	loop := "trap '' TERM INT; while :; do sleep 1; done # " + marker
	execute(t, s.dial(), `setsid sh -c "`+loop+`" & echo ready; `+loop)
	s.signal(syscall.SIGINT)
	s.await(s.admin+"/readyz", http.StatusServiceUnavailable)
	began := time.Now()
	s.signal(syscall.SIGINT)
	if code := s.exit(); code != exitFailure {
		t.Errorf("exit status %d, want %d", code, exitFailure)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if left := marked(t, marker); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	s.leftNothing()
}

// TestKilledServerLeavesNothing: kill -9 of trouped.
func TestKilledServerLeavesNothing(t *testing.T) {
	s := launch(t)
	marker := fmt.Sprintf("troupe-killed-%d", os.Getpid())
	execute(t, s.dial(), "trap '' TERM; echo ready; while :; do sleep 1; done # "+marker)
	s.signal(syscall.SIGKILL)
	s.exit()
	gone(t, marker)
}

// TestTwoServersNeedTwoDataDirs: the second must not take the first's
// transcripts for leftovers.
func TestTwoServersNeedTwoDataDirs(t *testing.T) {
	s := launch(t)
	binary, err := runnerBinary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := trouped(t, "--listen", "127.0.0.1:0", "--admin-listen=", "--data-dir", s.data, "--runner-binary",
		binary).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailure ||
		!strings.Contains(string(out), "in use by another process") {
		t.Errorf("got %v: %s", err, out)
	}
}
