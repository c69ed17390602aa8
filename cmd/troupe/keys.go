package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// maxKeys bounds the typed bytes that wait for the server, such as those of a paste, or of a time
// without a connection. When as many wait, nothing more is read from the terminal.
const maxKeys = 1 << 20

// keys carries what is typed to the server. Reading and sending are apart, so that "~." is seen while
// a sending waits for the connection to come back.
type keys struct {
	a     *app
	leave func()

	// The reader's: whether a "~" would begin an escape, and whether one has begun one.
	lineStart, tilde bool

	mu   sync.Mutex
	room sync.Cond
	buf  []byte
	left bool          // by "~.": nothing is added to buf any more
	over bool          // nobody sends any more
	more chan struct{} // capacity 1: buf has something, or left is set
	sent chan struct{} // closed with over
}

func newKeys(a *app, leave func()) *keys {
	k := &keys{a: a, leave: leave, lineStart: true, more: make(chan struct{}, 1), sent: make(chan struct{})}
	k.room.L = &k.mu
	return k
}

// read takes keys until there are no more, or the user leaves. Also when nobody sends them, "~." leaves.
func (k *keys) read(r io.Reader) {
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		p, leave := k.filter(buf[:n])
		k.put(p)
		if leave {
			k.finish()
		}
		if leave || err != nil {
			return
		}
	}
}

// filter takes escapes out of p: a "~" at the beginning of a line, and the key behind it. leave says
// that one of them was "~.", behind which nothing counts.
func (k *keys) filter(p []byte) (keys []byte, leave bool) {
	if !k.tilde && bytes.IndexByte(p, '~') < 0 {
		if len(p) > 0 {
			k.lineStart = endsLine(p[len(p)-1])
		}
		return p, false
	}
	out := make([]byte, 0, len(p)+1)
	for _, c := range p {
		switch {
		case k.tilde && c == '.':
			return out, true
		case k.tilde && c == '?':
			k.tilde = false
			k.a.notef("~. leaves the command running, ~~ sends ~, each at the beginning of a line")
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
	return out, false
}

func endsLine(c byte) bool { return c == '\r' || c == '\n' }

// put adds to what is to be sent. It waits for room.
func (k *keys) put(p []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.buf) >= maxKeys && !k.over {
		k.room.Wait()
	}
	if !k.over && len(p) > 0 {
		k.buf = append(k.buf, p...)
		wake(k.more)
	}
}

// lastKeys is how long leaving waits for what was typed before.
const lastKeys = time.Second

// finish leaves once what was typed before is sent, or cannot be.
func (k *keys) finish() {
	k.mu.Lock()
	k.left = true
	k.mu.Unlock()
	wake(k.more)
	select {
	case <-k.sent:
	case <-time.After(lastKeys):
	}
	k.leave()
}

// send writes keys to the execution until ctx or the execution ends, or the user has left.
func (k *keys) send(ctx context.Context, e *troupe.Execution) {
	defer k.end()
	stdin, told := e.Stdin(ctx), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.more:
		}
		p, left := k.take()
		n, err := stdin.Write(p)
		switch {
		case err == nil:
			told = told && len(p) == 0
		case ctx.Err() != nil:
			k.lose(len(p) - n)
			return
		case errors.Is(err, io.ErrClosedPipe), ended(e):
			return // which is reported elsewhere
		case !told:
			told = true
			k.a.notef("what was typed last has not arrived: %v; to leave, type ~. at the beginning of a line", err)
		}
		if left {
			return
		}
	}
}

// take returns what is to be sent now, and whether the user has left behind it.
func (k *keys) take() (p []byte, left bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, k.buf = k.buf, nil
	k.room.Broadcast()
	return p, k.left
}

// lose tells a user who leaves that n bytes, and what is behind them, are not passed on.
func (k *keys) lose(n int) {
	k.mu.Lock()
	n, left := n+len(k.buf), k.left
	k.mu.Unlock()
	if left && n > 0 {
		k.a.notef("the last bytes that were typed may not have arrived: %d", n)
	}
}

// end has nothing wait for a sending any more.
func (k *keys) end() {
	k.mu.Lock()
	k.over, k.buf = true, nil
	k.mu.Unlock()
	k.room.Broadcast()
	close(k.sent)
}

// typed is what comes from a pipe or file, as somebody would type it: with Ctrl-D at its end. Behind an
// unfinished line, the first Ctrl-D ends only that.
type typed struct {
	io.Reader
	inLine bool
}

func (t *typed) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 {
		t.inLine = !endsLine(p[n-1])
		return n, nil // an error comes again
	}
	if errors.Is(err, io.EOF) {
		if n = copy(p, []byte{ctrlD, ctrlD}); !t.inLine {
			n = 1
		}
	}
	return n, err
}

// ctrlD ends the input of a terminal.
const ctrlD = 4
