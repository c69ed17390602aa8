package conformance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// stepTimeout bounds how long a step waits for the client.
	stepTimeout = 10 * time.Second
	// defaultPiece is far from every power of two times a window, so that pieces cross windows.
	defaultPiece = 32 << 10
	// readLimit is above every message that a client may send.
	readLimit = 1 << 20
)

// message is one that the client has sent: a request, or a binary message with input.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`

	input *wire.InputFrame
}

func (m *message) String() string {
	if m.input != nil {
		return fmt.Sprintf("input of %d bytes at %d on stream %d", len(m.input.Payload), m.input.Offset, m.input.Stream)
	}
	return m.Method + " " + string(m.Params)
}

// player plays one connection.
type player struct {
	run  *Run
	ws   *websocket.Conn
	asks map[string]json.RawMessage // ids of requests, by the step's "as"
	last *message                   // that the step "input" has taken

	// The reader fills these; run.mu guards them, and run.changed tells of changes.
	inbox   []*message // requests other than acks and pongs
	acks    map[string]Acked
	count   int // of acks
	seen    int // of them, when the last "acked" was reached
	pongs   int
	closed  error              // why reading ended
	sent    map[string]int64   // positions that acks may reach
	ended   map[string]bool    // ends that acks may acknowledge
	streams map[uint16]string  // executions by their stream
	stop    context.CancelFunc // of reading
	done    chan struct{}      // closed when reading has ended
}

func newPlayer(run *Run, ws *websocket.Conn) *player {
	ws.SetReadLimit(readLimit)
	return &player{
		run: run, ws: ws, asks: make(map[string]json.RawMessage), acks: make(map[string]Acked),
		sent: make(map[string]int64), ended: make(map[string]bool), streams: make(map[uint16]string),
		done: make(chan struct{}),
	}
}

