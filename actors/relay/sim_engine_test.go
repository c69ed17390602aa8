package relay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is the engine of the simulation: sessions with executions whose output is
// known byte for byte, and which counts what it was asked to do.

const maxSimSessions = 100

type simSession struct {
	pod   *simPod
	id    string
	execs map[string]*simExec
	order []string
	conns int
}

// simConn is a connection of the engine, whose client is an origin.
type simConn struct {
	pod     *simPod
	origin  *simOrigin
	opening OpenParams
	session *simSession
	last    int             // number of the last request
	follows map[string]bool // executions
	missed  map[string]bool
	slow    bool // output was still under way when it had to end
	told    bool // the origin has said that the client is gone
	closed  bool // and the engine has taken it
}

func (p *simPod) connect(h *simOrigin, o OpenParams) *simConn {
	c := &simConn{pod: p, origin: h, opening: o, follows: map[string]bool{}, missed: map[string]bool{}}
	if o.Session == "" {
		p.mail(func() { c.open() })
	}
	return c
}

func (c *simConn) reply(id wire.ID, result any, err *wire.Error) {
	c.origin.call(func() { c.origin.origin.Reply(c.pod.w.now, id, result, err) })
}

func (c *simConn) disconnect(cause wire.Cause) {
	c.origin.call(func() { c.origin.origin.Disconnect(c.pod.w.now, cause) })
}

// drain ends the session when its executions have.
func (c *simConn) drain() {
	if c.closed || c.session == nil {
		return
	}
	for _, x := range c.session.execs {
		if !x.sealed || x.window > 0 && !x.delivered {
			c.pod.after(100*time.Millisecond, c.drain)
			return
		}
	}
	c.pod.after(DefaultLeaveTimeout-time.Second, func() { c.slow = true })
	c.session.end()
	c.disconnect(wire.CauseDraining)
}

func (c *simConn) open() {
	p := c.pod
	if len(p.sessions) >= maxSimSessions || p.w.chance(5) {
		c.reply(nil, nil, wire.Errorf(wire.CodeSessionLimit, "full"))
		c.disconnect(wire.CauseSessionLimit)
		return
	}
	p.opened++
	s := &simSession{pod: p, id: fmt.Sprintf("%s.%d-%d", p.name, p.life, p.opened), execs: map[string]*simExec{}}
	p.sessions[s.id], c.session = s, s
	s.conns++
	p.w.logf("%s opens session %s", p.name, s.id)
	if p.w.chance(15) {
		p.after(p.w.upTo(10*time.Second), c.drain)
	}
	c.origin.call(func() {
		c.origin.origin.Notify(p.w.now, wire.MethodConnected, &wire.Connected{
			SessionID:   s.id,
			ResumeToken: "token of " + s.id, Pod: p.name,
		})
	})
}

// request checks that each request comes once, and those of a link in their order.
func (c *simConn) request(id wire.ID, params any) {
	w := c.pod.w
	if c.told {
		w.failf("a request after the end of its connection")
	}
	if len(id) > 0 {
		var n int
		fmt.Sscanf(string(id), "%d", &n)
		if n <= c.last {
			w.failf("request %d came after %d", n, c.last)
		}
		c.last = n
	}
	if x, ok := params.(*wire.ExecuteParams); ok {
		if w.executed[x.Cwd] {
			w.failf("request %s was executed twice", x.Cwd)
		}
		w.executed[x.Cwd] = true
	}
	c.pod.mail(func() { c.handle(id, params) })
}

func (c *simConn) handle(id wire.ID, params any) {
	p, w := c.pod, c.pod.w
	if c.closed {
		return
	}
	if r, ok := params.(*wire.ResumeParams); ok {
		c.resume(id, r)
		return
	}
	if c.session == nil {
		c.reply(id, nil, wire.Errorf(wire.CodeNoSession, "no session"))
		return
	}
	switch r := params.(type) {
	case *wire.ExecuteParams:
		x := c.session.execs[r.ExecutionID]
		if x == nil {
			x = c.session.run(r)
		}
		p.after(w.upTo(time.Millisecond), func() {
			if !c.closed {
				c.reply(id, &wire.ExecuteResult{Status: "started", ExecutionID: r.ExecutionID}, nil)
				c.follow(x, 0)
			}
		})
	case *wire.StatusParams:
		c.reply(id, &wire.StatusResult{
			SessionID: c.session.id, Pod: p.name,
			CreatedAt: strings.Repeat("x", w.rng.IntN(3000)),
		}, nil)
	case *wire.CloseParams:
		c.reply(id, struct{}{}, nil)
		c.session.end()
		c.disconnect(wire.CauseSessionEnded)
	case *wire.PongParams:
	case *wire.AckParams:
		if x := c.session.execs[r.ExecutionID]; x != nil {
			x.ack(w, r)
		}
	default:
		w.failf("a request of type %T", params)
	}
}

