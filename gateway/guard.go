package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Bounds of the requests that Guard lets through at a time. While there are several subjects, one may
// have half.
const (
	MaxCalls     = 16
	MaxCallBytes = 1 << 20 // of their bodies
)

const (
	// bodyTimeout bounds the body of a request, which may be as large as a message.
	bodyTimeout = 30 * time.Second
	// callRetry is how soon a client whose request was refused for its number may try again.
	callRetry = time.Second
)

// Bounds of the streams that GuardStreams lets through at a time, likewise. Watches end only with their clients, so
// they have a bound of their own: they would keep transfers waiting.
const (
	MaxTransfers = 6
	MaxWatches   = 4
)

// subjectKey is the context key of the subject that Guard has found.
type subjectKey struct{}

// Subject returns who has sent a request that Guard let through.
func Subject(ctx context.Context) string {
	subject, _ := ctx.Value(subjectKey{}).(string)
	return subject
}

// Guard returns a handler that passes requests on to h by the rules of /ws: the same Origins, tokens and
// largest message. Its requests may take as long as their clients read.
func (g *Gateway) Guard(h http.Handler) http.Handler {
	limit := newCalls(MaxCalls, max(MaxCallBytes, g.cfg.MaxMessage), ManySubjects(g.cfg.Auth))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject, status, err := g.Authorize(r, VerbCreate)
		if err != nil {
			g.refuse(w, r, status, err)
			return
		}
		size := r.ContentLength
		if size < 0 {
			size = g.cfg.MaxMessage
		}
		if size > g.cfg.MaxMessage {
			writeJSON(w, http.StatusRequestEntityTooLarge, refusal{Error: fmt.Sprintf(
				"the request has %d bytes; at most %d are taken (--max-message)", size, g.cfg.MaxMessage)})
			return
		}
		if err := limit.enter(subject, size); err != nil {
			status, body := g.refusedCall(w, r, subject, err)
			writeJSON(w, status, body)
			return
		}
		defer limit.leave(subject, size)
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // fails for what is no network connection
		r.Body = &callBody{ReadCloser: http.MaxBytesReader(w, r.Body, g.cfg.MaxMessage), control: control}
		answer := &callWriter{ResponseWriter: w, control: control, timeout: g.cfg.WriteTimeout}
		h.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), subjectKey{}, subject)))
		answer.allow() // for what net/http has buffered
	})
}

// GuardStreams is Guard for requests whose bodies and answers are streams of any length, at most n at a time. h
// bounds how long its client may pause, and what is under way. What it refuses is a problem (RFC 9457).
func (g *Gateway) GuardStreams(n int64, h http.Handler) http.Handler {
	limit := newCalls(n, 1, ManySubjects(g.cfg.Auth))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject, status, err := g.Authorize(r, VerbCreate)
		if err != nil {
			writeProblem(w, status, g.refused(w, r, status, err))
			return
		}
		if err := limit.enter(subject, 0); err != nil {
			status, body := g.refusedCall(w, r, subject, err)
			writeProblem(w, status, body)
			return
		}
		defer limit.leave(subject, 0)
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), subjectKey{}, subject)))
	})
}

// refusedCall returns the answer to a request for which there is no room, and sets its headers.
func (g *Gateway) refusedCall(w http.ResponseWriter, r *http.Request, subject string, err error) (int, refusal) {
	reason, status, body := refusedFull, http.StatusServiceUnavailable, refusal{Error: err.Error()}
	var at *subjectAtLimit
	if errors.As(err, &at) {
		reason, status = at.reason, http.StatusTooManyRequests
		body.Code = wire.CodeSessionLimit
		body.Data = &wire.ErrorData{Limit: at.limit, Value: float64(at.value), RetryAfterSeconds: callRetry.Seconds()}
	}
	g.metrics.refused.WithLabelValues(reason).Inc()
	g.log.Info("connection refused", "subject", subject, "remote", r.RemoteAddr, "status", status, "reason", reason)
	w.Header().Set("Retry-After", "1")
	return status, body
}

// writeProblem answers with a refusal as RFC 9457 has it.
func writeProblem(w http.ResponseWriter, status int, body refusal) {
	w.Header().Set("Content-Type", "application/problem+json")
	writeJSON(w, status, wire.Problem{Title: http.StatusText(status), Status: status, Detail: body.Error})
}

// calls counts the requests that are being served, and the bytes of their bodies.
type calls struct {
	most [2]int64
	each [2]int64 // of one subject

	mu   sync.Mutex
	all  [2]int64
	held map[string][2]int64
}

func newCalls(number, bytes int64, several bool) *calls {
	c := &calls{most: [2]int64{number, bytes}, held: make(map[string][2]int64)}
	c.each = c.most
	if several {
		c.each = [2]int64{number / 2, bytes / 2}
	}
	return c
}

var errTooManyCalls = errors.New("too many requests are being served: try again")

func (c *calls) enter(subject string, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	add, names := [2]int64{1, size}, [2]string{"calls", "call-bytes"}
	own := c.held[subject]
	for i := range add {
		if own[i]+add[i] > c.each[i] && own[0] > 0 {
			return &subjectAtLimit{refusedSubject, names[i], int(c.each[i]), fmt.Sprintf(
				"requests of this subject that are being served, %d with %d bytes, are at its limit: try again", own[0], own[1])}
		}
		if c.all[i]+add[i] > c.most[i] {
			return errTooManyCalls
		}
	}
	c.all = [2]int64{c.all[0] + 1, c.all[1] + size}
	c.held[subject] = [2]int64{own[0] + 1, own[1] + size}
	return nil
}

func (c *calls) leave(subject string, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.held[subject]
	c.all = [2]int64{c.all[0] - 1, c.all[1] - size}
	if own[0] == 1 {
		delete(c.held, subject)
		return
	}
	c.held[subject] = [2]int64{own[0] - 1, own[1] - size}
}

// callBody lifts the deadline at its end: net/http reads on, to notice that the client has gone, and
// would take a deadline for that.
type callBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *callBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.control.SetReadDeadline(time.Time{}) // the connection may be gone
	}
	return n, err
}

// callWriter gives each write the time that a message of a WebSocket has.
type callWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// Unwrap lets http.ResponseController find the connection.
func (w *callWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *callWriter) allow() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // the connection may be gone
}

func (w *callWriter) Write(p []byte) (int, error) {
	w.allow()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *callWriter) Flush() {
	w.allow()
	_ = w.control.Flush() // the next write reports what is wrong
}
