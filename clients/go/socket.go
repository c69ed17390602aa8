package troupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// maxServerMessage bounds a frame of the server. Its largest are 64 KiB of
	// output, six times that when escaped, and status of a session with many executions.
	maxServerMessage = 16 << 20
	// writeTimeout ends a connection that accepts no bytes for this long: requests are small.
	writeTimeout = 10 * time.Second
	// keepBuffer is the largest read buffer that outlives its frame.
	keepBuffer = 1 << 20
)

var pongFrame = []byte(`{"jsonrpc":"2.0","method":"pong"}`)

// socket is one WebSocket of a Client: a reader, a writer and a watchdog.
type socket struct {
	c      *Client
	ws     *websocket.Conn
	ctx    context.Context // ends with the socket; its cause says why
	cancel context.CancelCauseFunc

	buf          []byte        // read buffer, reused
	pong         chan struct{} // capacity 1: a pong is due
	start        time.Time
	lastReceived atomic.Int64 // nanoseconds after start
	blocked      atomic.Bool  // the reader waits for a consumer
}

func newSocket(c *Client) *socket {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &socket{c: c, ctx: ctx, cancel: cancel, pong: make(chan struct{}, 1), start: time.Now()}
}

// touch records that the server sent something.
func (s *socket) touch() { s.lastReceived.Store(int64(time.Since(s.start))) }

// fail ends the socket immediately. The first cause counts.
func (s *socket) fail(cause error) {
	s.cancel(cause)
	_ = s.ws.CloseNow()
}

// serve reads until the socket and all its goroutines have ended, and returns the cause.
func (s *socket) serve() error {
	s.c.mu.Lock()
	s.c.socket = s
	s.c.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(s.write)
	wg.Go(s.watch)
	// Close and Detach end the socket with a close frame, which the reader answers.
	closing := make(chan struct{})
	stop := context.AfterFunc(s.c.ctx, func() {
		defer close(closing)
		_ = s.ws.Close(s.c.closeStatus(), "")
		s.fail(context.Cause(s.c.ctx))
	})
	err := s.read()
	s.fail(err)
	if !stop() {
		<-closing
	}
	wg.Wait()
	return context.Cause(s.ctx)
}

func (s *socket) read() error {
	for {
		frame, err := s.readFrame()
		if err != nil {
			return err
		}
		if err := s.c.route(s, frame); err != nil {
			return err
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
}

// readFrame reads one message into the socket's buffer; it is valid until the next call.
func (s *socket) readFrame() ([]byte, error) {
	// Closing the WebSocket ends the read, so it needs no context, which
	// would cost an allocation each.
	_, r, err := s.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	s.touch()
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	buf := s.buf[:0]
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), max(4096, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n > 0 {
			s.touch()
		}
		if errors.Is(err, io.EOF) {
			s.buf = buf
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// write sends requests and pongs until the socket ends.
func (s *socket) write() {
	for {
		if k := s.c.nextCall(); k != nil {
			if err := s.send(k.frame); err != nil {
				s.fail(err)
				return
			}
			continue
		}
		select {
		case <-s.c.work:
		case <-s.pong:
			if err := s.send(pongFrame); err != nil {
				s.fail(err)
				return
			}
		case <-s.ctx.Done():
			signal(s.c.work) // for the next socket's writer
			return
		}
	}
}

func (s *socket) send(frame []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, writeTimeout)
	defer cancel()
	return s.ws.Write(ctx, websocket.MessageText, frame)
}

// watch ends a socket on which the server is silent. A WebSocket ping at a third
// of the time makes a live server answer, whatever its own ping interval is.
func (s *socket) watch() {
	silence := s.c.opt.KeepaliveTimeout
	if silence < 0 {
		return
	}
	ticker := time.NewTicker(silence / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		quiet := time.Since(s.start) - time.Duration(s.lastReceived.Load())
		switch {
		case s.blocked.Load(): // the consumer is slow, not the server
		case quiet >= silence:
			s.fail(fmt.Errorf("%w for %s", ErrKeepaliveTimeout, silence))
			return
		case quiet >= silence/3:
			ctx, cancel := context.WithTimeout(s.ctx, silence/3)
			_ = s.ws.Ping(ctx) // the answer calls touch; the case above notices its absence
			cancel()
		}
	}
}

// route handles one message. A non-nil error ends the socket.
func (c *Client) route(s *socket, frame []byte) error {
	// Nearly every frame is output, so it uses a pooled buffer.
	buf := getBuffer()
	if out, data, ok := wire.DecodeOutput(frame, buf); ok {
		return c.routeOutput(s, &out, data)
	}
	putBuffer(buf)
	m, err := wire.DecodeServerMessage(frame)
	if err != nil {
		return err
	}
	switch {
	case m.Output != nil:
		data, err := m.Output.Bytes()
		if err != nil {
			return err
		}
		return c.routeOutput(s, m.Output, data)
	case m.Method != "":
		return c.routeNotification(s, m)
	}
	r := newReply(&m)
	if string(m.ID) == string(wire.NullID) {
		c.log.Warn("error from the server", "err", r.err)
		return nil
	}
	c.answer(m.ID, r)
	return nil
}

func (c *Client) routeOutput(s *socket, out *wire.Output, data []byte) error {
	e := c.lookup(out.ExecutionID)
	if e == nil {
		putBuffer(data)
		return nil
	}
	return e.receiveOutput(s, out, fit(data))
}
