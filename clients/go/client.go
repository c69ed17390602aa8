package troupe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// closeTimeout bounds how long Close and Detach may take to tell the server.
const closeTimeout = 5 * time.Second

// Client owns a session on a server. Its methods may be called from several goroutines.
type Client struct {
	url string
	opt Options
	log *slog.Logger

	ctx     context.Context // ends when Close or Detach hang up
	hangUp  context.CancelCauseFunc
	done    chan struct{} // closed when the session has ended for this Client
	stopped chan struct{} // closed when its goroutines have ended

	work   chan struct{} // capacity 1: there may be something to write in toAck, strays or calls
	nextID atomic.Int64

	mu        sync.Mutex
	connected wire.Connected
	calls     []*call                   // unanswered, in order
	toAck     map[string]*Execution     // their acks may be due
	strays    map[string]wire.AckParams // acks of executions that are not followed
	streams   map[string]uint16         // executions' numbers in binary messages, on the current connection
	offsets   bool                      // the server takes inputs by their offset
	execs     map[string]*Execution
	draining  bool // the server said that it is stopping
	end       error
}

// Session holds what another Client needs to attach to a session. ResumeToken is a secret.
type Session struct {
	URL         string `json:"url"`
	ID          string `json:"session_id"`
	ResumeToken string `json:"resume_token"`
	// Offsets maps each execution that was not read to its end to the transcript position after the
	// last event that Next returned.
	Offsets map[string]int64 `json:"offsets"`
}

// Dial opens a session. url has the scheme ws, wss, http or https and the path
// of the server's endpoint, usually /ws. ctx bounds Dial only.
//
// A refusal is a *wire.Error (code -32001: no session is free) or a *HandshakeError. With
// Options.DialRetry, Dial tries again where that may help.
func Dial(ctx context.Context, url string, opt Options) (*Client, error) {
	c := newClient(url, opt)
	if err := c.open(ctx, nil); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	return c, nil
}

