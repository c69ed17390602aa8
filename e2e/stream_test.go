package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// TestPromptComesBeforeItsNewline protects from: an interactive command whose
// question is held back because its line is not complete.
func TestPromptComesBeforeItsNewline(t *testing.T) {
	c := suite.shared.dial(t)
	e, err := c.Execute(t.Context(),
		wire.ExecuteParams{Command: `printf 'name? '; read name; echo "hello $name"; read end`, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if prompt := nextLine(t, e); prompt != "name? " {
		t.Fatalf("the prompt is %q", prompt)
	}
	if _, err := e.Input(t.Context(), []byte("troupe\n")); err != nil {
		t.Fatal(err)
	}
	if answer := nextLine(t, e); answer != "hello troupe\n" {
		t.Fatalf("the answer is %q", answer)
	}
	if err := e.CloseInput(t.Context()); err != nil {
		t.Fatal(err)
	}
	completed(t, e, commandBound)
}

// TestMegabyteLineIsCutAndMarked protects from: a line that is cut silently,
// or that a proxy in between refuses as too large.
func TestMegabyteLineIsCutAndMarked(t *testing.T) {
	const size, mark = 1_000_000, "[TRUNCATED]\n"
	c := suite.shared.dial(t)
	e, err := c.Execute(t.Context(),
		wire.ExecuteParams{Command: fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; echo; echo after", size)})
	if err != nil {
		t.Fatal(err)
	}
	line := nextOutput(t, e)
	kept := strings.TrimSuffix(string(line.Data), mark)
	if !line.Truncated || !strings.HasSuffix(string(line.Data), mark) || strings.Trim(kept, "x") != "" {
		t.Fatalf("a line of %d bytes came as %d, truncated %t, ending in %q", size, len(line.Data), line.Truncated,
			tail(string(line.Data)))
	}
	if limit := c.Limits().MaxLine; len(kept) > limit || len(kept) < limit-len(mark) {
		t.Errorf("%d bytes of the line were kept, the limit is %d", len(kept), limit)
	}
	if next := nextLine(t, e); next != "after\n" {
		t.Errorf("after the line came %q", tail(next))
	}
	done := completed(t, e, commandBound)
	if skipped := int64(size + len("\n") - len(kept)); done.TruncatedLines != 1 || done.TruncatedBytes != skipped {
		t.Errorf("completed counts %d lines and %d bytes, want 1 and %d", done.TruncatedLines, done.TruncatedBytes, skipped)
	}
}

func tail(s string) string { return s[max(0, len(s)-40):] }

// TestStdinArrivesByteForByte protects from: input that the way through the
// ingress reorders, drops or decodes.
func TestStdinArrivesByteForByte(t *testing.T) {
	input := make([]byte, 3<<20)
	rand.Read(input) // never fails: see crypto/rand
	c := suite.shared.dial(t)
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "sha256sum", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := e.Input(t.Context(), input); err != nil || n != len(input) {
		t.Fatalf("%d of %d bytes were taken: %v", n, len(input), err)
	}
	if err := e.CloseInput(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(input)
	if got, want := nextLine(t, e), hex.EncodeToString(sum[:]); !strings.HasPrefix(got, want) {
		t.Errorf("the command read bytes of sha256 %q, want %s", got, want)
	}
}

// TestPauseStopsTheTreeAndResumeContinues: the state of each process is read by
// another command of the session, which shares the container. Protects from: a
// PAUSE that is answered and changes nothing.
func TestPauseStopsTheTreeAndResumeContinues(t *testing.T) {
	c := suite.shared.dial(t)
	e := start(t, c, wire.ExecuteParams{Command: "echo ready; i=0; while sleep 0.05; do i=$((i+1)); echo $i; done"})
	pid := e.Result().PID
	if state := processState(t, c, pid); state == "T" {
		t.Fatal("the command is stopped before PAUSE")
	}
	if err := e.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := processState(t, c, pid); state != "T" {
		t.Errorf("after PAUSE the command's state is %s, want T", state)
	}
	paused := waitFor(t, e, wire.MethodPaused)
	if err := e.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, e, wire.MethodResumed)
	if next := nextOutput(t, e); next.Offset <= paused {
		t.Errorf("after RESUME the output is at %d, where it was", next.Offset)
	}
	if state := processState(t, c, pid); state == "T" {
		t.Error("after RESUME the command is still stopped")
	}
	if err := e.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done := completed(t, e, commandBound); done.Reason != wire.ReasonCanceled {
		t.Errorf("the end's reason is %s, want canceled", done.Reason)
	}
}

// waitFor reads events up to a control notification and returns the output's offset there.
func waitFor(t *testing.T, e *troupe.Execution, method string) (offset int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		ev, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", method, err)
		}
		if control, ok := ev.(*troupe.Control); ok && control.Method == method {
			return e.Offset()
		}
	}
}

// processState returns the state letter of a process in the runner's container.
func processState(t *testing.T, c *troupe.Client, pid int) string {
	t.Helper()
	stat := shell(t, c, fmt.Sprintf("cat /proc/%d/stat", pid))
	_, rest, _ := strings.Cut(stat, ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}