func (c *simConn) resume(id wire.ID, r *wire.ResumeParams) {
	w, p := c.pod.w, c.pod
	s := p.sessions[c.opening.Session]
	if s == nil || r.ResumeToken != "token of "+s.id {
		code := wire.CodeNoSession
		if !strings.HasPrefix(c.opening.Session, fmt.Sprintf("%s.%d-", p.name, p.life)) {
			code = wire.CodeSessionLost // of an earlier life
		}
		c.reply(id, nil, wire.Errorf(code, "no such session"))
		c.disconnect(wire.CauseNoSession)
		return
	}
	if r.Executions == nil {
		w.failf("an empty list of executions became none")
	}
	if c.session == nil {
		c.session = s
		s.conns++
	}
	res := &wire.ResumeResult{SessionID: s.id, Executions: map[string]wire.ExecutionStatus{}}
	for id := range r.Executions {
		if x := s.execs[id]; x != nil {
			res.Executions[id] = wire.ExecutionStatus{Offset: x.end}
		} else {
			res.Unknown = append(res.Unknown, id)
		}
	}
	c.reply(id, res, nil)
	for _, id := range s.order {
		if after, ok := r.Executions[id]; ok {
			c.follow(s.execs[id], after)
		}
	}
}

func (c *simConn) follow(x *simExec, after int64) {
	if after > x.end {
		c.pod.w.failf("asked for %d of %d bytes", after, x.end)
	}
	if x.window > 0 && after < x.acked && !c.origin.sock().dead { // the resume of a lost connection may be late
		c.pod.w.failf("asked for %s from %d on, of which %d are acknowledged", x.id, after, x.acked)
	}
	x.ack(c.pod.w, &wire.AckParams{Offset: after})
	c.follows[x.id] = true
	delete(c.missed, x.id)
	taken := false
	c.origin.call(func() {
		taken = c.origin.origin.Follow(c.pod.w.now, Feed{
			ExecutionID: x.id, Encoding: wire.EncodingBase64, Window: x.window,
			Open: func(notify func()) (Cursor, error) {
				return x.cursor(after, notify), nil
			},
		})
	})
	if !taken {
		c.missed[x.id] = true
	}
}

// originClosed compares what the origin reports about the client to what the client received.
func (c *simConn) originClosed(cause wire.Cause, delivered map[string]int64) {
	w := c.pod.w
	if c.told {
		w.failf("the engine is told twice that a client is gone")
	}
	c.told = true
	w.logf("%s: origin %v: client gone: %s %v", c.pod.name, c.origin.id.String()[:6], cause, delivered)
	c.pod.mail(func() { c.takeClosed(cause, delivered) })
}

func (c *simConn) takeClosed(cause wire.Cause, delivered map[string]int64) {
	w := c.pod.w
	c.closed = true
	if c.session == nil {
		return
	}
	c.session.conns--
	if delivered != nil {
		sock := c.origin.sock()
		for id := range c.follows {
			offset, unread := delivered[id]
			switch got := sock.got(id); {
			case !unread && !c.missed[id] && !got.completed:
				w.failf("the owner believes that the client has all of %s", id)
			case unread && got.opened && offset > got.offset:
				w.failf("the owner believes that the client has %d bytes of %s, which has %d", offset, id, got.offset)
			}
		}
	}
	if cause == wire.CauseClientDone {
		c.session.end()
	}
}

// sock is the socket at the other end, of which the owner knows nothing.
func (h *simOrigin) sock() *socket {
	for _, u := range h.pod.w.users {
		for _, s := range u.sockets {
			if s.link == h.id {
				return s
			}
		}
	}
	h.pod.w.failf("nobody has link %v", h.id)
	return nil
}

func (s *simSession) end() { delete(s.pod.sessions, s.id) }

// simExec is an execution: its output, which grows for a while.
type simExec struct {
	id      string
	end     int64
	runs    []simRun
	marks   []simMark
	sealed  bool
	lost    bool
	waiting []*simCursor

	// With a window, its output is retained until it is acknowledged.
	window    int64
	acked     int64
	delivered bool   // to its end
	blocked   func() // it waits for its reader
}

// simUnread is how much may be unacknowledged before an execution with a window waits.
const simUnread = 12 << 10

