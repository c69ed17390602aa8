package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// socket is a WebSocket written by hand (RFC 6455): it sends what no library
// would, and says nothing of its own accord but pongs. One goroutine reads, one writes.
type socket struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	req  *http.Request
	last int // id of the last request

	// What came while an answer was waited for.
	answers map[string]wire.Message
	kept    []wire.Message
}

// Opcodes of RFC 6455 section 5.2.
const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
)

// closed is the server's end of a socket.
type closed struct {
	code   int // 0: the connection broke without a close frame
	reason string
}

func (c closed) Error() string { return fmt.Sprintf("closed with %d %q", c.code, c.reason) }

// knock asks for a WebSocket on path, without waiting for the answer.
func knock(t *testing.T, s *instance, path string, header http.Header) *socket {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.http, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.http+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	var key [16]byte
	rand.Read(key[:])
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {base64.StdEncoding.EncodeToString(key[:])},
	}
	for name, values := range header {
		req.Header[name] = values
	}
	patient(conn)
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	return &socket{t: t, conn: conn, in: bufio.NewReader(conn), req: req, answers: map[string]wire.Message{}}
}

// hear reads the answer to knock: its status and header.
func (c *socket) hear() (int, http.Header, error) {
	resp, err := http.ReadResponse(c.in, c.req)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, resp.Header, resp.Body.Close()
}

// open opens a WebSocket that the server must accept.
func open(t *testing.T, s *instance, path string) *socket {
	t.Helper()
	c := knock(t, s, path, nil)
	if status, _, err := c.hear(); err != nil || status != http.StatusSwitchingProtocols {
		t.Fatalf("%s: %d, %v", path, status, err)
	}
	return c
}

// session opens a WebSocket and returns the server's greeting too.
func session(t *testing.T, s *instance, path string) (*socket, wire.Connected) {
	t.Helper()
	c := open(t, s, path)
	var greeting wire.Connected
	c.notified(wire.MethodConnected, &greeting)
	return c, greeting
}

// patient bounds whatever the socket does next, generously.
func patient(conn net.Conn) { _ = conn.SetDeadline(time.Now().Add(40 * time.Second)) }

// frame sends one frame.
func (c *socket) frame(op byte, payload []byte) {
	c.t.Helper()
	if err := c.write(op, payload); err != nil {
		c.t.Fatal(err)
	}
}

// write sends one frame. Clients mask (section 5.3); with zeros, which changes nothing.
func (c *socket) write(op byte, payload []byte) error {
	head := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		head = append(head, 0x80|byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(n))
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(40 * time.Second))
	_, err := c.conn.Write(append(append(head, 0, 0, 0, 0), payload...))
	return err
}

// send sends a text frame.
func (c *socket) send(message string) {
	c.t.Helper()
	c.frame(opText, []byte(message))
}

// read returns the next message. The error is a closed, or the network's.
func (c *socket) read() ([]byte, error) {
	patient(c.conn)
	return c.message()
}

func (c *socket) message() ([]byte, error) {
	var message []byte
	for {
		op, fin, payload, err := c.readFrame()
		if err != nil {
			return nil, err
		}
		switch op {
		case opPing:
			if err := c.write(opPong, payload); err != nil {
				return nil, err
			}
		case opPong:
		case opClose:
			end := closed{}
			if len(payload) >= 2 {
				end = closed{int(binary.BigEndian.Uint16(payload)), string(payload[2:])}
			}
			_ = c.write(opClose, payload) // the server may be gone
			return nil, end
		default:
			message = append(message, payload...)
			if fin {
				return message, nil
			}
		}
	}
}

func (c *socket) readFrame() (op byte, fin bool, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, false, nil, err
	}
	n := uint64(head[1] & 0x7f)
	var long [8]byte
	switch n {
	case 126:
		_, err = io.ReadFull(c.in, long[6:])
		n = binary.BigEndian.Uint64(long[:])
	case 127:
		_, err = io.ReadFull(c.in, long[:])
		n = binary.BigEndian.Uint64(long[:])
	}
	if err != nil || n > 1<<20 || head[1]&0x80 != 0 {
		return 0, false, nil, errors.Join(err, fmt.Errorf("a frame that no server sends: % x", head))
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.in, payload)
	return head[0] & 0xf, head[0]&0x80 != 0, payload, err
}

