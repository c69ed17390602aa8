package troupe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// resumeRequest re-attaches. nil offsets follow every execution.
type resumeRequest struct {
	token   string
	offsets map[string]int64
	attach  bool // the first connection of an Attach: executions are new to this Client
}

// open makes the first connection, retrying for Options.DialRetry, and starts serving it.
func (c *Client) open(ctx context.Context, r *resumeRequest) error {
	if err := c.opt.check(); err != nil {
		return err
	}
	var deadline time.Time
	if c.opt.DialRetry > 0 {
		deadline = time.Now().Add(c.opt.DialRetry)
	}
	for attempt := 1; ; attempt++ {
		s, err := c.connect(ctx, r)
		if err == nil {
			go c.run(s)
			return nil
		}
		c.socketLost(false) // what Start has sent is sent again
		delay := max(c.opt.Backoff.delay(attempt), retryAfter(err))
		if permanent(err) || time.Now().Add(delay).After(deadline) {
			return err
		}
		c.opt.OnNotice(Notice{Kind: NoticeRetry, Err: err, Attempt: attempt, Delay: delay})
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// connect makes one connection: for a new session, or for an old one if r is set. When it returns a
// socket, the session is attached and no later message has been read.
func (c *Client) connect(ctx context.Context, r *resumeRequest) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.HandshakeTimeout)
	defer cancel()
	s := newSocket(c)
	if err := c.handshake(ctx, s, r != nil); err != nil {
		return nil, err
	}
	s.ws.SetReadLimit(maxServerMessage)
	stop := context.AfterFunc(ctx, func() {
		if r == nil {
			s.abandon()
		}
		s.fail(ctx.Err())
	})
	var err error
	if r == nil {
		err = s.greeted()
	} else {
		err = s.resume(r)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.fail(err)
		return nil, err
	}
	return s, nil
}

// abandonTimeout bounds how long a client that gives up a new session waits for the server to know.
const abandonTimeout = time.Second

// abandon ends a new session whose greeting has not come. A request that was sent to it may have
// started a command, which would run for the resume window without a client that could attach.
func (s *socket) abandon() {
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = s.ws.Close(websocket.StatusNormalClosure, "") // fail follows anyway
	}()
	select {
	case <-told:
	case <-time.After(abandonTimeout):
	}
}

// handshake opens the WebSocket.
func (c *Client) handshake(ctx context.Context, s *socket, resume bool) error {
	target, err := url.Parse(c.url)
	if err != nil {
		return err
	}
	query := target.Query()
	query.Set("frames", "binary") // a server that does not know it sends text
	if resume {
		query.Set("session", c.ID())
	} else {
		addSession(query, c.opt.Session)
	}
	target.RawQuery = query.Encode()
	header := c.opt.Header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	token, err := c.opt.TokenFunc()
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	ws, resp, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		HTTPClient:     c.opt.HTTPClient,
		HTTPHeader:     header,
		OnPingReceived: func(context.Context, []byte) bool { s.touch(); return true },
		OnPongReceived: func(context.Context, []byte) { s.touch() },
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			return &HandshakeError{StatusCode: resp.StatusCode, Body: strings.TrimSpace(string(body))}
		}
		return err
	}
	s.ws = ws
	return nil
}

// addSession asks for a session's options.
func addSession(query url.Values, o wire.SessionOptions) {
	if o.Name != "" {
		query.Set("name", o.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
		query.Add("label", key+"="+o.Labels[key])
	}
	if o.ResumeWindow > 0 {
		query.Set("resume_window", strconv.FormatFloat(o.ResumeWindow.Seconds(), 'f', -1, 64))
	}
}

// greeted sends the requests that are already waiting, such as that of Start, and reads up to
// connected, the first message of a new session. The error wraps ErrUnknownOutcome if the server may
// have taken the requests.
func (s *socket) greeted() error {
	sent := false
	for k := s.c.nextCall(); k != nil; k = s.c.nextCall() {
		if err := s.send(k.kind, k.frame); err != nil {
			return err
		}
		sent = true
	}
	for {
		m, err := s.receive()
		switch {
		case err != nil && sent && websocket.CloseStatus(err) == -1: // no close frame refuses the session
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		case err != nil:
			return err
		case len(m.ID) > 0 && string(m.ID) != string(wire.NullID):
			s.c.answer(m.ID, newReply(&m)) // a request that is refused before it reaches the session
		case m.Err != nil:
			return m.Err
		case m.Method == wire.MethodConnected:
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			err := json.Unmarshal(m.Params, &s.c.connected)
			s.c.offsets = slices.Contains(s.c.connected.Capabilities, wire.CapabilityInputOffset)
			return err
		}
	}
}

// resume sends r and reads up to its answer, before which the server sends no output.
func (s *socket) resume(r *resumeRequest) error {
	const id = "0" // call ids begin at 1
	params := wire.ResumeParams{ResumeToken: r.token, Executions: r.offsets, Window: int64(s.c.opt.Window)}
	frame, err := wire.AppendRequest(nil, wire.ID(id), wire.MethodResume, params)
	if err != nil {
		return err
	}
	if err := s.send(websocket.MessageText, frame); err != nil {
		return err
	}
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return err
		case m.Err != nil:
			return m.Err
		case string(m.ID) == id:
			var result wire.ResumeResult
			if err := json.Unmarshal(m.Result, &result); err != nil {
				return fmt.Errorf("answer to resume: %w", err)
			}
			s.c.resumed(r, &result)
			return nil
		case m.Method == wire.MethodPing:
			signal(s.pong)
		}
	}
}

