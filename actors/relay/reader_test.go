package relay

import (
	"errors"
	"io"
	"testing"

	"github.com/troupe-dev/troupe/actors/transcript"
)

// TestReaderOnAnotherGoroutine: the client's writer reads a feed while frames arrive and credit is
// granted. A wake that is lost between the two would stop the output forever. The race detector
// catches data races.
func TestReaderOnAnotherGoroutine(t *testing.T) {
	const size = 4 << 20
	wake := make(chan struct{}, 1)
	post := func(c chan struct{}) func() {
		return func() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	p := newPair(t, tinyWindow)
	p.proxy.cfg.Wake = post(wake)
	p.proxy.window.wake = p.proxy.cfg.Wake
	p.settle()
	p.origin.Follow(p.now, feedOf(&stream{end: size, piece: 700}))
	p.settle()

	more, done := make(chan struct{}, 1), make(chan int64, 1)
	go func() {
		cursor, err := p.client.feeds[0].Open(post(more))
		if err != nil {
			done <- -1
			return
		}
		defer cursor.Close()
		buf := make([]byte, 64<<10)
		for {
			switch _, err := cursor.Next(buf); {
			case errors.Is(err, transcript.ErrWait):
				<-more
			case errors.Is(err, io.EOF):
				done <- cursor.Offset()
				return
			}
		}
	}()
	for {
		select {
		case <-wake:
			p.proxy.Wake(p.now)
			p.settle()
		case n := <-done:
			if n != size {
				t.Errorf("read %d of %d", n, size)
			}
			return
		}
	}
}
