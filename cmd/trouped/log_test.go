package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestStoppedLogReaderStopsNobody protects every actor that logs: stderr may be a pipe to a pager
// that has stopped reading.
func TestStoppedLogReaderStopsNobody(t *testing.T) {
	r, w := io.Pipe() // unbuffered: the first write waits for a reader
	c := defaults()
	c.logFormat = logJSON
	l := newLogs(c, w)
	line := strings.Repeat("x", 1000)
	const lines = 3 * logBacklog / 1000
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for range lines {
			l.log.Info(line)
		}
		l.audit.Info(strings.Repeat("x", logBacklog)) // never fits
	}()
	select {
	case <-wrote:
	case <-time.After(10 * time.Second):
		t.Fatal("logging waits for the reader")
	}
	go func() {
		l.Close()
		w.Close()
	}()
	got, dropped := 0, 0
	for dec := json.NewDecoder(r); ; {
		var entry struct {
			Msg   string
			Lines int
		}
		if err := dec.Decode(&entry); err != nil {
			break
		}
		dropped += entry.Lines
		if entry.Msg == line {
			got++
		}
	}
	if dropped == 0 || got+dropped != lines+1 { // and the audit line
		t.Errorf("%d lines were written: %d arrived, %d were reported as dropped", lines+1, got, dropped)
	}
	reg := prometheus.NewRegistry()
	registerLogs(reg, l)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lost := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		lost[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	if lost["audit"] != 1 || lost["process"] != float64(dropped-1) {
		t.Errorf("counted as dropped: %v, want 1 and %d", lost, dropped-1)
	}
}

func TestAuditLine(t *testing.T) {
	argv := []string{"/bin/echo", "secret word", ""}
	record := actors.AuditRecord{
		Subject: "alice", Session: "pod.1", Execution: "e1", ArgvSHA256: actors.ArgvDigest(argv), Cwd: "/tmp",
		Completed: &wire.Completed{Reason: wire.ReasonExited, ExitCode: 3, Usage: &wire.Usage{UserSeconds: 1.5}},
	}
	write := func(record actors.AuditRecord) map[string]any {
		var out bytes.Buffer
		c := defaults()
		c.logFormat, c.logLevel = logJSON, "error" // which silences no audit line
		l := newLogs(c, &out)
		l.auditor()(record)
		l.Close()
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		return line
	}
	line := write(record)
	for key, want := range map[string]any{
		"msg": "audit", "subject": "alice", "session": "pod.1", "execution": "e1", "reason": "exited",
		"exit_code": 3.0, "user_seconds": 1.5, "argv_sha256": actors.ArgvDigest(argv),
	} {
		if line[key] != want {
			t.Errorf("%s: got %v, want %v", key, line[key], want)
		}
	}
	if _, there := line["argv"]; there {
		t.Error("arguments that were not kept are written")
	}
	record.Argv = argv
	if got, ok := write(record)["argv"].([]any); !ok || len(got) != 3 || got[1] != "secret word" {
		t.Errorf("argv: got %v", got)
	}
}

// TestDigestIsReproducible: an auditor checks a digest with a shell.
func TestDigestIsReproducible(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", `printf '%s\0' echo 'a b' | sha256sum`).Output()
	if err != nil {
		t.Skip(err)
	}
	if want, _, _ := strings.Cut(string(out), " "); actors.ArgvDigest([]string{"echo", "a b"}) != want {
		t.Errorf("got %s, want %s", actors.ArgvDigest([]string{"echo", "a b"}), want)
	}
}
