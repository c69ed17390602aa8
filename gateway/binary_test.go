package gateway

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// connectBinary opens a WebSocket with binary frames.
func (f *fixture) connectBinary(t testing.TB, path string) (*client, *fakeConn) {
	t.Helper()
	ws, h := f.dial(t, path, nil)
	if ws == nil {
		t.Fatalf("handshake: %+v", h)
	}
	return &client{t, ws}, f.accepted(t)
}

// frame reads one binary message.
func (c *client) frame() wire.OutputFrame {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	typ, b, err := c.ws.Read(ctx)
	if err != nil || typ != websocket.MessageBinary {
		c.t.Fatalf("got %v %.200s %v, want a binary frame", typ, b, err)
	}
	f, err := wire.ParseOutputFrame(b)
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

func (c *client) sendFrame(b []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageBinary, b); err != nil {
		c.t.Fatal(err)
	}
}

func TestBinaryFramesCarryEveryByte(t *testing.T) {
	for _, path := range []string{"/ws?frames=binary", "/ws/mcp?frames=binary", "/ws?session=s&frames=binary"} {
		f := start(t, nil)
		all := make([]byte, 3*pullSize+17)
		for i := range all {
			all[i] = byte(i * 7)
		}
		out := newOutputs(t).create("x")
		_, _ = out.stdout.Write(all)
		out.complete()
		c, e := f.connectBinary(t, path)
		e.client.Follow(out.feed(5))
		c.want(`{"jsonrpc":"2.0","method":"process.stream","params":{"execution_id":"x","stream":1,"offset":5}}`)
		got := all[:5:5]
		for len(got) < len(all) {
			frame := c.frame()
			got = append(got, frame.Payload...)
			if frame.Stream != 1 || frame.Offset != int64(len(got)) || frame.Gap != 0 || frame.Stderr || frame.Truncated {
				t.Fatalf("got %+v after %d bytes", frame, len(got))
			}
		}
		if !bytes.Equal(got, all) {
			t.Error("the bytes are not those of the command")
		}
		if m := c.recv(); m.Method != wire.MethodCompleted {
			t.Errorf("got %s", m.Method)
		}
	}
}

