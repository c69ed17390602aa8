package fileserver

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// link is a client of a session that has no socket. The engine takes it for one more connection, so it
// has the rights of its caller, and reaches sessions of any pod. It implements actors.Sink.
type link struct {
	conn *actors.Connection
	wake chan struct{}           // capacity 1: there may be output
	over context.Context         // ends with the connection; its cause says why
	end  context.CancelCauseFunc // of over

	mu      sync.Mutex
	last    uint64                  // id of a request
	waiting map[string]chan outcome // for the answers to requests, each of capacity 1
	feed    *actors.Feed            // the output that is to be read; nil: none has come, or it was taken
}

// outcome is the answer to a request.
type outcome struct {
	result any
	err    *wire.Error
}

// attachTimeout bounds how long a session may take to answer, which may be on a pod that is gone.
const attachTimeout = 15 * time.Second

// attach connects to a session and follows the executions that offsets names. The caller closes the link.
func (h *Handler) attach(r *http.Request, offsets map[string]int64) (*link, *wire.ResumeResult, error) {
	session := r.PathValue("session")
	caller, err := h.cfg.Caller(r, session)
	if err != nil {
		return nil, nil, err
	}
	l := &link{wake: make(chan struct{}, 1), waiting: map[string]chan outcome{}}
	l.over, l.end = context.WithCancelCause(context.WithoutCancel(r.Context()))
	l.conn = h.cfg.Engine.Connect(actors.ConnectRequest{
		Subject: caller.Subject, Remote: r.RemoteAddr, SessionID: session,
	}, l)
	ctx, cancel := context.WithTimeout(r.Context(), attachTimeout)
	defer cancel()
	result, err := l.call(ctx, &wire.ResumeParams{ResumeToken: caller.ResumeToken, Executions: offsets})
	resumed, ok := result.(*wire.ResumeResult)
	if err == nil && !ok {
		err = problemf(http.StatusInternalServerError, "", "the session answered with %T", result)
	}
	if err != nil {
		l.close()
		return nil, nil, err
	}
	return l, resumed, nil
}

// close gives the connection up. The session stays, and what was sent to it still arrives.
func (l *link) close() {
	l.conn.Closed(wire.CauseClientGone, nil)
	l.end(context.Canceled)
}

// send makes a request, whose answer await returns.
func (l *link) send(params any) <-chan outcome {
	ch := make(chan outcome, 1)
	l.mu.Lock()
	l.last++
	id := strconv.FormatUint(l.last, 10)
	l.waiting[id] = ch
	l.mu.Unlock()
	l.conn.Request(wire.ID(id), params)
	return ch
}

// await waits for an answer.
func (l *link) await(ctx context.Context, ch <-chan outcome) (any, error) {
	var a outcome
	select {
	case a = <-ch:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.over.Done():
		select {
		case a = <-ch: // it came before the end
		default:
			return nil, context.Cause(l.over)
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.result, nil
}

// call makes a request and waits for its answer.
func (l *link) call(ctx context.Context, params any) (any, error) {
	return l.await(ctx, l.send(params))
}

// takeFeed returns the output that is to be read, once.
func (l *link) takeFeed() *actors.Feed {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.feed
	l.feed = nil
	return f
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Reply implements actors.Sink.
func (l *link) Reply(id wire.ID, result any, err *wire.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch := l.waiting[string(id)]; ch != nil {
		delete(l.waiting, string(id))
		ch <- outcome{result, err}
	}
}

// Notify implements actors.Sink. Nothing that a session tells its clients concerns a transfer.
func (l *link) Notify(string, any) {}

// Follow implements actors.Sink.
func (l *link) Follow(feed actors.Feed) bool {
	l.mu.Lock()
	l.feed = &feed
	l.mu.Unlock()
	l.signal()
	return true
}

// Disconnect implements actors.Sink.
func (l *link) Disconnect(cause wire.Cause) {
	switch cause {
	case wire.CauseNoSession, wire.CauseSessionEnded, wire.CauseSessionLost:
		l.end(errNoSession())
	default:
		l.end(problemf(http.StatusServiceUnavailable, "", "the connection to the session ended: %s", cause))
	}
}
