package gateway

import (
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// FuzzAck plays a follower and its client: each byte pair is a step. Whatever the client says, it is
// never owed more than a window, acks never go back, and a wrong one changes nothing.
func FuzzAck(f *testing.F) {
	f.Add([]byte{0, 200, 1, 100, 2, 50, 3, 7, 0, 255, 1, 255, 4, 1})
	f.Add([]byte{2, 255, 0, 255, 1, 255, 2, 1, 0, 3, 4, 0, 3, 255, 3, 255})
	f.Fuzz(func(t *testing.T, steps []byte) {
		const window = 512
		steps = steps[:min(len(steps), 400)] // each looks at all that was sent
		c := &credit{window: window}
		bytes := make(map[int64]bool) // positions of bytes that were sent
		exact := true                 // every gap was told from bytes
		for ; len(steps) >= 2; steps = steps[2:] {
			before, n := c.acked, int64(steps[1])
			switch steps[0] % 5 {
			case 0: // the writer sends what it may, at most n bytes
				n = min(n, c.room())
				for at := c.sent; at < c.sent+n; at++ {
					bytes[at] = true
				}
				c.send(c.sent+n, 0)
			case 1: // the client acknowledges some of what it has
				offset := c.acked + min(n, c.sent-c.acked)
				if _, err := c.ack(&wire.AckParams{Offset: offset}); err != nil || c.acked != max(before, offset) {
					t.Fatalf("ack of %d of %d: %v, now at %d", offset, c.sent, err, c.acked)
				}
			case 2: // a gap
				c.send(c.sent+n, n)
			case 3: // the client lies
				if _, err := c.ack(&wire.AckParams{Offset: c.sent + 1 + n}); err == nil || c.acked != before {
					t.Fatalf("ack beyond %d: %v, now at %d", c.sent, err, c.acked)
				}
				if _, err := c.ack(&wire.AckParams{Completed: true}); (err == nil) != c.completed {
					t.Fatalf("ack of the end: %v, sent %v", err, c.completed)
				}
			case 4:
				c.complete()
			}
			owed := int64(0)
			for at := c.acked; at < c.sent; at++ {
				if bytes[at] {
					owed++
				}
			}
			exact = exact && len(c.gaps) < maxGaps
			if room := c.room(); owed > window || exact && room != window-owed || room > window-owed {
				t.Fatalf("%d bytes are not acknowledged, and there is room for %d", owed, room)
			}
			if c.acked < before || len(c.gaps) > maxGaps {
				t.Fatalf("acked %d after %d, %d gaps", c.acked, before, len(c.gaps))
			}
		}
	})
}
