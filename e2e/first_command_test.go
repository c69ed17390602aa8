package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFirstCommand installs the chart with no host, as is the default, and does
// what its user does next.
//
// The release answers for every host that no other release has, so the test runs alone.
func TestFirstCommand(t *testing.T) {
	r := newRelease("first")
	r.host = ""
	t.Cleanup(func() { r.cleanUp(t) })
	if err := r.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("RunsAsTheNotesPrintIt", r.runsNotes)
	t.Run("StreamsAndReturnsTheExitCode", r.streams)
	t.Run("EndsQuietlyWhenTheServerDrains", r.endsQuietly)
}

// runsNotes pastes the lines that the chart prints into a shell, in a network in
// which the ingress can be reached. Protects from: notes that name a Secret, an
// address or a flag that is not so.
func (r *release) runsNotes(t *testing.T) {
	notes, err := r.helm(t.Context(), "get", "notes", r.name)
	if err != nil {
		t.Fatal(err)
	}
	script := firstCommand(notes)
	if !strings.Contains(script, "troupe exec") {
		t.Fatalf("the notes print no first command:\n%s", notes)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandBound)
	defer cancel()
	cmd := suite.command(ctx, "/bin/sh", "-eu", "-c", script)
	path := strings.Join([]string{
		filepath.Dir(suite.troupe), filepath.Dir(suite.kubectl), filepath.Dir(suite.helm),
		"/usr/bin", "/bin",
	}, ":")
	cmd.Env = append(cmd.Env, "PATH="+path, "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the notes' command failed: %v\n%s\n%s", err, script, out)
	}
	if !strings.Contains(string(out), "hello") {
		t.Fatalf("the notes' command printed %q, no hello:\n%s", out, script)
	}
}

// firstCommand takes the first block of indented lines of the notes that runs troupe exec.
func firstCommand(notes string) string {
	var block []string
	for _, line := range append(strings.Split(notes, "\n"), "") {
		if strings.HasPrefix(line, "  ") && strings.TrimSpace(line) != "" {
			block = append(block, strings.TrimPrefix(line, "  "))
			continue
		}
		if script := strings.Join(block, "\n"); strings.Contains(script, "troupe exec") {
			return script
		}
		block = nil
	}
	return ""
}

// streams runs a command that waits for an answer to what it printed, so that it
// ends only if its first line arrived while it ran. Protects from: a proxy or a
// server that gathers output until the end, and from an exit code that gets
// lost on the way.
func (r *release) streams(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), commandBound)
	defer cancel()
	cmd := r.cli(ctx, t, "exec", "--stdin", "--", "sh", "-c",
		`echo first; read answer; echo "second $answer"; echo err >&2; exit 7`)
	stdin, stdout := pipes(t, cmd)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); line != "first\n" {
		t.Fatalf("the first line is %q (%v), before stdin was written: %s", line, err, stderr.String())
	}
	if _, err := io.WriteString(stdin, "answer\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if string(rest) != "second answer\n" {
		t.Errorf("after the answer came %q (%v)", rest, err)
	}
	_ = cmd.Wait() // the exit code is what is looked at
	if code := cmd.ProcessState.ExitCode(); code != 7 || stderr.String() != "err\n" {
		t.Errorf("exit code %d and stderr %q, want 7 and err", code, stderr.String())
	}
}

// endsQuietly starts a command, lets it end once its user was told of a drain, and
// looks at all that the user has read. Protects from: an alarm after a command that
// the drain let finish.
func (r *release) endsQuietly(t *testing.T) {
	before := r.pod(t)
	ctx, cancel := context.WithTimeout(t.Context(), commandBound+installBound)
	defer cancel()
	cmd := r.cli(ctx, t, "exec", "--stdin", "--", "sh", "-c", "echo begun; read line; echo done")
	stdin, stdout := pipes(t, cmd)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines, notes := bufio.NewReader(stdout), bufio.NewReader(stderr)
	if line, err := lines.ReadString('\n'); line != "begun\n" {
		t.Fatalf("the first line is %q (%v)", line, err)
	}
	ended := make(chan struct{})
	go func() { // helm waits for the new pod, and the old one for this command
		defer close(ended)
		told, err := notes.ReadString('\n')
		if !strings.HasPrefix(told, "troupe: the server is stopping, running commands have ") {
			t.Errorf("the user was told %q (%v), want the drain", told, err)
			return
		}
		if _, err := io.WriteString(stdin, "line\n"); err != nil {
			t.Error(err)
		}
		rest, err := io.ReadAll(lines)
		if err != nil || string(rest) != "done\n" {
			t.Errorf("after the drain began the command printed %q (%v)", rest, err)
		}
		alarm, err := io.ReadAll(notes)
		if err != nil || len(alarm) > 0 {
			t.Errorf("after the command's end the user was told %q (%v)", alarm, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if err := r.upgrade(t.Context(), "podAnnotations: {e2e.troupe.dev/rollout: again}"); err != nil {
		t.Error(err)
	}
	<-ended
	gone(t, before)
}

// cli prepares the troupe program as a user of the release has it.
func (r *release) cli(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := suite.command(ctx, suite.troupe, args...)
	cmd.Env = append(cmd.Env, "TROUPE_SERVER="+r.url(), "TROUPE_TOKEN="+r.token, "TROUPE_STATE_DIR="+t.TempDir(),
		"TROUPE_WAIT="+time.Minute.String())
	return cmd
}

func pipes(t *testing.T, cmd *exec.Cmd) (stdin io.WriteCloser, stdout io.ReadCloser) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err == nil {
		stdout, err = cmd.StdoutPipe()
	}
	if err != nil {
		t.Fatal(fmt.Errorf("pipes: %w", err))
	}
	return stdin, stdout
}