// receive reads and decodes one message. It turns a close frame into the matching error.
func (s *socket) receive() (wire.Message, error) {
	kind, r, err := s.nextReader()
	if err == nil && kind == websocket.MessageBinary {
		return wire.Message{}, errors.New("the server sent output before the session is attached")
	}
	if err == nil {
		s.buf, err = s.readAll(r, s.buf[:0])
	}
	if err != nil {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		return wire.Message{}, err
	}
	return wire.DecodeServerMessage(s.buf)
}

// resumed applies the answer to resume.
func (c *Client) resumed(r *resumeRequest, result *wire.ResumeResult) {
	c.mu.Lock()
	if result.Limits != (wire.Limits{}) {
		c.connected.Limits = result.Limits
	}
	if r.attach {
		for id, status := range result.Executions {
			offset, named := r.offsets[id]
			if named || r.offsets == nil {
				c.execs[id] = newAttachedExecution(c, id, offset, status)
			}
		}
	}
	c.mu.Unlock()
	for _, id := range result.Unknown {
		if e := c.lookup(id); e != nil {
			c.forget(e)
			e.fail(ErrUnknownExecution)
		}
	}
	for id, offset := range r.offsets {
		if e := c.lookup(id); e != nil {
			e.resumedAt(offset)
		}
	}
}

func newAttachedExecution(c *Client, id string, offset int64, status wire.ExecutionStatus) *Execution {
	e := newExecution(c, id, offset)
	e.phase = phaseReceiving
	if status.Terminal != nil {
		e.writer = newWriter()
	} else {
		e.inputOffset = status.InputOffset
	}
	// The end lies before what survivors wrote, and the server does not go back for it.
	if done := status.Completed; done != nil && done.OutputBytes < offset && survived(done) {
		e.completed = done
		close(e.finished)
		e.completedQueued, e.completedArrived = true, true
		e.enqueue(&Completed{*done})
	}
	e.result = wire.ExecuteResult{Status: "started", ExecutionID: id, PID: status.PID, PGID: status.PGID, Attached: true}
	return e
}

// permanent reports whether err means that another attempt to connect cannot succeed.
func permanent(err error) bool {
	var he *HandshakeError
	if errors.As(err, &he) {
		return !he.Temporary()
	}
	var pe *ProxyError
	if errors.As(err, &pe) {
		return !pe.Temporary()
	}
	switch wire.CodeOf(err) {
	case 0:
		return errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) ||
			endOfSocket(err) != nil || malformed(err) || websocket.CloseStatus(err) == websocket.StatusMessageTooBig
	case wire.CodeSessionLimit, wire.CodeDraining, wire.CodeInternal, wire.CodeExecutionLimit:
		return false
	default:
		return true
	}
}

// malformed reports whether the URL does not parse.
func malformed(err error) bool {
	var ue *url.Error
	return errors.As(err, &ue) && ue.Op == "parse"
}

// endOfSession returns the typed end of the session that a failed resume
// means, or nil if another attempt may succeed.
func endOfSession(err error) error {
	switch wire.CodeOf(err) {
	case wire.CodeNoSession:
		return &sessionEnd{ErrNoSession, err}
	case wire.CodeSessionLost:
		return &sessionEnd{ErrSessionLost, err}
	}
	if end := endOfSocket(err); end != nil {
		return end
	}
	if permanent(err) {
		return err
	}
	return nil
}

func retryAfter(err error) time.Duration {
	var we *wire.Error
	if errors.As(err, &we) && we.Data != nil {
		return time.Duration(we.Data.RetryAfterSeconds * float64(time.Second))
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
