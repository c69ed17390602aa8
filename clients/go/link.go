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
	// writeTimeout ends a connection that takes nothing for so long: requests are small.
	writeTimeout = 10 * time.Second
	// keepBuffer is the largest read buffer that outlives its frame.
	keepBuffer = 1 << 20
)

var pongFrame = []byte(`{"jsonrpc":"2.0","method":"pong"}`)

// link is one WebSocket of a Client: a reader, a writer and a watchdog.
type link struct {
	c      *Client
	ws     *websocket.Conn
	ctx    context.Context // ends with the link; its cause says why
	cancel context.CancelCauseFunc

	buf     []byte        // read buffer, reused
	pong    chan struct{} // capacity 1: a pong is due
	start   time.Time
	heard   atomic.Int64 // nanoseconds after start
	blocked atomic.Bool  // the reader waits for a consumer
}

func newLink(c *Client) *link {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &link{c: c, ctx: ctx, cancel: cancel, pong: make(chan struct{}, 1), start: time.Now()}
}

// touch notes that the server was heard.
func (l *link) touch() { l.heard.Store(int64(time.Since(l.start))) }

// fail ends the link at once. The first cause counts.
func (l *link) fail(cause error) {
	l.cancel(cause)
	_ = l.ws.CloseNow()
}

// serve reads until the link ends and returns why, after all its goroutines.
func (l *link) serve() error {
	l.c.mu.Lock()
	l.c.link = l
	l.c.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(l.write)
	wg.Go(l.watch)
	// Close and Detach end the link with a close frame, which the reader answers.
	closing := make(chan struct{})
	stop := context.AfterFunc(l.c.ctx, func() {
		defer close(closing)
		_ = l.ws.Close(l.c.closeStatus(), "")
		l.fail(context.Cause(l.c.ctx))
	})
	err := l.read()
	l.fail(err)
	if !stop() {
		<-closing
	}
	wg.Wait()
	return context.Cause(l.ctx)
}

func (l *link) read() error {
	for {
		frame, err := l.readFrame()
		if err != nil {
			return err
		}
		if err := l.c.route(l, frame); err != nil {
			return err
		}
		if l.ctx.Err() != nil {
			return context.Cause(l.ctx)
		}
	}
}

// readFrame reads one message into the link's buffer; it is valid until the next call.
func (l *link) readFrame() ([]byte, error) {
	// The link is ended by closing its socket, so reads need no context, which
	// would cost an allocation each.
	_, r, err := l.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	l.touch()
	if cap(l.buf) > keepBuffer {
		l.buf = nil
	}
	buf := l.buf[:0]
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), max(4096, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n > 0 {
			l.touch()
		}
		if errors.Is(err, io.EOF) {
			l.buf = buf
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// write sends requests and pongs until the link ends.
func (l *link) write() {
	for {
		if k := l.c.nextCall(); k != nil {
			if err := l.send(k.frame); err != nil {
				l.fail(err)
				return
			}
			continue
		}
		select {
		case <-l.c.work:
		case <-l.pong:
			if err := l.send(pongFrame); err != nil {
				l.fail(err)
				return
			}
		case <-l.ctx.Done():
			signal(l.c.work) // for the next link's writer
			return
		}
	}
}

func (l *link) send(frame []byte) error {
	ctx, cancel := context.WithTimeout(l.ctx, writeTimeout)
	defer cancel()
	return l.ws.Write(ctx, websocket.MessageText, frame)
}

// watch ends a link on which the server is silent. A WebSocket ping at a third
// of the time makes a live server answer, whatever its own ping interval is.
func (l *link) watch() {
	silence := l.c.opt.Silence
	if silence < 0 {
		return
	}
	ticker := time.NewTicker(silence / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.ctx.Done():
			return
		}
		quiet := time.Since(l.start) - time.Duration(l.heard.Load())
		switch {
		case l.blocked.Load(): // by the consumer, not by the server
		case quiet >= silence:
			l.fail(fmt.Errorf("%w for %s", ErrSilent, silence))
			return
		case quiet >= silence/3:
			ctx, cancel := context.WithTimeout(l.ctx, silence/3)
			_ = l.ws.Ping(ctx) // the answer touches; the lack of one is seen above
			cancel()
		}
	}
}

// route handles one message. A non-nil error ends the link.
func (c *Client) route(l *link, frame []byte) error {
	// Nearly every frame is output: it goes through a pooled buffer.
	buf := getBuffer()
	if out, data, ok := wire.DecodeOutput(frame, buf); ok {
		return c.routeOutput(l, &out, data)
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
		return c.routeOutput(l, m.Output, data)
	case m.Method != "":
		return c.routeNotification(l, m)
	}
	r := reply{result: m.Result}
	if m.Err != nil {
		r.err = m.Err
	}
	if string(m.ID) == string(wire.NullID) {
		c.log.Warn("error from the server", "err", r.err)
		return nil
	}
	c.answer(m.ID, r)
	return nil
}

func (c *Client) routeOutput(l *link, out *wire.Output, data []byte) error {
	e := c.lookup(out.ExecutionID)
	if e == nil {
		putBuffer(data)
		return nil
	}
	return e.receiveOutput(l, out, fit(data))
}
