package main

import (
	"bytes"
	"context"
	"io"
	"sync"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// maxKeys bounds the typed bytes that wait for the server, such as those of a paste, or of a time
// without a connection. When as many wait, nothing more is read from the terminal.
const maxKeys = 1 << 20

// keys carries what is typed to the server. Reading and sending are apart, so that "~." is seen while
// a sending waits for the connection to come back.
type keys struct {
	help  func()
	leave func()

	// The reader's: whether a "~" would begin an escape, and whether one has begun one.
	lineStart, tilde bool

	mu   sync.Mutex
	room sync.Cond
	buf  []byte
	over bool          // nobody sends any more
	more chan struct{} // capacity 1: buf has something
}

func newKeys(help, leave func()) *keys {
	k := &keys{help: help, leave: leave, lineStart: true, more: make(chan struct{}, 1)}
	k.room.L = &k.mu
	return k
}

// read takes keys until there are no more, or nobody wants them.
func (k *keys) read(r io.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		if !k.put(k.filter(buf[:n])) || err != nil {
			return
		}
	}
}

// filter takes escapes out of p: a "~" at the beginning of a line, and the key behind it.
func (k *keys) filter(p []byte) []byte {
	if !k.tilde && bytes.IndexByte(p, '~') < 0 {
		if len(p) > 0 {
			k.lineStart = endsLine(p[len(p)-1])
		}
		return p
	}
	out := make([]byte, 0, len(p)+1)
	for _, c := range p {
		switch {
		case k.tilde && c == '.':
			k.tilde = false
			k.leave()
			return out
		case k.tilde && c == '?':
			k.tilde = false
			k.help()
			continue
		case k.tilde && c != '~':
			out = append(out, '~')
		case !k.tilde && k.lineStart && c == '~':
			k.tilde = true
			continue
		}
		k.tilde = false
		out = append(out, c)
		k.lineStart = endsLine(c)
	}
	return out
}

func endsLine(c byte) bool { return c == '\r' || c == '\n' }

// put adds to what is to be sent. It waits for room, and reports false if nobody sends any more.
func (k *keys) put(p []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.buf) >= maxKeys && !k.over {
		k.room.Wait()
	}
	if k.over {
		return false
	}
	if k.buf = append(k.buf, p...); len(p) > 0 {
		select {
		case k.more <- struct{}{}:
		default:
		}
	}
	return true
}

// send writes keys to the execution until ctx or the execution ends.
func (k *keys) send(ctx context.Context, e *troupe.Execution) {
	defer func() {
		k.mu.Lock()
		k.over = true
		k.mu.Unlock()
		k.room.Broadcast()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.more:
		}
		k.mu.Lock()
		p := k.buf
		k.buf = nil
		k.mu.Unlock()
		k.room.Broadcast()
		if _, err := e.Input(ctx, p); err != nil {
			return // it has ended, or ctx has: both are reported elsewhere
		}
	}
}

// endOfFile is read as the character that ends the input of a terminal.
type endOfFile struct{}

func (endOfFile) Read(p []byte) (int, error) {
	p[0] = 4 // Ctrl-D
	return 1, io.EOF
}