// ack makes room, and has a command that waits go on.
func (x *simExec) ack(w *world, r *wire.AckParams) {
	if r.Offset > x.end || r.Completed && !x.sealed {
		w.failf("%s: an ack of %d, completed %v, of %d bytes", x.id, r.Offset, r.Completed, x.end)
	}
	x.acked, x.delivered = max(x.acked, r.Offset), x.delivered || r.Completed
	if goOn := x.blocked; goOn != nil && x.end-x.acked < simUnread {
		x.blocked = nil
		goOn()
	}
}

// simRun is a part of the output of one stream.
type simRun struct {
	end       int64
	stream    transcript.Stream
	truncated bool
}

type simMark struct {
	offset int64
	mark   any
}

// byteAt is the content of every execution.
func byteAt(id string, offset int64) byte {
	return byte(offset*7+offset>>8) ^ id[len(id)-1]
}

func (s *simSession) run(r *wire.ExecuteParams) *simExec {
	p, w := s.pod, s.pod.w
	x := &simExec{id: r.ExecutionID, window: r.Window}
	s.execs[x.id] = x
	s.order = append(s.order, x.id)
	pieces := w.rng.IntN(12)
	var step func()
	step = func() {
		if x.window > 0 && x.end-x.acked >= simUnread {
			x.blocked = step
			w.blocked++
			return
		}
		if pieces--; pieces < 0 {
			if x.window == 0 && w.chance(10) {
				x.lost = true // evicted: its readers get a gap
			}
			x.mark(&wire.Completed{ExecutionID: x.id, OutputBytes: x.end, Reason: wire.ReasonExited})
			x.sealed = true
			x.wake()
			return
		}
		for range 1 + w.rng.IntN(3) {
			n := int64(1 + w.rng.IntN(200))
			if w.chance(20) {
				n = int64(1 + w.rng.IntN(6000))
			}
			x.end += n
			x.runs = append(x.runs, simRun{x.end, transcript.Stream(w.rng.IntN(2)), w.chance(5)})
		}
		if w.chance(5) {
			x.mark(&wire.Warning{ExecutionID: x.id, Offset: x.end})
		}
		x.wake()
		d := w.upTo(5 * time.Millisecond)
		if w.chance(30) {
			d = w.upTo(2 * time.Second)
		}
		p.after(d, step)
	}
	p.after(w.upTo(10*time.Millisecond), step)
	return x
}

func (x *simExec) mark(m any) { x.marks = append(x.marks, simMark{x.end, m}) }

func (x *simExec) wake() {
	waiting := x.waiting
	x.waiting = nil
	for _, c := range waiting {
		c.waits = false
		c.notify()
	}
}

// simCursor reads it as transcript.Cursor does.
type simCursor struct {
	x      *simExec
	offset int64
	next   int // mark
	waits  bool
	closed bool
	notify func()
}

func (x *simExec) cursor(after int64, notify func()) *simCursor {
	c := &simCursor{x: x, offset: after, notify: notify}
	for c.next < len(x.marks) && x.marks[c.next].offset < after {
		c.next++
	}
	return c
}

func (c *simCursor) Offset() int64 { return c.offset }

func (c *simCursor) Close() {
	c.closed = true
	for i, w := range c.x.waiting {
		if w == c {
			c.x.waiting = append(c.x.waiting[:i:i], c.x.waiting[i+1:]...)
			return
		}
	}
}

func (c *simCursor) Next(buf []byte) (transcript.Piece, error) {
	x := c.x
	if c.closed {
		return transcript.Piece{}, transcript.ErrClosed
	}
	bound := x.end
	if c.next < len(x.marks) {
		m := x.marks[c.next]
		if m.offset <= c.offset {
			c.next++
			return transcript.Piece{Offset: c.offset, Mark: m.mark}, nil
		}
		bound = m.offset
	}
	switch {
	case c.offset < x.end && x.lost:
		gap := x.end - c.offset
		c.offset = x.end
		return transcript.Piece{Gap: gap, Offset: c.offset}, nil
	case c.offset < x.end:
		i := 0
		for x.runs[i].end <= c.offset {
			i++
		}
		n := min(x.runs[i].end, bound) - c.offset
		n = min(n, int64(len(buf)))
		for j := range n {
			buf[j] = byteAt(x.id, c.offset+j)
		}
		c.offset += n
		return transcript.Piece{Stream: x.runs[i].stream, Truncated: x.runs[i].truncated, Data: buf[:n], Offset: c.offset},
			nil
	case x.sealed:
		return transcript.Piece{}, io.EOF
	}
	if !c.waits {
		c.waits = true
		x.waiting = append(x.waiting, c)
	}
	return transcript.Piece{}, transcript.ErrWait
}
