package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// smallMessage is the size of pooled read buffers. Larger ones are left to the
// garbage collector, so that one large message does not stay in memory for every connection that had one.
const smallMessage = 64 << 10

var readBuffers = sync.Pool{New: func() any { return new([]byte) }}

var errMessageTooBig = errors.New("message too big")

// read is the reader goroutine. It ends with the connection, and ends it.
func (c *conn) read() {
	defer close(c.readerDone)
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("panic in the reader", "session", c.sessionID(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.end(wire.CauseInternal)
		}
	}()
	var err error
	for err == nil && c.awaitRoom() {
		var typ websocket.MessageType
		var r io.Reader
		if typ, r, err = c.ws.Reader(context.Background()); err == nil {
			err = c.readMessage(typ, r)
		}
	}
	if err == nil {
		return
	}
	cause := c.readCause(err)
	c.end(cause)
	if cause == wire.CauseClientGone {
		c.sock.abort() // or a write to it would go on for the write timeout
	}
}

// readCause says why reading ended.
func (c *conn) readCause(err error) wire.Cause {
	switch {
	case errors.Is(err, errMessageTooBig):
		return wire.CauseTooBig
	case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
		return wire.CauseClientDone
	case c.sock.stalled.Load() || c.sock.cut.Load():
		return wire.CauseWriteTimeout
	}
	return wire.CauseClientGone
}

// readMessage reads one message and handles it. A buffer is taken only now that one has begun.
func (c *conn) readMessage(typ websocket.MessageType, r io.Reader) error {
	buf, ok := readBuffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	frame, err := readAll((*buf)[:0], r, c.g.cfg.MaxMessage)
	defer func() {
		if cap(frame) <= smallMessage {
			*buf = frame
		}
		readBuffers.Put(buf)
	}()
	if err != nil {
		return err
	}
	c.g.metrics.messagesReceived.Inc()
	c.handle(typ, frame)
	return nil
}

// readAll appends r to b, at most limit bytes.
func readAll(b []byte, r io.Reader, limit int64) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return b, errMessageTooBig
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return b, err
		}
	}
}

// handle passes one message on, or answers it. frame is the caller's afterwards.
func (c *conn) handle(typ websocket.MessageType, frame []byte) {
	size := max(len(frame), 1)
	if typ != websocket.MessageText {
		err := wire.Errorf(wire.CodeInvalidRequest, "send text frames: this one was binary")
		c.g.metrics.answered(methodInvalid, err)
		c.answer(wire.NullID, size, nil, err)
		return
	}
	req, err := wire.Decode(frame)
	if err != nil {
		c.g.metrics.answered(methodLabel(req, err), err)
		if len(req.ID) > 0 {
			c.answer(req.ID, size, nil, err)
		}
		return
	}
	if req.Method == wire.MethodPong {
		// It has done its work: the socket noted that the client was heard.
		c.g.metrics.answered(req.Method, nil)
		if len(req.ID) > 0 {
			c.answer(req.ID, size, struct{}{}, nil)
		}
		return
	}
	id := c.admit(request{id: req.ID, method: req.Method, size: size})
	c.request(id, req.Params)
}

// methodLabel keeps what clients make up out of the metrics.
func methodLabel(req wire.Request, err *wire.Error) string {
	switch {
	case err.Code == wire.CodeMethodNotFound:
		return methodUnknown
	case req.Method == "":
		return methodInvalid
	}
	return req.Method
}

// request passes a request to the engine, unless that was told of the end.
func (c *conn) request(id wire.ID, params any) {
	if p, ok := params.(*wire.ExecuteParams); ok && p.Traceparent == "" {
		p.Traceparent = c.traceparent
	}
	c.engineMu.Lock()
	defer c.engineMu.Unlock()
	if !c.closed {
		c.engine.Request(id, params)
	}
}
