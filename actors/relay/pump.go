package relay

import (
	"errors"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
)

// pump sends the available output, taking turns between feeds, as far as the proxy's credit and the
// window allow. If the engine has disconnected the client, it then sends the Disconnect.
func (h *Origin) pump(now time.Time) {
	if h.link.ended != "" || h.left {
		return
	}
	full := false
	for h.link.ended == "" {
		i := h.nextFeed()
		if i < 0 {
			break
		}
		if full = h.room() < h.least; full {
			break
		}
		h.sendOutput(now, i)
	}
	h.releaseBuffer()
	if h.leaving == "" || h.link.ended != "" || full && now.Before(h.leaveBy) {
		return
	}
	for len(h.feeds) > 0 {
		h.drop(len(h.feeds) - 1)
	}
	h.left, h.leaveBy = true, now.Add(endTimeout)
	h.link.enqueue(now, &Frame_Disconnect{&Disconnect{Cause: string(h.leaving)}})
}

// packing has the buffers in which output is packed. An origin holds one for the length of a pump,
// which sends a frame or two: a new one each time was almost half of what relaying allocated.
var packing = sync.Pool{New: func() any {
	b := make([]byte, 0, maxOutput)
	return &b
}}

func (h *Origin) releaseBuffer() {
	if h.buf != nil {
		buf := h.buf[:0]
		packing.Put(&buf)
		h.buf = nil
	}
}

// nextFeed returns the index of the next feed that has something to send, or -1.
func (h *Origin) nextFeed() int {
	for i := range h.feeds {
		if at := (h.turn + i) % len(h.feeds); h.feeds[at].ready.Load() {
			return at
		}
	}
	return -1
}

// room returns how much cost may be sent now.
func (h *Origin) room() int {
	allowed := int64(h.limit - h.sent)
	if h.limit < h.sent {
		allowed = 0 // a mark went over it
	}
	return int(min(allowed, int64(h.cfg.Window()-h.link.data), maxOutput))
}

// sendOutput sends one frame of a feed's output, and drops the feed if that was the end of it.
func (h *Origin) sendOutput(now time.Time, i int) {
	f := h.feeds[i]
	h.turn = i + 1
	out := &Output{Feed: f.id}
	room, used := h.room(), 0
	if h.buf == nil {
		h.buf = *packing.Get().(*[]byte) //nolint:errcheck // the pool has nothing else
	}
	h.buf = h.buf[:0]
	for room-used >= h.least {
		// The flag is cleared before Next, because the notification may come while Next returns.
		f.ready.Store(false)
		piece, err := f.cursor.Next(h.buf[len(h.buf):min(cap(h.buf), len(h.buf)+room-used-pieceCost)])
		if errors.Is(err, transcript.ErrWait) {
			break
		}
		if err != nil {
			// The error is io.EOF, or the cursor was closed. Either way it has no more output.
			out.Eof = true
			break
		}
		f.ready.Store(true)
		p := h.encode(piece)
		if p == nil {
			continue
		}
		out.Pieces = append(out.Pieces, p)
		used += costOf(p)
	}
	h.settle(out)
	if len(out.Pieces) > 0 || out.Eof {
		h.sent += uint64(used)
		h.link.enqueue(now, &Frame_Output{out})
	}
	if out.Eof && h.link.ended == "" {
		h.drop(i)
	}
}

// encode makes a message from a piece. The message's data stays in buf until settle.
func (h *Origin) encode(piece transcript.Piece) *Piece {
	p := &Piece{
		Offset: piece.Offset, Gap: piece.Gap, Stderr: piece.Stream == transcript.Stderr, Truncated: piece.Truncated,
	}
	switch {
	case piece.Mark != nil:
		if p.Warning, p.Completed = encodeMark(piece.Mark); p.Warning == nil && p.Completed == nil {
			h.cfg.Counters.Violations.Add(1)
			return nil
		}
	case piece.Gap == 0:
		h.buf = h.buf[:len(h.buf)+len(piece.Data)]
		p.Data = piece.Data
	}
	return p
}

// settle copies the data of the pieces out of buf. The pieces are kept until they are acknowledged,
// and the transport may read them even later.
func (h *Origin) settle(out *Output) {
	own := append([]byte(nil), h.buf...)
	for _, p := range out.Pieces {
		n := len(p.Data)
		if n == 0 {
			continue
		}
		p.Data, own = own[:n:n], own[n:]
		h.cfg.Counters.OutputBytes.Add(uint64(n))
	}
}