// Start opens a session and starts a command in it, as Dial and Execute do, but sends
// execute right after the upgrade instead of waiting for the server's greeting. If the
// session was opened and the command was refused, the Client is returned with the
// *wire.Error, so that the caller can use it or Close it.
func Start(ctx context.Context, url string, params wire.ExecuteParams, opt Options) (*Client, *Execution, error) {
	c := newClient(url, opt)
	e, k, err := c.newExecute(params)
	if err != nil {
		return nil, nil, err
	}
	if err := c.submit(k); err != nil {
		return nil, nil, err
	}
	if err := c.open(ctx, nil); err != nil {
		if websocket.CloseStatus(err) == websocket.StatusMessageTooBig {
			err = fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		return nil, nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	e, err = c.awaitExecute(ctx, e, k)
	return c, e, err
}

// Attach resumes a session that another Client detached from. It follows the executions that
// offsets names, each from its offset on; nil follows every execution of the session from its
// beginning, and an empty map follows none. Executions returns those that are followed.
//
// The error wraps ErrNoSession or ErrSessionLost if the session is gone.
func Attach(
	ctx context.Context, url, sessionID, resumeToken string, offsets map[string]int64, opt Options,
) (*Client, error) {
	c := newClient(url, opt)
	c.connected.SessionID, c.connected.ResumeToken = sessionID, resumeToken
	if offsets != nil {
		offsets = maps.Clone(offsets)
	}
	if err := c.open(ctx, &resumeRequest{token: resumeToken, offsets: offsets, attach: true}); err != nil {
		if end := endOfSession(err); end != nil {
			err = end
		}
		return nil, fmt.Errorf("attaching to session %s: %w", sessionID, err)
	}
	return c, nil
}

func newClient(url string, opt Options) *Client {
	opt = opt.withDefaults()
	ctx, hangUp := context.WithCancelCause(context.Background())
	return &Client{
		url: url, opt: opt, log: opt.Logger,
		ctx: ctx, hangUp: hangUp,
		done: make(chan struct{}), stopped: make(chan struct{}),
		work:  make(chan struct{}, 1),
		toAck: make(map[string]*Execution), strays: make(map[string]wire.AckParams), streams: make(map[string]uint16),
		execs: make(map[string]*Execution),
	}
}

// ID returns the session's id.
func (c *Client) ID() string { return c.Connected().SessionID }

// Connected returns the server's greeting. After Attach it holds only the id, the token and the
// limits.
func (c *Client) Connected() wire.Connected {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

// Limits returns the session's limits, as announced by the server.
func (c *Client) Limits() wire.Limits { return c.Connected().Limits }

// Done is closed when the session has ended for this Client; Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns nil while the session lives, and then the error that says why it ended.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// Execute starts a command. Without params.ExecutionID it chooses one; params.Window is always
// Options.Window. If the session already has an execution with that id, Execute follows it from its
// beginning and sets Result().Attached.
//
// If ctx ends before the answer, the command may have been started and keep running: Execute with
// the same ExecutionID follows it.
func (c *Client) Execute(ctx context.Context, params wire.ExecuteParams) (*Execution, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e, k, err := c.newExecute(params)
	if err != nil {
		return nil, err
	}
	if err := c.submit(k); err != nil {
		c.forget(e)
		return nil, err
	}
	return c.awaitExecute(ctx, e, k)
}

// newExecute registers an execution to receive its messages, and returns it with its request.
func (c *Client) newExecute(params wire.ExecuteParams) (*Execution, *call, error) {
	if params.ExecutionID == "" {
		params.ExecutionID = strings.ToLower(rand.Text())
	}
	params.Window = int64(c.opt.Window)
	k, err := c.newCall(wire.MethodExecute, params, retrySafe)
	if err != nil {
		return nil, nil, err
	}
	e := newExecution(c, params.ExecutionID, 0)
	if params.Terminal != nil {
		e.writer = newWriter()
	}
	k.then = e.answered
	return e, k, c.follow(e)
}

// newWriter names a Client among those that type into a terminal.
func newWriter() string { return strings.ToLower(rand.Text()) }

// awaitExecute waits for the answer to a submitted execute.
func (c *Client) awaitExecute(ctx context.Context, e *Execution, k *call) (*Execution, error) {
	_, sent, err := c.await(ctx, k)
	if err == nil {
		return e, nil
	}
	c.forget(e)
	if sent && ctx.Err() != nil {
		err = fmt.Errorf("%w (execution %s may be running)", err, e.id)
	}
	return nil, err
}

// Executions returns the executions that this Client follows and that were not read to their end:
// an Execution on which only Wait is called stays until Discard. Those whose execute is not
// answered yet are not included.
func (c *Client) Executions() map[string]*Execution {
	all := c.followed()
	maps.DeleteFunc(all, func(_ string, e *Execution) bool { return e.pending() })
	return all
}

// followed returns every execution that messages are routed to.
func (c *Client) followed() map[string]*Execution {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.execs)
}

// Control pauses, resumes or cancels any execution of the session.
func (c *Client) Control(ctx context.Context, params wire.ControlParams) (*wire.ControlResult, error) {
	result := new(wire.ControlResult)
	if err := c.request(ctx, wire.MethodControl, params, result, retrySafe); err != nil {
		return nil, err
	}
	return result, nil
}

// Signal sends a signal to any execution of the session. It fails with
// ErrUnknownOutcome if the connection ends before the answer, unless the signal is KILL.
func (c *Client) Signal(ctx context.Context, params wire.SignalParams) error {
	r := retryNever
	if strings.EqualFold(strings.TrimPrefix(strings.ToUpper(params.Signal), "SIG"), "KILL") {
		r = retrySafe
	}
	return c.request(ctx, wire.MethodSignal, params, nil, r)
}

// Status asks for the session's executions and limits.
func (c *Client) Status(ctx context.Context) (*wire.StatusResult, error) {
	result := new(wire.StatusResult)
	if err := c.request(ctx, wire.MethodStatus, struct{}{}, result, retrySafe); err != nil {
		return nil, err
	}
	return result, nil
}

// Close ends the session and everything that runs in it. If the server cannot be told within 5 s,
// the session ends there when its resume window has passed, and Close says so. Closing again, or
// after Detach, does nothing.
func (c *Client) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := c.request(ctx, wire.MethodClose, struct{}{}, nil, retrySafe)
	c.disconnect(ErrClosed)
	for _, gone := range []error{ErrClosed, ErrDetached, ErrNoSession, ErrSessionLost, ErrSessionEnded} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("closing session %s: %w", c.ID(), err)
	}
	return nil
}

// Leave ends the connection of a Client that has done its part in a session that others may use
// too: the session ends with its last connection. Close ends it for everybody.
func (c *Client) Leave() { c.disconnect(ErrClosed) }

// Detach ends the connection and leaves the session running on the server for its resume window. It
// drops buffered events that were not read: the returned offsets are those after the last events
// that Next returned.
func (c *Client) Detach() Session {
	s := c.session()
	for id, e := range c.Executions() {
		if offset, follow := e.detach(); follow {
			s.Offsets[id] = offset
		}
	}
	c.disconnect(ErrDetached)
	return s
}

// Session returns what Detach would return now. The Client stays attached.
func (c *Client) Session() Session {
	s := c.session()
	for id, e := range c.Executions() {
		s.Offsets[id] = e.Offset()
	}
	return s
}

func (c *Client) session() Session {
	greeting := c.Connected()
	return Session{URL: c.url, ID: greeting.SessionID, ResumeToken: greeting.ResumeToken, Offsets: make(map[string]int64)}
}

// disconnect hangs up and waits up to closeTimeout for all goroutines to end.
func (c *Client) disconnect(why error) {
	c.hangUp(why)
	select {
	case <-c.stopped:
	case <-time.After(closeTimeout): // the server does not answer the close frame
	}
}

// closeStatus returns the close code for the WebSocket: only 1000 also ends the session.
func (c *Client) closeStatus() websocket.StatusCode {
	if errors.Is(context.Cause(c.ctx), ErrDetached) {
		return websocket.StatusGoingAway
	}
	return websocket.StatusNormalClosure
}
