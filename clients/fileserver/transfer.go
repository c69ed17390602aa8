package fileserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/turn"
	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// MaxBuffers is what a transfer holds of the content: its pieces on their way in, or its buffer on the
	// way out. A listing or a watch reads into smallBuffer.
	MaxBuffers  = pieces * pieceSize
	smallBuffer = 16 << 10

	// pieces of pieceSize are under way to the program: one is being received while the program takes
	// the one before.
	pieces    = 2
	pieceSize = 64 << 10

	// ackEvery is how often output is acknowledged: four times within the window of an execution that
	// retains what is unread.
	ackEvery = 256 << 10

	maxErrorText = 1024
	// closeTimeout bounds how long a request waits for the end of its program.
	closeTimeout = 5 * time.Second
	// inputRetry is when a piece is sent again for which the server had no room.
	inputRetry = 100 * time.Millisecond
)

// transfer is a run of troupe-files.
type transfer struct {
	c    *call
	link *link
	id   string // of the execution

	// What it reads.
	cursor    actors.Cursor // nil: the output has not begun
	buf       []byte
	rest      []byte // of the last piece
	offset    int64  // after the last piece
	acked     int64
	longest   int             // of its lines, in bytes
	errs      []byte          // what the program wrote to its standard error
	completed *wire.Completed // nil: it was not read to its end

	// What it writes.
	in   int64 // position in the program's standard input
	turn turn.Turn
	free turn.Allowance // without turns
}

func (c *call) newTransfer(l *link, id, op string) *transfer {
	t := &transfer{c: c, link: l, id: id, longest: files.MaxReply}
	size := smallBuffer
	switch op {
	case files.OpWatch:
		t.longest = files.MaxChange
	case files.OpRead, files.OpPack:
		size = MaxBuffers
	}
	t.buf = make([]byte, size)
	return t
}

// run starts req in the session.
func (c *call) run(req *files.Request, set func(*wire.ExecuteParams)) (*transfer, error) {
	arg, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	l, _, err := c.h.attach(c.r, map[string]int64{})
	if err != nil {
		return nil, err
	}
	params := &wire.ExecuteParams{
		Argv: []string{files.Program, string(arg)}, ExecutionID: newID("file-"), Framing: wire.FramingRaw,
		Encoding: wire.EncodingBase64, Retain: wire.RetainUnread,
	}
	if set != nil {
		set(params)
	}
	if _, err := l.call(c.ctx, params); err != nil {
		l.close()
		return nil, err
	}
	return c.newTransfer(l, params.ExecutionID, req.Op), nil
}

// close ends a transfer that was not read to its end, and gives the connection up.
func (t *transfer) close() {
	defer t.detach()
	if t.completed != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.c.ctx), closeTimeout)
	defer cancel()
	// Without a reader it ends with the resume window at the latest.
	_, _ = t.link.call(ctx, &wire.ControlParams{Type: wire.ControlCancel, ExecutionID: t.id})
	for err := error(nil); err == nil; {
		t.rest = nil
		_, err = t.read(ctx)
	}
}

// detach gives the connection up.
func (t *transfer) detach() {
	if t.cursor != nil {
		t.cursor.Close()
	}
	t.link.close()
}

// piece returns the next bytes of the output, at least one, which are valid until the next call, or io.EOF.
func (t *transfer) piece() ([]byte, error) { return t.read(t.c.ctx) }

func (t *transfer) read(ctx context.Context) ([]byte, error) {
	if p := t.rest; len(p) > 0 {
		t.rest = nil
		return p, nil
	}
	for t.completed == nil {
		if t.offset-t.acked >= ackEvery {
			t.acknowledge()
		}
		p, err := t.next(ctx)
		if err != nil {
			return nil, err
		}
		t.offset = p.Offset
		if done, ok := p.Mark.(*wire.Completed); ok {
			t.completed = done
			t.acknowledge()
		}
		switch {
		case p.Gap > 0:
			return nil, errors.New("output of the transfer is missing")
		case p.Stream == transcript.Stderr:
			t.errs = append(t.errs, p.Data[:min(len(p.Data), maxErrorText-len(t.errs))]...)
		case len(p.Data) > 0:
			return p.Data, nil
		}
	}
	return nil, io.EOF
}

// acknowledge says that the output up to offset was read.
func (t *transfer) acknowledge() {
	t.acked = t.offset
	t.link.conn.Request(nil, &wire.AckParams{ExecutionID: t.id, Offset: t.offset, Completed: t.completed != nil})
}

