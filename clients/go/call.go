package troupe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// repeat says what happens to a request whose connection ended after the request was written and
// before it was answered.
type repeat int

const (
	retrySafe   repeat = iota // it is sent again on the next connection
	retryNever                // it fails with ErrUnknownOutcome
	retryOffset               // as retrySafe if the server takes inputs by their offset, else as retryNever
)

// call is one request. Client.mu guards all fields except done.
type call struct {
	id      string
	method  string
	kind    websocket.MessageType
	frame   []byte
	input   *input // makes frame for the connection that it is sent on; nil but for input
	repeat  repeat
	sent    bool        // on the current connection
	written bool        // on any connection
	then    func(reply) // called by the connection's reader before its next read; may be nil
	done    chan reply  // capacity 1
}

type reply struct {
	result json.RawMessage
	err    error // *wire.Error, or the session's end
}

func newReply(m *wire.Message) reply {
	r := reply{result: m.Result}
	if m.Err != nil {
		r.err = m.Err // a nil *wire.Error in an error would not be nil
	}
	return r
}

// newCall encodes a request. It refuses frames larger than the server's max-message, for which the
// server would end the connection.
func (c *Client) newCall(method string, params any, r repeat) (*call, error) {
	k := c.emptyCall(method, r)
	frame, err := wire.AppendRequest(nil, wire.ID(k.id), method, params)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", method, err)
	}
	if limit := c.Limits().MaxMessage; limit > 0 && int64(len(frame)) > limit {
		return nil, fmt.Errorf("%s of %d bytes: %w (max-message is %d)", method, len(frame), ErrTooLarge, limit)
	}
	k.frame = frame
	return k, nil
}

func (c *Client) emptyCall(method string, r repeat) *call {
	return &call{
		id: strconv.FormatInt(c.nextID.Add(1), 10), method: method, kind: websocket.MessageText, repeat: r,
		done: make(chan reply, 1),
	}
}

// submit queues k for the current or the next connection.
func (c *Client) submit(k *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return c.end
	}
	c.calls = append(c.calls, k)
	signal(c.work)
	return nil
}

// do submits k and waits for its answer, as await does.
func (c *Client) do(ctx context.Context, k *call) (result json.RawMessage, sent bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if err := c.submit(k); err != nil {
		return nil, false, err
	}
	return c.await(ctx, k)
}

// await waits for the answer to k. If ctx ends first, sent reports whether the server may have
// received the request; if not, it never will.
func (c *Client) await(ctx context.Context, k *call) (result json.RawMessage, sent bool, err error) {
	select {
	case r := <-k.done:
		return r.result, true, r.err
	case <-ctx.Done():
		return nil, c.withdraw(k), fmt.Errorf("waiting for the answer to %s: %w", k.method, ctx.Err())
	}
}

// request is do for callers that need not know whether the request was sent when ctx ended.
func (c *Client) request(ctx context.Context, method string, params, result any, r repeat) error {
	k, err := c.newCall(method, params, r)
	if err != nil {
		return err
	}
	raw, _, err := c.do(ctx, k)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("answer to %s: %w", method, err)
	}
	return nil
}

// withdraw drops k and reports whether it was written. Input that was written stays, since later
// input follows it: if the connection ends, it must be repeated.
func (c *Client) withdraw(k *call) (sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.written && k.input != nil {
		k.input.data = bytes.Clone(k.input.data) // the caller may change it now
	} else {
		c.removeLocked(func(o *call) bool { return o == k })
	}
	return k.written
}

// removeLocked takes the calls that match out of the queue. c.mu is held.
func (c *Client) removeLocked(match func(*call) bool) (removed []*call) {
	kept := c.calls[:0]
	for _, k := range c.calls {
		if !match(k) {
			kept = append(kept, k)
			continue
		}
		removed = append(removed, k)
	}
	clear(c.calls[len(kept):])
	c.calls = kept
	return removed
}

// nextCall marks the first request that was not yet written as written and returns it, or nil.
func (c *Client) nextCall() *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		if !k.sent {
			k.sent, k.written = true, true
			if k.input != nil {
				k.kind, k.frame = k.input.message(wire.ID(k.id), c.streams[k.input.execution])
			}
			return k
		}
	}
	return nil
}

// answer passes a reply to its request if the request is still waiting.
func (c *Client) answer(id wire.ID, r reply) {
	c.mu.Lock()
	removed := c.removeLocked(func(k *call) bool { return k.id == string(id) })
	c.mu.Unlock()
	resolve(removed, r)
}

func resolve(calls []*call, r reply) {
	for _, k := range calls {
		if k.then != nil {
			k.then(r)
		}
		k.done <- r
	}
}

// socketLost decides which requests are sent again after the connection that they were written to
// has ended. tooBig means that the server refused one of them for its size.
func (c *Client) socketLost(tooBig bool) {
	c.mu.Lock()
	unknown := c.removeLocked(func(k *call) bool {
		return k.sent && (tooBig || k.repeat == retryNever || k.repeat == retryOffset && !c.offsets)
	})
	clear(c.streams)
	clear(c.toAck)
	clear(c.strays)
	for _, k := range c.calls {
		k.sent = false
	}
	c.mu.Unlock()
	for _, e := range c.followed() {
		e.connectionLost()
	}
	err := ErrUnknownOutcome
	if tooBig {
		err = fmt.Errorf("%w: %w", ErrTooLarge, ErrUnknownOutcome)
	}
	resolve(unknown, reply{err: err})
}
