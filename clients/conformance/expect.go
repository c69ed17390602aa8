package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// quiet fails if the client sends, or has sent, anything but pongs that no step has expected.
func (p *player) quiet(d time.Duration) error {
	select {
	case <-time.After(d):
	case <-p.done:
	}
	p.run.mu.Lock()
	defer p.run.mu.Unlock()
	switch {
	case len(p.inbox) > 0:
		return fmt.Errorf("the client sent %s", p.inbox[0])
	case p.count > p.seen:
		return fmt.Errorf("the client sent an ack: %v", p.acks)
	}
	return nil
}

func (p *player) expect(ctx context.Context, s *Step) error {
	switch {
	case s.Acked != nil:
		err := p.wait(ctx, func() bool {
			a := p.acks[s.Acked.ExecutionID]
			p.seen = p.count
			return a.Offset >= s.Acked.Offset && (a.Completed || !s.Acked.Completed)
		})
		if most := s.Acked.Most; err == nil && most > 0 && p.ackedUpTo(s.Acked.ExecutionID) > most {
			err = fmt.Errorf("it went beyond %d", most)
		}
		if err != nil {
			return fmt.Errorf("want an ack up to %d, completed %t: %w", s.Acked.Offset, s.Acked.Completed, err)
		}
		return nil
	case s.Pong:
		return p.wait(ctx, func() bool { return p.pongs > 0 })
	case s.Closed != 0:
		return p.awaitClose(ctx, s.Closed)
	case s.End:
		if err := p.request(ctx, &Step{Expect: wire.MethodClose, As: "\x00end"}); err != nil {
			return err
		}
		if err := p.send(ctx, &Step{Answer: "\x00end"}); err != nil {
			return err
		}
		return p.awaitClose(ctx, int(websocket.StatusNormalClosure))
	}
	return p.request(ctx, s)
}

// ackedUpTo is the offset that the client's acks have reached.
func (p *player) ackedUpTo(id string) int64 {
	p.run.mu.Lock()
	defer p.run.mu.Unlock()
	return p.acks[id].Offset
}

func (p *player) awaitClose(ctx context.Context, code int) error {
	err := p.run.wait(ctx, func() (bool, error) { return p.closed != nil, nil })
	got := websocket.CloseStatus(p.closed)
	if got == websocket.StatusNoStatusRcvd {
		got = websocket.StatusGoingAway // browsers may not send 1001; without a code it means the same
	}
	if err == nil && got != websocket.StatusCode(code) {
		err = fmt.Errorf("the connection ended with %w, want close code %d", p.closed, code)
	}
	return err
}

// next takes the next message of the client. A method that is not "" must be its own.
func (p *player) next(ctx context.Context, method string) (m *message, err error) {
	err = p.wait(ctx, func() bool {
		if len(p.inbox) == 0 {
			return false
		}
		m, p.inbox = p.inbox[0], p.inbox[1:]
		return true
	})
	if err == nil && method != "" && m.Method != method {
		err = fmt.Errorf("want %s, the client sent %s", method, m)
	}
	return m, err
}

// request takes the next message, which must be the one that s describes.
func (p *player) request(ctx context.Context, s *Step) error {
	m, err := p.next(ctx, s.Expect)
	if err != nil {
		return err
	}
	if s.Input != nil {
		p.last = m
		return matchInput(s.Input, m)
	}
	if err := Match(s.Params, m.Params); err != nil {
		return fmt.Errorf("params of %s: %w", m.Method, err)
	}
	if s.As != "" {
		p.asks[s.As] = m.ID
	}
	return nil
}

func matchInput(want *Input, m *message) error {
	data := []byte(want.Data)
	if want.Fill != nil {
		data = Fill(want.Fill[0], want.Fill[1])
	}
	f := m.input
	if f == nil {
		text, err := inputOf(m, want)
		if err != nil {
			return err
		}
		f = text
	}
	if f.Stream != want.Stream || f.Offset != want.Offset || f.EOF != want.EOF || !bytes.Equal(f.Payload, data) {
		return fmt.Errorf("want input of %d bytes at %d on stream %d, eof %t; the client sent %s",
			len(data), want.Offset, want.Stream, want.EOF, m)
	}
	return nil
}

// inputOf reads the request input, which a client sends while it knows no stream for the execution.
func inputOf(m *message, want *Input) (*wire.InputFrame, error) {
	var params wire.InputParams
	if m.Method != wire.MethodInput || json.Unmarshal(m.Params, &params) != nil || params.ExecutionID != want.ExecutionID {
		return nil, fmt.Errorf("want input for %s; the client sent %s", want.ExecutionID, m)
	}
	f := &wire.InputFrame{Stream: want.Stream, EOF: params.EOF, Offset: -1, Payload: []byte(params.Data)}
	if params.Offset != nil {
		f.Offset = *params.Offset
	}
	if params.Encoding == wire.EncodingBase64 {
		data, err := base64.StdEncoding.DecodeString(params.Data)
		if err != nil {
			return nil, err
		}
		f.Payload = data
	}
	return f, nil
}
