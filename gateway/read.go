package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

var errMessageTooBig = errors.New("message too big")

// read is the reader goroutine. When reading fails it ends the connection.
func (s *socket) read() {
	defer close(s.readerDone)
	defer s.conn.turn.GiveBack()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in the reader", "session", s.sessionID(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.end(wire.CauseInternal)
		}
	}()
	defer func() { s.permit.release() }()
	var err error
	for err == nil {
		s.awaitCapacity()
		s.permit.release()
		var typ websocket.MessageType
		var r io.Reader
		if typ, r, err = s.ws.Reader(context.Background()); err == nil {
			err = s.readMessage(typ, r)
		}
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
	case errors.Is(err, errConnectionEnds):
		return wire.CauseInternal // which has no effect: there is a cause
	case s.conn.stalled.Load() || s.conn.aborted.Load():
		return wire.CauseWriteTimeout
	}
	return wire.CauseClientGone
}

// handle passes one message to the engine, or answers it. It does not retain frame.
func (s *socket) handle(typ websocket.MessageType, frame []byte) {
	size := max(len(frame), 1)
	ending := s.isEnding() // nothing is answered any more
	if typ != websocket.MessageText {
		if !ending {
			s.handleBinary(frame)
		}
		return
	}
	req, err := wire.Decode(frame)
	pass := err == nil && req.Method != wire.MethodPong // netConn has already recorded that the client is alive
	if ack, ok := req.Params.(*wire.AckParams); ok && pass {
		pass, err = s.acknowledge(ack)
	}
	if ending && (!pass || req.Method != wire.MethodAck) {
		return
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

// isEnding reports whether the connection ends, if only once everything is sent.
func (s *socket) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending != ""
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
	switch p := params.(type) {
	case *wire.ExecuteParams:
		if p.Traceparent == "" {
			p.Traceparent = s.traceparent
		}
	case *wire.InputParams:
		s.permit.release() // from here on the engine's budget of input counts it, for as long as that takes
	}
	s.engineMu.Lock()
	defer s.engineMu.Unlock()
	if !s.closed {
		s.engine.Request(id, params)
	}
}
