package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// binaryClient pipes bytes through a command in binary frames.
type binaryClient struct {
	*socket
	id     string
	stream uint16
	got    []byte
	taken  int64 // of stdin
	done   *wire.Completed
}

// step reads one message.
func (c *binaryClient) step() *wire.InputTaken {
	c.t.Helper()
	patient(c.conn)
	op, _, payload, err := c.readFrame()
	if err != nil {
		c.t.Fatal(err)
	}
	switch op {
	case opPing:
		c.frame(opPong, payload)
	case opBinary:
		c.output(payload)
	case opText:
		return c.text(payload)
	case opClose:
		c.t.Fatalf("closed: %q", payload)
	}
	return nil
}

// output takes a frame, and acknowledges it.
func (c *binaryClient) output(payload []byte) {
	c.t.Helper()
	f, err := wire.ParseOutputFrame(payload)
	if err != nil {
		c.t.Fatal(err)
	}
	c.got = append(c.got, f.Payload...)
	if f.Stream != c.stream || f.Gap != 0 || f.Offset != int64(len(c.got)) {
		c.t.Fatalf("a frame of stream %d ends at %d, with a gap of %d; have %d", f.Stream, f.Offset, f.Gap, len(c.got))
	}
	c.ack(false)
}

func (c *binaryClient) ack(completed bool) {
	c.t.Helper()
	b, err := wire.AppendRequest(nil, nil, wire.MethodAck, &wire.AckParams{
		ExecutionID: c.id, Offset: int64(len(c.got)), Completed: completed,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.frame(opText, b)
}

func (c *binaryClient) text(payload []byte) *wire.InputTaken {
	c.t.Helper()
	m, err := wire.DecodeServerMessage(payload)
	if err != nil {
		c.t.Fatal(err)
	}
	var opened wire.StreamOpened
	taken, done := new(wire.InputTaken), new(wire.Completed)
	into := map[string]any{wire.MethodStream: &opened, wire.MethodInputTaken: taken, wire.MethodCompleted: done}[m.Method]
	switch {
	case m.Err != nil || m.Method == wire.MethodOutput:
		c.t.Fatalf("got %s", payload)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(m.Params, into); err != nil {
		c.t.Fatal(err)
	}
	switch m.Method {
	case wire.MethodStream:
		if opened.ExecutionID != c.id || opened.Offset != int64(len(c.got)) {
			c.t.Fatalf("got %s, have %d bytes", payload, len(c.got))
		}
		c.stream = opened.Stream
	case wire.MethodInputTaken:
		return taken
	case wire.MethodCompleted:
		c.done = done
		c.ack(true)
	}
	return nil
}

// input sends a frame and waits until it is answered.
func (c *binaryClient) input(offset int64, data []byte, eof bool) *wire.InputTaken {
	c.t.Helper()
	for c.stream == 0 {
		c.step()
	}
	c.frame(opBinary, wire.AppendInputFrame(nil, &wire.InputFrame{
		Stream: c.stream, Offset: offset, EOF: eof, Payload: data,
	}))
	for {
		if taken := c.step(); taken != nil {
			if taken.ExecutionID != c.id {
				c.t.Fatalf("an answer for %s", taken.ExecutionID)
			}
			return taken
		}
	}
}

// pipe sends data from where the command has it, and everything twice.
func (c *binaryClient) pipe(data []byte) {
	c.t.Helper()
	const piece = 10_000
	for c.taken < int64(len(data)) {
		next := data[c.taken:min(c.taken+piece, int64(len(data)))]
		for range 2 {
			if got := c.input(c.taken, next, false); got.Error != nil || got.Offset != c.taken+int64(len(next)) {
				c.t.Fatalf("input at %d: %+v %v", c.taken, got, got.Error)
			}
		}
		c.taken += int64(len(next))
	}
}

// TestPromise22BinaryFramesCarryEveryByte: 2 MB go through cat, which waits for its reader. They are
// the same on a pod that is not the session's, on which the second half is resumed.
func TestPromise22BinaryFramesCarryEveryByte(t *testing.T) {
	f := launchFleet(t)
	data := make([]byte, 2_000_000)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	const window = 64 << 10
	first, greeting := session(t, f.pods[0], "/ws?frames=binary")
	c := &binaryClient{socket: first, id: "cat"}
	c.request(wire.MethodExecute, wire.ExecuteParams{
		Argv: []string{"/bin/cat"}, ExecutionID: c.id, Stdin: true, Framing: wire.FramingRaw,
		Retain: wire.RetainUnread, Window: window,
	})
	c.pipe(data[:len(data)/2])
	if got := c.input(c.taken+1, []byte("x"), false); got.Error == nil || got.Error.Code != wire.CodeInvalidParams ||
		!strings.Contains(got.Error.Message, "1000000") {
		t.Errorf("input behind a gap: %+v %v", got, got.Error)
	}
	c.cut()

	c.socket, c.stream = open(t, f.pods[1], "/ws?frames=binary&session="+greeting.SessionID), 0
	c.request(wire.MethodResume, wire.ResumeParams{
		ResumeToken: greeting.ResumeToken, Executions: map[string]int64{c.id: int64(len(c.got))}, Window: window,
	})
	c.pipe(data)
	if got := c.input(c.taken, nil, true); got.Error != nil {
		t.Errorf("end of input: %v", got.Error)
	}
	for c.done == nil {
		c.step()
	}
	if c.done.Reason != wire.ReasonExited || !bytes.Equal(c.got, data) {
		t.Errorf("%d bytes of %d came back, then %+v", len(c.got), len(data), c.done)
	}
	c.socket.done()
	if end := c.end(); end.code != 1000 {
		t.Errorf("%v", end)
	}
}