// play does the steps of a connection, then waits for the client to end it.
func (p *player) play(ctx context.Context, steps []Step) (at int, err error) {
	reading, stop := context.WithCancel(ctx)
	p.stop = stop
	go p.read(reading)
	defer func() {
		stop()
		_ = p.ws.CloseNow()
		<-p.done
	}()
	for i := range steps {
		stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
		err := p.step(stepCtx, &steps[i])
		cancel()
		if err != nil {
			return i + 1, fmt.Errorf("%s: %w", steps[i].set()[0], err)
		}
		if steps[i].Cut {
			return i + 1, nil
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	p.run.mu.Lock()
	defer p.run.mu.Unlock()
	if len(p.inbox) > 0 {
		return len(steps), fmt.Errorf("after the last step the client sent %s", p.inbox[0])
	}
	return len(steps), nil
}

// read sorts what the client sends, until the connection ends.
func (p *player) read(ctx context.Context) {
	defer close(p.done)
	for {
		kind, data, err := p.ws.Read(ctx)
		p.run.mu.Lock()
		if err == nil {
			err = p.sort(kind, data)
			if err != nil {
				p.run.failLocked(err)
			}
		}
		p.closed = err
		p.run.changedLocked()
		p.run.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *player) sort(kind websocket.MessageType, data []byte) error {
	m := new(message)
	if kind == websocket.MessageBinary {
		f, err := wire.ParseInputFrame(data)
		if err != nil {
			return fmt.Errorf("the client sent a malformed binary message: %w", err)
		}
		m.input = &f
		p.inbox = append(p.inbox, m)
		return nil
	}
	if err := json.Unmarshal(data, m); err != nil {
		return fmt.Errorf("the client sent %q: %w", data, err)
	}
	switch m.Method {
	case wire.MethodAck:
		return p.ack(m.Params)
	case wire.MethodPong:
		p.pongs++
	case wire.MethodResume:
		p.resumes(m.Params)
		fallthrough
	default:
		p.inbox = append(p.inbox, m)
	}
	return nil
}

// ack checks what a server would refuse or ignore: an ack of what was not sent on its connection.
func (p *player) ack(params json.RawMessage) error {
	var a Acked
	if err := json.Unmarshal(params, &a); err != nil {
		return fmt.Errorf("the client sent the ack %s: %w", params, err)
	}
	if a.Offset > p.sent[a.ExecutionID] || a.Completed && !p.ended[a.ExecutionID] {
		return fmt.Errorf("the client acknowledged %s, but this connection has sent up to %d, completed %t",
			params, p.sent[a.ExecutionID], p.ended[a.ExecutionID])
	}
	old := p.acks[a.ExecutionID]
	a.Offset, a.Completed = max(a.Offset, old.Offset), a.Completed || old.Completed
	p.acks[a.ExecutionID] = a
	p.count++
	return nil
}

// resumes lets acks reach the offsets that the client resumes at.
func (p *player) resumes(params json.RawMessage) {
	var r wire.ResumeParams
	if json.Unmarshal(params, &r) == nil {
		for id, offset := range r.Executions {
			p.sent[id] = offset
		}
	}
}

// wait waits until ready returns true, which is called with run.mu held.
func (p *player) wait(ctx context.Context, ready func() bool) error {
	return p.run.wait(ctx, func() (bool, error) {
		if ready() {
			return true, nil
		}
		if p.closed != nil {
			return false, fmt.Errorf("the connection ended: %w", p.closed)
		}
		return false, nil
	})
}

func (p *player) step(ctx context.Context, s *Step) error {
	switch {
	case s.Mark != "":
		p.run.Mark(s.Mark)
		return nil
	case s.Await != "":
		return p.run.Await(ctx, s.Await)
	case s.Cut:
		return p.ws.CloseNow()
	case s.Vanish:
		p.stop() // the TCP connection stays, and is not read
		p.run.mu.Lock()
		p.run.vanished++
		p.run.changedLocked()
		p.run.mu.Unlock()
		<-p.run.ended
		return nil
	case s.Close != 0:
		_ = p.ws.Close(websocket.StatusCode(s.Close), "") // the client may have left meanwhile
		return nil
	case s.Quiet > 0:
		return p.quiet(time.Duration(s.Quiet) * time.Millisecond)
	case s.Started != nil:
		return p.started(ctx, s.Started)
	case s.Resumed != nil:
		return p.resumed(ctx, s.Resumed)
	case s.Expect != "" || s.Input != nil || s.Acked != nil || s.Pong || s.Closed != 0 || s.End:
		return p.expect(ctx, s)
	}
	return p.send(ctx, s)
}

// taken answers the latest input in its own form.
func (p *player) taken(ctx context.Context, t *wire.InputTaken) error {
	m := p.last
	switch {
	case m == nil:
		return errors.New("no input was expected before")
	case m.input != nil:
		return p.notify(ctx, map[string]any{"method": wire.MethodInputTaken, "params": t})
	case t.Error != nil:
		return p.notify(ctx, map[string]any{"id": m.ID, "error": t.Error})
	}
	return p.notify(ctx, map[string]any{"id": m.ID, "result": struct{}{}})
}

// greeting is what greet sends; the step's members replace its own.
const greeting = `{"session_id":"pod-0.conformance","version":"1.0.0","resume_token":"resume-secret","pod":"pod-0",` +
	`"capabilities":["execute","control","stream","input","signal","resume","ack","retain","binary","input_offset"],` +
	`"containment":"tree","isolation":"none","limits":{"max_sessions":100,"max_executions":8,"max_line":8192,` +
	`"max_output":10485760,"stream_timeout":300,"max_duration":0,"max_memory":0,"cancel_grace":10,` +
	`"resume_window":30,"idle_timeout":3600,"max_message":1048576}}`

// completed is what the step of that name sends; the step's members replace its own.
const completed = `{"status":"completed","pid":42,"pgid":42,"exit_code":0,"reason":"exited","dropped_lines":0,` +
	`"dropped_bytes":0,"truncated_lines":0,"truncated_bytes":0,"output_bytes":0,"execution_time":0.012}`

func (p *player) send(ctx context.Context, s *Step) error {
	switch {
	case s.Greet != nil:
		params := make(map[string]json.RawMessage)
		for _, text := range []json.RawMessage{json.RawMessage(greeting), s.Greet} {
			if err := json.Unmarshal(text, &params); err != nil {
				return err
			}
		}
		return p.notify(ctx, map[string]any{"method": wire.MethodConnected, "params": params})
	case s.Taken != nil:
		return p.taken(ctx, s.Taken)
	case s.Completed != nil:
		params := make(map[string]json.RawMessage)
		for _, text := range []json.RawMessage{json.RawMessage(completed), s.Completed} {
			if err := json.Unmarshal(text, &params); err != nil {
				return err
			}
		}
		return p.notify(ctx, map[string]any{"method": wire.MethodCompleted, "params": params})
	case s.Raw != nil:
		return p.ws.Write(ctx, websocket.MessageText, []byte(*s.Raw))
	case s.Output != nil:
		return p.output(ctx, s.Output)
	case s.Frame != nil:
		return p.frame(ctx, s.Frame)
	case s.Answer != "":
		id, known := p.asks[s.Answer]
		switch {
		case !known:
			return fmt.Errorf("no request was expected as %q", s.Answer)
		case s.Error != nil:
			return p.notify(ctx, map[string]any{"id": id, "error": s.Error})
		case s.Result == nil:
			return p.notify(ctx, map[string]any{"id": id, "result": struct{}{}})
		}
		return p.notify(ctx, map[string]any{"id": id, "result": s.Result})
	}
	var m map[string]any
	if err := json.Unmarshal(s.Send, &m); err != nil {
		return err
	}
	return p.notify(ctx, m)
}

// notify sends a text message, and notes what the client may acknowledge from now on.
func (p *player) notify(ctx context.Context, m map[string]any) error {
	m["jsonrpc"] = "2.0"
	frame, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var n struct {
		Method string `json:"method"`
		Params struct {
			ExecutionID string `json:"execution_id"`
			Offset      int64  `json:"offset"`
			Stream      uint16 `json:"stream"`
		} `json:"params"`
	}
	_ = json.Unmarshal(frame, &n) // answers have no params
	p.run.mu.Lock()
	switch id := n.Params.ExecutionID; n.Method {
	case wire.MethodOutput:
		p.sent[id] = max(p.sent[id], n.Params.Offset)
	case wire.MethodCompleted:
		p.ended[id] = true
	case wire.MethodStream:
		p.streams[n.Params.Stream] = id
	}
	p.run.mu.Unlock()
	return p.ws.Write(ctx, websocket.MessageText, frame)
}

// output sends bytes of Fill in pieces.
func (p *player) output(ctx context.Context, o *Output) error {
	piece := o.Piece
	if piece == 0 {
		piece = defaultPiece
	}
	for from := o.From; from < o.To; from += piece {
		to := min(from+piece, o.To)
		data := string(Fill(from, to))
		var err error
		if o.Stream != 0 {
			err = p.frame(ctx, &Frame{ExecutionID: o.ExecutionID, Stream: o.Stream, Offset: to, Data: data})
		} else {
			err = p.notify(ctx, map[string]any{"method": wire.MethodOutput, "params": map[string]any{
				"execution_id": o.ExecutionID, "type": wire.Stdout, "data": data, "truncated": false, "offset": to,
			}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *player) frame(ctx context.Context, f *Frame) error {
	data := []byte(f.Data)
	if f.Base64 != "" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(f.Base64); err != nil {
			return err
		}
	}
	for _, flag := range f.Flags {
		if flag != "stderr" && flag != "truncated" {
			return fmt.Errorf("unknown flag %q: use %s", flag, strings.Join([]string{"stderr", "truncated"}, " or "))
		}
	}
	p.run.mu.Lock()
	id := p.streams[f.Stream]
	if f.ExecutionID != "" {
		id = f.ExecutionID
	}
	p.sent[id] = max(p.sent[id], f.Offset)
	p.run.mu.Unlock()
	return p.ws.Write(ctx, websocket.MessageBinary, wire.AppendOutputFrame(nil, &wire.OutputFrame{
		Stream: f.Stream, Stderr: slices.Contains(f.Flags, "stderr"), Truncated: slices.Contains(f.Flags, "truncated"),
		Offset: f.Offset, Gap: f.Gap, Payload: data,
	}))
}
