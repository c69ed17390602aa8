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
	if h.leaving == "" || h.link.ended != "" || full && now.Before(h.leaveBy) {
		return
	}
	for len(h.feeds) > 0 {
		h.drop(len(h.feeds) - 1)
	}
	h.left, h.leaveBy = true, now.Add(endTimeout)
	h.link.enqueue(now, &Frame_Disconnect{&Disconnect{Cause: string(h.leaving)}})
}

// packing has the buffers in which output is packed. A frame that fills most of one keeps it until
// it is acknowledged. A new one each time was almost half of what relaying allocated.
var packing = sync.Pool{New: func() any {
	b := make([]byte, 0, maxOutput)
	return &b
}}

// nextFeed returns the index of the next feed that has something to send, or -1.
func (h *Origin) nextFeed() int {
	for i := range h.feeds {
		if at := (h.turn + i) % len(h.feeds); h.feeds[at].ready.Load() {
			return at
		}
	}
	return -1
}

// room returns how much cost may be sent now in one frame. That is at most half of the window, so
// that one frame can be read while another travels.
func (h *Origin) room() int {
	allowed := int64(h.limit - h.sent)
	if h.limit < h.sent {
		allowed = 0 // a mark went over it
	}
	window := h.cfg.Window()
	return int(min(allowed, int64(window-h.link.data), int64(window/2), maxOutput))
}

// sendOutput sends one frame of a feed's output, and drops the feed if that was the end of it.
func (h *Origin) sendOutput(now time.Time, i int) {
	f := h.feeds[i]
	h.turn = i + 1
	out := &Output{Feed: f.id}
	buf := packing.Get().(*[]byte) //nolint:errcheck // the pool has nothing else
	data, used := h.pack(out, f, (*buf)[:0])
	h.sent += uint64(used)
	h.cfg.Counters.OutputBytes.Add(uint64(len(data)))
	if len(data) > maxOutput*3/4 {
		h.link.enqueueFrom(now, buf, &Frame_Output{out})
	} else {
		settle(out, data)
		packing.Put(buf)
		if len(out.Pieces) > 0 || out.Eof {
			h.link.enqueue(now, &Frame_Output{out})
		}
	}
	if out.Eof && h.link.ended == "" {
		h.drop(i)
	}
}

// pack reads what a feed has into buf, as far as there is room, and makes the pieces of a frame of
// it. It returns the data that is now in buf, and what the pieces cost.
func (h *Origin) pack(out *Output, f *originFeed, buf []byte) (data []byte, used int) {
	room := h.room()
	for room-used >= h.least {
		// The flag is cleared before Next, because the notification may come while Next returns.
		f.ready.Store(false)
		piece, err := f.cursor.Next(buf[len(buf):min(cap(buf), len(buf)+room-used-pieceCost)])
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
		buf = buf[:len(buf)+len(p.Data)]
		out.Pieces = append(out.Pieces, p)
		used += costOf(p)
	}
	return buf, used
}

// encode makes a message from a piece, which shares its data.
func (h *Origin) encode(piece transcript.Piece) *Piece {
	p := &Piece{
		Offset: piece.Offset, Gap: piece.Gap, Stderr: piece.Stream == transcript.Stderr, Truncated: piece.Truncated,
	}
	switch {
	case piece.Mark != nil:
		if !encodeMark(p, piece.Mark) {
			h.cfg.Counters.Violations.Add(1)
			return nil
		}
	case piece.Gap == 0:
		p.Data = piece.Data
	}
	return p
}

// settle gives the pieces a copy of their data, which is as large as it must be: they are kept until
// they are acknowledged.
func settle(out *Output, data []byte) {
	own := append([]byte(nil), data...)
	for _, p := range out.Pieces {
		if n := len(p.Data); n > 0 {
			p.Data, own = own[:n:n], own[n:]
		}
	}
}
