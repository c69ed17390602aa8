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

	buf          []byte                     // for text, reused
	head         [wire.MaxOutputHeader]byte // of a binary message
	streams      map[uint16]string          // executions by the numbers in binary messages; the reader's
	pong         chan struct{}              // capacity 1: a pong is due
	start        time.Time
	acking       sync.Mutex   // held while acks are taken and written
	lastReceived atomic.Int64 // nanoseconds after start
	blocked      atomic.Bool  // the reader waits for a consumer
}

func newSocket(c *Client) *socket {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &socket{
		c: c, ctx: ctx, cancel: cancel, pong: make(chan struct{}, 1), start: time.Now(),
		streams: make(map[uint16]string),
	}
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
	var wg sync.WaitGroup
	wg.Go(s.write)
	wg.Go(s.watch)
	// Close and Detach end the socket with a close frame, which the reader answers.
	closing := make(chan struct{})
	stop := context.AfterFunc(s.c.ctx, func() {
		defer close(closing)
		_ = s.sendAcks()
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
		kind, r, err := s.nextReader()
		if err != nil {
			return err
		}
		if kind == websocket.MessageBinary {
			err = s.receiveBinary(r)
		} else if s.buf, err = s.readAll(r, s.buf[:0]); err == nil {
			err = s.c.route(s, s.buf)
		}
		if err != nil {
			return err
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
}

// nextReader waits for the next message. Text is read into s.buf.
func (s *socket) nextReader() (websocket.MessageType, io.Reader, error) {
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	// Closing the WebSocket ends the read, so it needs no context, which
	// would cost an allocation each.
	kind, r, err := s.ws.Reader(context.Background())
	if err == nil {
		s.touch()
	}
	return kind, r, err
}

// readAll appends a message to buf.
func (s *socket) readAll(r io.Reader, buf []byte) ([]byte, error) {
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
		k := s.c.nextCall()
		// The end that was read is acknowledged before Close asks for the session's end.
		if err := s.sendAcks(); err != nil {
			s.fail(err)
			return
		}
		if k != nil {
			if err := s.send(k.kind, k.frame); err != nil {
				s.fail(err)
				return
			}
			continue
		}
		select {
		case <-s.c.work:
		case <-s.pong:
			if err := s.send(websocket.MessageText, pongFrame); err != nil {
				s.fail(err)
				return
			}
		case <-s.ctx.Done():
			signal(s.c.work) // for the next socket's writer
			return
		}
	}
}

func (s *socket) send(kind websocket.MessageType, frame []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, writeTimeout)
	defer cancel()
	return s.ws.Write(ctx, kind, frame)
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

// receiveBinary reads and handles a binary message. Its payload alone goes to a pooled buffer, which
// the consumer returns.
func (s *socket) receiveBinary(r io.Reader) error {
	n, err := io.ReadFull(r, s.head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	f, bad := wire.ParseOutputFrame(s.head[:n])
	if bad != nil {
		return fmt.Errorf("binary message: %w", bad)
	}
	id, open := s.streams[f.Stream]
	if !open {
		return fmt.Errorf("binary message: stream %d was not opened", f.Stream)
	}
	data := append(getBuffer(), f.Payload...)
	if err == nil {
		if data, err = s.readAll(r, data); err != nil {
			return err
		}
	}
	out := &wire.Output{
		ExecutionID: id, Type: wire.Stdout, Encoding: wire.EncodingBase64, // its bytes are the command's
		Truncated: f.Truncated, Offset: f.Offset, Gap: f.Gap,
	}
	if f.Stderr {
		out.Type = wire.Stderr
	}
	return s.c.routeOutput(s, out, data)
}

func (c *Client) routeOutput(s *socket, out *wire.Output, data []byte) error {
	e := c.lookup(out.ExecutionID)
	if e == nil { // it is not followed any more
		putBuffer(data)
		c.acknowledgeStray(wire.AckParams{ExecutionID: out.ExecutionID, Offset: out.Offset})
		return nil
	}
	return e.receiveOutput(s, out, fit(data))
}
