package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// loud is a command that prints more than the limit on both streams, and what it prints.
//
// On a busy machine it may stand still between any two pages of a pipe, and the beginning of a line
// that is not whole then is delivered as a prompt would be, which no limit takes back. So each page
// ends with a line. What is printed first and by itself lets the limit fall within a page
// nevertheless.
func loud(t *testing.T) (command string, stdout, stderr string) {
	t.Helper()
	const page = 4096
	lines := func(name string, total int) string {
		var b strings.Builder
		for i := 0; b.Len() < total; i++ {
			line := fmt.Sprintf("%s %d %s\n", name, i, strings.Repeat("x", i%113))
			if left := page - b.Len()%page; left < len(line)+len("\n") {
				line = strings.Repeat("x", left-1) + "\n"
			}
			b.WriteString(line)
		}
		return b.String()
	}
	first, out, stderr := "what is printed first\n", lines("out", outputLimit+3<<20), lines("err", 2<<20)
	dir := t.TempDir()
	for name, text := range map[string]string{"first": first, "out": out, "err": stderr} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("cd %s; cat first; sleep 0.2; cat err >&2 & cat out; wait; exit 7", dir), first + out, stderr
}

// accounted checks that whole lines are missing at the end, that they were counted to
// the byte, and that it was said once.
func accounted(t *testing.T, r *record, code, stdout, stderr string) {
	t.Helper()
	var lines int64
	for stream, want := range map[string]string{wire.Stdout: stdout, wire.Stderr: stderr} {
		got := r.text(stream)
		if !strings.HasPrefix(want, got) || got != "" && !strings.HasSuffix(got, "\n") {
			t.Errorf("%d bytes of %s are not the first lines of what was written; they end in %q", len(got), stream, tail(got))
		}
		lines += int64(strings.Count(want, "\n") - strings.Count(got, "\n"))
	}
	d := r.done
	if d.DroppedReason != code {
		t.Errorf("dropped because of %q, want %q", d.DroppedReason, code)
	}
	if total := int64(len(stdout) + len(stderr)); d.OutputBytes+d.DroppedBytes != total || d.DroppedLines != lines {
		t.Errorf("kept %d and dropped %d bytes of %d, dropped %d lines of %d", d.OutputBytes, d.DroppedBytes, total,
			d.DroppedLines, lines)
	}
	if len(r.warnings) != 1 || r.warnings[0].Code != code || r.warnings[0].Offset != d.OutputBytes {
		t.Errorf("warnings %+v", r.warnings)
	}
	if d.Reason != wire.ReasonExited || d.ExitCode != 7 {
		t.Errorf("%+v", d)
	}
}

// healthy checks that commands run and are recorded.
func healthy(t *testing.T, s *instance) {
	t.Helper()
	c, _ := session(t, s, "/ws")
	if r := c.run(wire.ExecuteParams{Command: "echo fine; exit 4"}); r.text(wire.Stdout) != "fine\n" ||
		r.done.ExitCode != 4 || len(r.warnings) > 0 {
		t.Errorf("%q, %+v, %+v", r.text(wire.Stdout), r.done, r.warnings)
	}
	c.done()
	c.end()
}

// TestPromise05OutputPastTheLimitIsCounted: past 10,485,760 bytes whole lines are
// dropped, one warning says so, the command is not blocked and its exit code is right.
func TestPromise05OutputPastTheLimitIsCounted(t *testing.T) {
	s := launch(t)
	command, stdout, stderr := loud(t)
	c, _ := session(t, s, "/ws")
	r := c.run(wire.ExecuteParams{Command: command})
	accounted(t, r, wire.WarnOutputLimit, stdout, stderr)
	if kept := r.done.OutputBytes; kept > outputLimit || kept < outputLimit-200 {
		t.Errorf("%d bytes were kept, the limit is %d", kept, outputLimit)
	}
	// A client that would rather have it ended.
	r = c.run(wire.ExecuteParams{Command: "yes", OnOutputLimit: wire.LimitCancel, OutputLimit: 1000})
	if r.done.Reason != wire.ReasonOutputLimit || r.done.OutputBytes != 1000 || len(r.warnings) != 1 {
		t.Errorf("%+v", r.done)
	}
	healthy(t, s)
}

// TestPromise05FullDisk: a data directory with 2 MiB of room.
func TestPromise05FullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("troupe-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no full disk without a disk of its own, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := launch(t, "--data-dir", filepath.Join(disk, "data"))
	command, stdout, stderr := loud(t)
	c, _ := session(t, s, "/ws")
	for range 2 { // the second finds the disk full from the start
		r := c.run(wire.ExecuteParams{Command: command})
		accounted(t, r, wire.WarnTranscriptWrite, stdout, stderr)
		if r.done.OutputBytes > 2<<20 {
			t.Errorf("%d bytes on a disk of 2 MiB", r.done.OutputBytes)
		}
	}
	// The room comes back with the end of the session that had it.
	c.done()
	c.end()
	s.awaitActive(0)
	healthy(t, s)
}

// TestPromise05DataDirRemoved: somebody removes the data directory under a running server.
// Transcripts that are being recorded continue. While something else stands in place of the
// directory, the server counts new output as dropped and warns of it; once the place is free, it
// makes the directory again.
func TestPromise05DataDirRemoved(t *testing.T) {
	s := launch(t)
	fifo := filepath.Join(t.TempDir(), "go-on")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := session(t, s, "/ws")
	id := c.start(wire.ExecuteParams{Command: "echo before; read word <" + fifo + "; echo $word; exit 5"})
	c.said(id, "before\n")
	if err := os.RemoveAll(s.data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fifo, []byte("after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.said(id, "after\n")
	if done := c.collectEnd(id); done.ExitCode != 5 || done.OutputBytes != 13 || done.DroppedBytes != 0 {
		t.Errorf("%+v", done)
	}
	if err := os.WriteFile(s.data, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	command, stdout, stderr := loud(t)
	r := c.run(wire.ExecuteParams{Command: command})
	accounted(t, r, wire.WarnTranscriptWrite, stdout, stderr)
	if err := os.Remove(s.data); err != nil {
		t.Fatal(err)
	}
	if r := c.run(wire.ExecuteParams{Command: "echo again"}); r.done.OutputBytes != 6 || r.done.DroppedBytes != 0 {
		t.Errorf("with the place free: %+v", r.done)
	}
	c.done()
	c.end()
	if status, _ := s.get(s.admin + "/readyz"); status != 200 {
		t.Errorf("/readyz is %d", status)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}
