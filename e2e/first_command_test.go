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
// The release answers for every host that is nobody else's, so the test runs alone.
func TestFirstCommand(t *testing.T) {
	r := newRelease("first")
	r.host = ""
	t.Cleanup(func() { r.cleanUp(t) })
	if err := r.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("RunsAsTheNotesPrintIt", r.runsNotes)
	t.Run("StreamsAndReturnsTheExitCode", r.streams)
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
	path := strings.Join([]string{filepath.Dir(suite.troupe), filepath.Dir(suite.kubectl), filepath.Dir(suite.helm), "/usr/bin", "/bin"}, ":")
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
	cmd := r.cli(ctx, t, "exec", "--stdin", "--", "sh", "-c", `echo first; read answer; echo "second $answer"; echo err >&2; exit 7`)
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

// cli prepares the troupe program as a user of the release has it.
func (r *release) cli(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := suite.command(ctx, suite.troupe, args...)
	cmd.Env = append(cmd.Env, "TROUPE_SERVER="+r.url(), "TROUPE_TOKEN="+r.token, "TROUPE_STATE_DIR="+t.TempDir(), "TROUPE_WAIT="+time.Minute.String())
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