// next returns the next message but pings.
func (c *socket) next() wire.Message {
	c.t.Helper()
	if len(c.kept) > 0 {
		m := c.kept[0]
		c.kept = c.kept[1:]
		return m
	}
	return c.receive()
}

func (c *socket) receive() wire.Message {
	c.t.Helper()
	patient(c.conn) // once: pings do not prolong it
	for {
		raw, err := c.message()
		if err != nil {
			c.t.Fatal(err)
		}
		m, err := wire.DecodeServerMessage(raw)
		if err != nil {
			c.t.Fatalf("%v: %s", err, raw)
		}
		if m.Method != wire.MethodPing {
			return m
		}
	}
}

// notified skips to a notification and decodes its params.
func (c *socket) notified(method string, params any) {
	c.t.Helper()
	for {
		m := c.next()
		if m.Method != method {
			if len(m.ID) > 0 && m.Err != nil {
				c.t.Fatalf("waiting for %s: answer %s: %v", method, m.ID, m.Err)
			}
			continue
		}
		if err := json.Unmarshal(m.Params, params); err != nil {
			c.t.Fatal(err)
		}
		return
	}
}

// request sends a request without waiting for its answer, and returns its id.
func (c *socket) request(method string, params any) string {
	c.t.Helper()
	c.last++
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": c.last, "method": method, "params": params})
	if err != nil {
		c.t.Fatal(err)
	}
	c.frame(opText, b)
	return fmt.Sprint(c.last)
}

// answer waits for the answer of a request. What comes before it is kept.
func (c *socket) answer(id string) wire.Message {
	c.t.Helper()
	for {
		if m, ok := c.answers[id]; ok {
			delete(c.answers, id)
			return m
		}
		if m := c.receive(); len(m.ID) > 0 {
			c.answers[string(m.ID)] = m
		} else {
			c.kept = append(c.kept, m)
		}
	}
}

// call sends a request and decodes its result; a refusal is returned.
func (c *socket) call(method string, params, result any) *wire.Error {
	c.t.Helper()
	m := c.answer(c.request(method, params))
	if m.Err == nil && result != nil {
		if err := json.Unmarshal(m.Result, result); err != nil {
			c.t.Fatal(err)
		}
	}
	return m.Err
}

// start starts a command and returns the execution's id.
func (c *socket) start(params wire.ExecuteParams) string {
	c.t.Helper()
	var result wire.ExecuteResult
	if err := c.call(wire.MethodExecute, params, &result); err != nil {
		c.t.Fatal(err)
	}
	return result.ExecutionID
}

// said collects the output of an execution up to its first bytes that end in suffix.
func (c *socket) said(id, suffix string) string {
	c.t.Helper()
	var out bytes.Buffer
	for !strings.HasSuffix(out.String(), suffix) {
		m := c.next()
		if m.Output != nil && m.Output.ExecutionID == id {
			out.WriteString(m.Output.Data)
		}
		if m.Method == wire.MethodCompleted {
			c.t.Fatalf("%q instead of %q, then %s", out.String(), suffix, m.Params)
		}
	}
	return out.String()
}

// end reads on to the end of the connection.
func (c *socket) end() closed {
	c.t.Helper()
	for {
		_, err := c.read()
		var end closed
		switch {
		case errors.As(err, &end):
			return end
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF):
			return closed{}
		case err != nil:
			var broken *net.OpError
			if errors.As(err, &broken) && !broken.Timeout() {
				return closed{} // reset
			}
			c.t.Fatal(err)
		}
	}
}

// done closes as a client that is finished: its session ends.
func (c *socket) done() {
	c.t.Helper()
	c.frame(opClose, binary.BigEndian.AppendUint16(nil, 1000))
}

// cut is the network's failure.
func (c *socket) cut() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset, not an orderly end
	}
	c.conn.Close()
}

// decoded decodes the result of an answer or the params of a notification.
func decoded[T any](t *testing.T, m wire.Message) T {
	t.Helper()
	if m.Err != nil {
		t.Fatal(m.Err)
	}
	if m.Method != "" {
		return decodedJSON[T](t, m.Params)
	}
	return decodedJSON[T](t, m.Result)
}

func decodedJSON[T any](t *testing.T, raw []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return v
}
