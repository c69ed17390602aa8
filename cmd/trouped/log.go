package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors"
)

const (
	// logBacklog bounds the lines that wait for a slow reader of the log. At 200 bytes a
	// line it holds some 5,000: a reader that is that far behind has stopped.
	logBacklog = 1 << 20
	// logFlush is how long trouped waits for that reader before it exits.
	logFlush = time.Second
)

// logs are the process's log and the audit log, which --log-level does not silence. Both
// have the same writer.
type logs struct {
	log    *slog.Logger
	audit  *slog.Logger
	writer *logWriter
}

func newLogs(c *config, out io.Writer) *logs {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.logLevel)) // one of a closed set
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

// Close writes the lines that wait, if the reader takes them within logFlush.
func (l *logs) Close() { l.writer.Close() }

// auditor returns a function that writes a line for each execution.
func (l *logs) auditor(argv string) func(actors.AuditRecord) {
	return func(r actors.AuditRecord) {
		attrs := []any{
			"subject", r.Subject, "session", r.Session, "execution", r.Execution,
			"cwd", r.Cwd,
		}
		if !r.Started.IsZero() { // it did run
			attrs = append(attrs, "started", r.Started)
		}
		if argv == argvFull {
			attrs = append(attrs, "argv", r.Argv)
		} else {
			attrs = append(attrs, "argv_sha256", digest(r.Argv))
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

// digest returns the SHA-256 of the arguments, each followed by a zero byte, as
// `printf '%s\0' ARGS… | sha256sum` prints it.
func digest(argv []string) string {
	h := sha256.New()
	for _, arg := range argv {
		_, _ = io.WriteString(h, arg) // a hash does not fail
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
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

	lostLines atomic.Int64 // since the start, of the log
	lostAudit atomic.Int64 // of the audit log
}

// auditWriter is the same writer for lines of the audit log. Their loss is counted separately.
type auditWriter struct{ w *logWriter }

func (a auditWriter) Write(line []byte) (int, error) { return a.w.put(line, &a.w.lostAudit) }

func newLogWriter(out io.Writer, lost func(int) []byte) *logWriter {
	w := &logWriter{out: out, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.loop()
	return w
}

// Write takes one line. It never fails.
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

// Close waits for logFlush at most. Later lines are dropped.
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

// logGather is how long lines are collected before they are written. A write for each line,
// with a wakeup of its reader, would be a tenth of the work for a short command. SIGKILL
// loses the lines of that time.
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
			_, _ = w.out.Write(batch) // there is nowhere to report it
			spare = batch
		}
	}
}