// next waits for the next piece of the output. It returns what there is before the end of the connection.
func (t *transfer) next(ctx context.Context) (transcript.Piece, error) {
	for ended := false; ; {
		if feed := t.link.takeFeed(); feed != nil && t.cursor == nil {
			cursor, err := feed.Open(t.link.signal)
			if err != nil {
				return transcript.Piece{}, err
			}
			t.cursor = cursor
		}
		if t.cursor != nil {
			p, err := t.cursor.Next(t.buf)
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the end comes before
			}
			if !errors.Is(err, transcript.ErrWait) {
				return p, err
			}
		}
		if ended {
			return transcript.Piece{}, context.Cause(t.link.over)
		}
		select {
		case <-t.link.wake:
		case <-t.link.over.Done():
			ended = true
		case <-ctx.Done():
			return transcript.Piece{}, ctx.Err()
		}
	}
}

// reply returns the next line of the output. Lines that only say that the program is alive are
// skipped.
func (t *transfer) reply() (*files.Reply, error) {
	for {
		if r, err := t.line(); err != nil || !r.Alive {
			return r, err
		}
	}
}

// line is reply for whoever wants every line.
func (t *transfer) line() (*files.Reply, error) {
	var line []byte
	for {
		p, err := t.piece()
		if errors.Is(err, io.EOF) {
			return nil, t.failure()
		}
		if err != nil {
			return nil, err
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			if line = append(line, p...); len(line) > t.longest {
				return nil, errors.New("the program's reply is too long")
			}
			continue
		}
		line = append(line, p[:end]...)
		t.rest = p[end+1:]
		r := new(files.Reply)
		if err := json.Unmarshal(line, r); err != nil {
			return nil, err
		}
		if r.Error != nil {
			return nil, r.Error
		}
		return r, nil
	}
}

// end reads the output to its end and returns nil if the program succeeded.
func (t *transfer) end() error {
	for {
		if _, err := t.piece(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	if t.completed.ExitCode == 0 {
		return nil
	}
	return t.failure()
}

// failure says why the program ended without its last line.
func (t *transfer) failure() error { return &endedError{completed: t.completed, text: string(t.errs)} }

// once runs a request that has one reply.
func (c *call) once(req *files.Request) (*files.Reply, error) {
	t, err := c.run(req, nil)
	if err != nil {
		return nil, err
	}
	defer t.close()
	r, err := t.reply()
	if err != nil {
		_ = t.end()
		return nil, err
	}
	return r, t.end()
}

// input is a part of the content on its way to the program. The engine keeps data until it has answered.
type input struct {
	data   []byte
	offset int64
	eof    bool
	answer <-chan outcome // nil: it is not under way
}

func (t *transfer) send(in *input) {
	in.answer = t.link.send(wire.NewInput(t.id, in.data, in.offset, in.eof))
}

// settle waits until an input is in the program's pipe. One for which there was no room is sent again,
// and so is the one behind it, for which that leaves a gap.
func (t *transfer) settle(in *input) error {
	if in.answer == nil {
		return nil
	}
	for until := time.Now().Add(t.c.h.stall); ; {
		_, err := t.link.await(t.c.ctx, in.answer)
		in.answer = nil
		code := wire.CodeOf(err)
		if code != wire.CodeSessionLimit && code != wire.CodeInvalidParams || time.Now().After(until) {
			return err
		}
		select {
		case <-time.After(inputRetry):
		case <-t.c.ctx.Done():
			return t.c.ctx.Err()
		}
		t.send(in)
	}
}

// feed copies the body to the program's standard input.
func (c *call) feed(t *transfer) (err error) {
	// Who waits for the client learns of the session's end.
	defer context.AfterFunc(t.link.over, func() { _ = c.ctrl.SetReadDeadline(time.Unix(1, 0)) })()
	var under [pieces]input
	began := 0
	for i := 0; err == nil; i++ {
		in := &under[i%pieces]
		if err := t.settle(in); err != nil {
			return err
		}
		err = c.receive(t, in)
		began = i
	}
	switch {
	case t.link.over.Err() != nil:
		return context.Cause(t.link.over)
	case !errors.Is(err, io.EOF):
		return &bodyError{err}
	}
	for i := range under {
		if err := t.settle(&under[(began+1+i)%pieces]); err != nil {
			return err
		}
	}
	return nil
}

// receive reads a full piece of the body, whatever the size of the packets, and sends it on. The last may
// have less, and comes with io.EOF.
func (c *call) receive(t *transfer, in *input) (err error) {
	c.extend()
	if err := t.link.over.Err(); err != nil {
		return err
	}
	if in.data == nil {
		in.data = make([]byte, pieceSize)
	}
	read := 0
	for in.data = in.data[:pieceSize]; read < pieceSize && err == nil; {
		var some int
		some, err = c.r.Body.Read(in.data[read:])
		read += some
	}
	if read > 0 {
		if t.free.Exceeds(read) {
			t.turn.Pass(turn.Messages)
		}
		in.data, in.offset = in.data[:read], t.in
		t.in += int64(read)
		t.send(in)
	}
	return err
}
