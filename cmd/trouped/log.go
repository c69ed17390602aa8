package main

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/gateway/api"
)

const (
	// logBacklog bounds the lines that wait for a slow reader of the log. It holds about 1,200 lines
	// of 200 bytes: a reader that falls that far behind has stopped reading.
	logBacklog = 256 << 10
	// logFlush is how long trouped waits for that reader before it exits.
	logFlush = time.Second
)

// logs holds the process's log and the audit log, which --log-level does not silence. They share
// one writer.
type logs struct {
	log    *slog.Logger
	audit  *slog.Logger
	writer *logWriter
}

func newLogs(c *config, out io.Writer) *logs {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.logLevel)) // the flag accepts only valid levels
	handler := func(w io.Writer, level slog.Level) slog.Handler {
		opts := &slog.HandlerOptions{Level: level}
		if c.logFormat == logJSON {
			return slog.NewJSONHandler(w, opts)
		}
		return slog.NewTextHandler(w, opts)
	}
	w := newLogWriter(out, func(lines int) []byte {
		var b bytes.Buffer
		slog.New(handler(&b, slog.LevelWarn)).Warn("log lines were dropped, its reader was too slow", "lines", lines)
		return b.Bytes()
	})
	return &logs{log: slog.New(handler(w, level)), audit: slog.New(handler(auditWriter{w}, slog.LevelInfo)), writer: w}
}

// Close writes the waiting lines if the reader accepts them within logFlush.
func (l *logs) Close() { l.writer.Close() }

// auditor returns a function that writes one audit line per execution. The digest stands for
// arguments that are not to be written or were too long to be kept.
func (l *logs) auditor() func(actors.AuditRecord) {
	return func(r actors.AuditRecord) {
		attrs := []any{
			"subject", r.Subject, "session", r.Session, "execution", r.Execution,
			"cwd", r.Cwd, "isolation", r.Isolation,
		}
		if !r.Started.IsZero() { // it was started
			attrs = append(attrs, "started", r.Started)
		}
		if r.Argv != nil {
			attrs = append(attrs, "argv", r.Argv)
		} else {
			attrs = append(attrs, "argv_sha256", r.ArgvSHA256)
		}
		if done := r.Completed; done != nil {
			attrs = append(attrs, "reason", string(done.Reason), "exit_code", done.ExitCode,
				"seconds", done.ExecutionTime, "output_bytes", done.OutputBytes, "dropped_bytes", done.DroppedBytes)
			if u := done.Usage; u != nil {
				attrs = append(attrs,
					"user_seconds", u.UserSeconds, "system_seconds", u.SystemSeconds, "max_rss_bytes", u.MaxRSSBytes)
			}
		}
		l.audit.Info("audit", attrs...)
	}
}

// accessAuditor returns a function that writes one audit line for each request that concerns the sessions of others.
func (l *logs) accessAuditor() func(api.Access) {
	return func(a api.Access) {
		attrs := []any{"subject", a.Subject, "verb", string(a.Verb)}
		if a.Session != "" {
			attrs = append(attrs, "session", a.Session, "owner", a.Owner)
		}
		if a.Execution != "" {
			attrs = append(attrs, "execution", a.Execution)
		}
		l.audit.Info("access", append(attrs, "read", a.Read, "status", a.Status, "remote", a.Remote)...)
	}
}

// logWriter never blocks: actors log, and a stopped reader of stderr (a pager, a terminal
// after Ctrl-S) must not stop them. It drops and counts lines past logBacklog.
type logWriter struct {
	out  io.Writer
	lost func(lines int) []byte // renders the line that reports dropped lines
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	pending []byte
	dropped int
	closed  bool

	lostLines atomic.Int64 // process log lines dropped since the start
	lostAudit atomic.Int64 // the same for the audit log
}

// auditWriter writes audit lines through the same writer and counts lost lines separately.
type auditWriter struct{ w *logWriter }

func (a auditWriter) Write(line []byte) (int, error) { return a.w.put(line, &a.w.lostAudit) }

func newLogWriter(out io.Writer, lost func(int) []byte) *logWriter {
	w := &logWriter{out: out, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.loop()
	return w
}

// Write queues or drops one line. It never fails.
func (w *logWriter) Write(line []byte) (int, error) { return w.put(line, &w.lostLines) }

func (w *logWriter) put(line []byte, lost *atomic.Int64) (int, error) {
	w.mu.Lock()
	if w.closed || len(w.pending)+len(line) > logBacklog {
		w.dropped++
		lost.Add(1)
	} else {
		w.pending = append(w.pending, line...)
	}
	w.mu.Unlock()
	w.signal()
	return len(line), nil
}

func (w *logWriter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close waits at most logFlush for the queued lines. Later lines are dropped.
func (w *logWriter) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	select {
	case <-w.done:
	case <-time.After(logFlush):
	}
}

// logGather is how long lines are collected before they are written. Writing each line separately,
// and waking its reader each time, would make up a tenth of the work for a short command. SIGKILL
// loses the lines collected during that time.
const logGather = 5 * time.Millisecond

func (w *logWriter) loop() {
	defer close(w.done)
	var spare []byte
	for range w.wake {
		time.Sleep(logGather)
		for {
			w.mu.Lock()
			batch, dropped, closed := w.pending, w.dropped, w.closed
			w.pending, w.dropped = spare[:0], 0
			w.mu.Unlock()
			if dropped > 0 {
				batch = append(batch, w.lost(dropped)...)
			}
			if len(batch) == 0 {
				if closed {
					return
				}
				spare = batch
				break
			}
			_, _ = w.out.Write(batch) // there is nowhere to report the error
			spare = batch
		}
	}
}
