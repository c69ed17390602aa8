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

// smallMessage bounds the size of pooled read buffers. Larger ones are left to the garbage
// collector: otherwise rare large messages would keep large buffers in memory.
const smallMessage = 64 << 10

var readBuffers = sync.Pool{New: func() any { return new([]byte) }}

var errMessageTooBig = errors.New("message too big")

// read is the reader goroutine. When reading fails it ends the connection.
func (s *socket) read() {
	defer close(s.readerDone)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in the reader", "session", s.sessionID(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.end(wire.CauseInternal)
		}
	}()
	var err error
	for err == nil && s.awaitCapacity() {
		var typ websocket.MessageType
		var r io.Reader
		if typ, r, err = s.ws.Reader(context.Background()); err == nil {
			err = s.readMessage(typ, r)
		}
	}
	if err == nil {
		return
	}
	cause := s.readCause(err)
	s.end(cause)
	if cause == wire.CauseClientGone {
		s.conn.abort() // otherwise a pending write would last for the write timeout
	}
}

// readCause returns the cause of a failed read.
func (s *socket) readCause(err error) wire.Cause {
	switch {
	case errors.Is(err, errMessageTooBig):
		return wire.CauseTooBig
	case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
		return wire.CauseClientDone
	case s.conn.stalled.Load() || s.conn.aborted.Load():
		return wire.CauseWriteTimeout
	}
	return wire.CauseClientGone
}

// readMessage reads one message and handles it. It takes a buffer only once a message has begun, so
// that an idle connection holds none.
func (s *socket) readMessage(typ websocket.MessageType, r io.Reader) error {
	buf, ok := readBuffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	frame, err := readAll((*buf)[:0], r, s.g.cfg.MaxMessage)
	defer func() {
		if cap(frame) <= smallMessage {
			*buf = frame
		}
		readBuffers.Put(buf)
	}()
	if err != nil {
		return err
	}
	s.g.metrics.messagesReceived.Inc()
	s.handle(typ, frame)
	return nil
}

// readAll appends up to limit bytes from r to b.
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

// handle passes one message to the engine, or answers it. It does not retain frame.
func (s *socket) handle(typ websocket.MessageType, frame []byte) {
	size := max(len(frame), 1)
	if typ != websocket.MessageText {
		s.handleBinary(frame)
		return
	}
	req, err := wire.Decode(frame)
	pass := err == nil && req.Method != wire.MethodPong // netConn has already recorded that the client is alive
	if ack, ok := req.Params.(*wire.AckParams); ok && pass {
		pass, err = s.acknowledge(ack)
	}
	if !pass {
		s.g.metrics.answered(methodLabel(req, err), err)
		if len(req.ID) > 0 {
			s.answer(req.ID, size, struct{}{}, err)
		}
		return
	}
	id := s.admit(request{id: req.ID, method: req.Method, size: size})
	s.request(id, req.Params)
}

// methodLabel keeps method names that clients invent out of the metrics.
func methodLabel(req wire.Request, err *wire.Error) string {
	switch {
	case err != nil && err.Code == wire.CodeMethodNotFound:
		return methodUnknown
	case req.Method == "":
		return methodInvalid
	}
	return req.Method
}

// request passes a request to the engine, unless the connection has ended.
func (s *socket) request(id wire.ID, params any) {
	if p, ok := params.(*wire.ExecuteParams); ok && p.Traceparent == "" {
		p.Traceparent = s.traceparent
	}
	s.engineMu.Lock()
	defer s.engineMu.Unlock()
	if !s.closed {
		s.engine.Request(id, params)
	}
}
