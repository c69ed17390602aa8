package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The attacks of this file have a token, and no session. Their WebSockets are written by hand,
// because a library refuses to send most of this.

// Opcodes of frames, https://www.rfc-editor.org/rfc/rfc6455#section-5.2.
const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xa
)

type reader = *bufio.Reader

// upgrade makes the connection a WebSocket.
func (c *conn) upgrade(path string) error {
	const request = "GET %s HTTP/1.1\r\nHost: troupe\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\n" +
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	_, err := fmt.Fprintf(c, request, path, c.a.token())
	if err != nil {
		return err
	}
	c.in = bufio.NewReaderSize(c.Conn, 1024)
	for first := true; ; first = false {
		line, err := c.in.ReadString('\n')
		switch {
		case err != nil:
			return err
		case first && !strings.Contains(line, " 101 "):
			return fmt.Errorf("refused: %s", line)
		case line == "\r\n":
			return nil
		}
	}
}

// head is the header of a client's frame. Its mask is zero, which leaves the payload as it is.
func head(op byte, size int) []byte {
	b := []byte{0x80 | op}
	switch {
	case size < 126:
		b = append(b, 0x80|byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(size))
	}
	return append(b, 0, 0, 0, 0)
}

// frame returns a whole frame.
func frame(op byte, payload string) []byte { return append(head(op, len(payload)), payload...) }

// send sends a text message.
func (c *conn) send(message string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Write(frame(opText, message))
	return err
}

// receive returns the next frame of the server, cut after 64 KiB.
func (c *conn) receive() (op byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return 0, nil, err
	}
	size, long := int64(h[1]), 0
	switch size {
	case 126:
		long = 2
	case 127:
		long = 8
	}
	if long > 0 {
		b := make([]byte, 8)
		if _, err := io.ReadFull(c.in, b[8-long:]); err != nil {
			return 0, nil, err
		}
		size = int64(binary.BigEndian.Uint64(b)) //nolint:gosec // a server sends no frame of 2^63 bytes
	}
	payload = make([]byte, min(size, 64<<10))
	if _, err := io.ReadFull(c.in, payload); err != nil {
		return 0, nil, err
	}
	_, err = io.CopyN(io.Discard, c.in, size-int64(len(payload)))
	return h[0] & 0xf, payload, err
}

// await answers pings and returns the first text message that contains one of words.
func (c *conn) await(words ...string) ([]byte, error) {
	for {
		op, payload, err := c.receive()
		switch {
		case err != nil:
			return nil, err
		case op == opClose:
			return nil, errClosed
		case op == opPing:
			// If another frame is on its way the server takes that for a sign of life.
			if c.mu.TryLock() {
				_, err = c.Write(frame(opPong, string(payload)))
				c.mu.Unlock()
				if err != nil {
					return nil, err
				}
			}
		case op == opText:
			for _, word := range words {
				if bytes.Contains(payload, []byte(word)) {
					return payload, nil
				}
			}
		}
	}
}

// discard reads until the server closes, and answers pings.
func (c *conn) discard() error {
	_, err := c.await()
	return err
}

// noSession is the path of a session that does not exist.
func (c *conn) noSession() string {
	return "/ws?session=pod-0." + strconv.FormatUint(c.a.next.Add(1), 36) + "aaaaaaaaaaaaaaaaaaaa"
}

func noResume(ctx context.Context, a *attacker) {
	a.keep(ctx, a.spec.Client, a.scaled(14_000), func(c *conn) error {
		if err := c.upgrade(c.noSession()); err != nil {
			return err
		}
		return c.discard()
	})
}

func halfFrames(ctx context.Context, a *attacker) {
	half := append(head(opText, 1_000_000), bytes.Repeat([]byte("x"), 900_000)...)
	a.keep(ctx, a.spec.Client, a.scaled(1_000), func(c *conn) error {
		if err := c.upgrade(c.noSession()); err != nil {
			return err
		}
		if _, err := c.Write(half); err != nil {
			return err
		}
		return c.discard()
	})
}

func resumeLists(ctx context.Context, a *attacker) {
	var list strings.Builder
	for i := 0; list.Len() < 1_000_000; i++ {
		list.WriteString(`"` + strconv.FormatInt(int64(i), 36) + `":0,`)
	}
	message := `{"jsonrpc":"2.0","method":"resume","id":1,"params":{"resume_token":"` + strings.Repeat("x", 43) +
		`","executions":{` + list.String() + `"z.":0}}}`
	a.keep(ctx, a.spec.Client, a.scaled(100), func(c *conn) error {
		if err := c.upgrade(c.noSession()); err != nil {
			return err
		}
		if err := c.send(message); err != nil {
			return err
		}
		return c.discard()
	})
}

// floods sends what needs no answer, or an answer without an id, as fast as the server takes it.
func floods(ctx context.Context, a *attacker) {
	many := func(f []byte) []byte { return bytes.Repeat(f, max(1, 64<<10/len(f))) }
	kinds := [][]byte{
		many(frame(opPing, strings.Repeat("p", 125))),
		many(frame(opPong, strings.Repeat("p", 125))),
		many(frame(opPing, "")),
		many(frame(opText, `{"jsonrpc":"2.0","method":"pong"}`)),
		many(frame(opText, `{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"a","offset":9000000000}}`)),
		many(frame(opText, `{`)),
		many(frame(opText, "")),
		many(frame(opText, strings.Repeat("[", 60_000))),
		many(frame(opBinary, strings.Repeat("\x02", 1000))),
	}
	for i, kind := range kinds {
		for _, reads := range []bool{true, false} {
			a.keep(ctx, a.spec.Client, 1, func(c *conn) error { return c.flood(kind, i%2 == 0, reads) })
		}
	}
}

// flood sends the same bytes without end.
func (c *conn) flood(b []byte, session, reads bool) error {
	open := func() error { return c.upgrade(c.noSession()) }
	if session {
		open = c.openSession
	}
	if err := open(); err != nil {
		return err
	}
	if reads {
		go c.untilClosed() //nolint:errcheck // the write fails too
	}
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

// openSession opens a new session.
func (c *conn) openSession() error {
	if err := c.upgrade("/ws"); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // a failure shows in the read
	first, err := c.await(`"`)
	if err != nil {
		return err
	}
	if !bytes.Contains(first, []byte(`"method":"connected"`)) {
		return errors.New(string(first))
	}
	return c.SetReadDeadline(time.Time{})
}