func TestBinaryFramesSayStreamGapAndTruncation(t *testing.T) {
	f := start(t, nil)
	c, e := f.connectBinary(t, "/ws?frames=binary")
	s := &script{pieces: []transcript.Piece{
		{Data: []byte("a")},
		{Stream: transcript.Stderr, Data: []byte("\xff\xfe")},
		{Gap: 1 << 40},
		{Data: []byte("x[TRUNCATED]\n"), Truncated: true},
		{Data: []byte("b")},
		{Gap: 7},
	}}
	e.client.Follow(s.feed("x"))
	c.recv()
	for _, want := range []wire.OutputFrame{
		{Stream: 1, Offset: 1, Payload: []byte("a")},
		{Stream: 1, Stderr: true, Offset: 3, Payload: []byte("\xff\xfe")},
		{Stream: 1, Truncated: true, Offset: 16 + 1<<40, Gap: 1 << 40, Payload: []byte("x[TRUNCATED]\n")},
		{Stream: 1, Offset: 17 + 1<<40, Payload: []byte("b")},
		{Stream: 1, Offset: 24 + 1<<40, Gap: 7, Payload: []byte{}},
	} {
		if got := c.frame(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// A window bounds the bytes of binary frames too, and may cut runes there.
func TestBinaryFramesKeepToTheWindow(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	text := strings.Repeat("\U0001F600", 4096)
	out.write(text)
	c, e := f.connectBinary(t, "/ws?frames=binary")
	e.client.Follow(windowed(out.feed(0), 4097))
	c.recv()
	var got []byte
	for at := int64(4097); ; at = min(at+4097, out.End()) {
		for int64(len(got)) < at {
			got = append(got, c.frame().Payload...)
		}
		c.quiet(e)
		if at == out.End() {
			break
		}
		c.ack("x", at, false)
		wantAck(t, e, wire.AckParams{ExecutionID: "x", Offset: at})
	}
	if string(got) != text {
		t.Error("the bytes are not those of the command")
	}
}

// A number names one follow. A follow that is replaced or has ended leaves its number for input that
// is under way, and no other execution gets it soon.
func TestStreamNumbersAreNotAmbiguous(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connectBinary(t, "/ws?frames=binary")
	long := outs.create("long")
	e.client.Follow(long.feed(0))
	c.want(`{"jsonrpc":"2.0","method":"process.stream","params":{"execution_id":"long","stream":1,"offset":0}}`)
	e.client.Follow(long.feed(0)) // replaced
	c.want(`{"jsonrpc":"2.0","method":"process.stream","params":{"execution_id":"long","stream":2,"offset":0}}`)
	long.write("a")
	if got := c.frame(); got.Stream != 2 {
		t.Errorf("got stream %d", got.Stream)
	}
	for _, number := range []uint16{1, 2} {
		c.sendFrame(wire.AppendInputFrame(nil, &wire.InputFrame{Stream: number, Payload: []byte("x")}))
		if p, _ := e.next(t).params.(*wire.InputParams); p == nil || p.ExecutionID != "long" {
			t.Errorf("input to stream %d went to %+v", number, p)
		}
	}
	st := streams{}
	kept := st.open("kept")
	for i := range 3 * math.MaxUint16 {
		n := st.open(fmt.Sprint(i))
		if n == 0 || n == kept {
			t.Fatalf("number %d was given twice", n)
		}
		st.retire(n)
	}
	if len(st.names) > maxRetired+1 || st.names[kept] != "kept" {
		t.Errorf("%d names, %d is %q", len(st.names), kept, st.names[kept])
	}
}

func TestBinaryInputIsAnsweredByANotification(t *testing.T) {
	f := start(t, nil)
	c, e := f.connectBinary(t, "/ws?frames=binary")
	out := newOutputs(t).create("x")
	e.client.Follow(out.feed(0))
	c.recv()
	c.sendFrame(wire.AppendInputFrame(nil, &wire.InputFrame{
		Stream: 1, Offset: 5, Payload: []byte("a\xff\x00"), EOF: true,
	}))
	r := e.next(t)
	p, _ := r.params.(*wire.InputParams)
	if p == nil || p.ExecutionID != "x" || p.Offset == nil || *p.Offset != 5 || !p.EOF {
		t.Fatalf("the engine got %+v", r.params)
	}
	if b, err := p.Bytes(); string(b) != "a\xff\x00" || err != nil {
		t.Errorf("data %q, %v", b, err)
	}
	e.client.Reply(r.id, struct{}{}, nil)
	c.want(`{"jsonrpc":"2.0","method":"process.input","params":{"execution_id":"x","offset":8}}`)
	c.sendFrame(wire.AppendInputFrame(nil, &wire.InputFrame{Stream: 1, Offset: 8, Payload: []byte("b")}))
	e.client.Reply(e.next(t).id, nil, wire.Errorf(wire.CodeInputUnavailable, "closed"))
	c.want(`{"jsonrpc":"2.0","method":"process.input","params":` +
		`{"execution_id":"x","offset":8,"error":{"code":-32009,"message":"closed"}}}`)
	s, _ := e.client.(*socket)
	c.quiet(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight != 0 || s.bytes != 0 {
		t.Errorf("%d requests of %d bytes are in flight", s.inFlight, s.bytes)
	}
}

func TestMalformedBinaryFramesAreAnswered(t *testing.T) {
	f := start(t, nil)
	c, e := f.connectBinary(t, "/ws?frames=binary")
	for name, frame := range map[string][]byte{
		"empty":          {},
		"short":          []byte("\x02\x00\x00\x01"),
		"unknown kind":   []byte("\x03\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00x"),
		"output":         wire.AppendOutputFrame(nil, &wire.OutputFrame{Stream: 1, Payload: []byte("x")}),
		"unknown flags":  []byte("\x02\x80\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00x"),
		"unknown stream": wire.AppendInputFrame(nil, &wire.InputFrame{Stream: 9, Payload: []byte("x")}),
		"JSON":           []byte(`{"jsonrpc":"2.0","id":1,"method":"status"}`),
	} {
		c.sendFrame(frame)
		if m := c.recv(); m.Err == nil || m.Err.Code != wire.CodeInvalidRequest || string(m.ID) != "null" {
			t.Errorf("%s: got %+v", name, m)
		}
	}
	if len(e.requests) > 0 {
		t.Errorf("the engine got %+v", <-e.requests)
	}
	text, _ := f.connect(t)
	text.sendFrame(wire.AppendInputFrame(nil, &wire.InputFrame{Stream: 1, Payload: []byte("x")}))
	if m := text.recv(); m.Err == nil || !strings.Contains(m.Err.Message, "?frames=binary") {
		t.Errorf("without frames=binary: got %+v", m)
	}
	if ws, h := f.dial(t, "/ws?frames=binray", nil); ws != nil || h.status != http.StatusBadRequest ||
		!strings.Contains(h.body, "binray") {
		t.Errorf("unknown frames: %+v", h)
	}
}
