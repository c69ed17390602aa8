package gateway

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Buffer sizes of an idle connection: net/http's 4 KiB each would be half of what it costs.
const (
	readBuffer  = 1 << 10 // requests are short; longer reads pass it by
	writeBuffer = 1 << 10 // answers are short; longer writes pass it by
	// corkLimit is what a corked socket collects before it writes anyway.
	corkLimit = 16 << 10
)

// socket is the network connection below a WebSocket. It bounds every write,
// notes when the client was last heard of, and joins the writes of one turn of
// the writer into one system call and, as a rule, one packet.
type socket struct {
	net.Conn
	metrics *metrics
	timeout time.Duration // of a write

	heard   atomic.Int64 // when bytes last came, nanoseconds of clock
	writing atomic.Bool
	stalled atomic.Bool // a write took longer than the timeout
	cut     atomic.Bool // the library closed while a write was under way

	mu      sync.Mutex // held while writing
	corked  bool
	pending []byte // written while corked; nil while idle
	vector  [2][]byte
	buffers net.Buffers // of vector; here because WriteTo makes it escape
}

// clock is monotonic, and cheaper to store atomically than a time.Time.
var clockStart = time.Now()

func clock() int64 { return int64(time.Since(clockStart)) }

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.heard.Store(clock())
		s.metrics.bytesReceived.Add(float64(n))
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.corked && len(s.pending)+len(p) <= corkLimit {
		s.pending = append(s.pending, p...)
		return len(p), nil
	}
	if err := s.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send writes what was collected and p within the timeout, with one writev: the
// bufio.Writer above splits a message into its buffer's first fill and the rest. Called with mu held.
func (s *socket) send(p []byte) error {
	s.writing.Store(true)
	defer s.writing.Store(false)
	if err := s.Conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	s.buffers = s.vector[:0]
	for _, b := range [][]byte{s.pending, p} {
		if len(b) > 0 {
			s.buffers = append(s.buffers, b)
		}
	}
	sent, err := s.buffers.WriteTo(s.Conn)
	s.vector, s.pending = [2][]byte{}, s.pending[:0]
	s.metrics.bytesSent.Add(float64(sent))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.stalled.Store(true)
	}
	return err
}

// cork collects what is written until uncork.
func (s *socket) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

// uncork writes what was collected.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	if len(s.pending) == 0 {
		return nil
	}
	return s.send(nil)
}

// idle lets go of the memory that only a busy connection needs.
func (s *socket) idle() {
	s.mu.Lock()
	s.pending = nil
	s.mu.Unlock()
}

// Close closes the connection, after what was collected. The WebSocket library
// calls it when the client closes, and when one of its own frames (a pong, a
// close) could not be written within its five seconds, which is a write timeout too.
func (s *socket) Close() error {
	if s.writing.Load() {
		s.cut.Store(true)
		return s.Conn.Close()
	}
	if s.mu.TryLock() {
		if len(s.pending) > 0 {
			_ = s.send(nil) // the connection ends either way
		}
		s.mu.Unlock()
	}
	return s.Conn.Close()
}

// abort closes the connection without another write.
func (s *socket) abort() { _ = s.Conn.Close() } // the error would be that it is closed

// hijackInto is a ResponseWriter whose Hijack hands out a socket with small buffers.
type hijackInto struct {
	http.ResponseWriter
	sock *socket
}

// Hijack implements http.Hijacker.
func (h hijackInto) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.sock.Conn = raw
	h.sock.heard.Store(clock())
	reader := bufio.NewReaderSize(h.sock, readBuffer)
	if n := brw.Reader.Buffered(); n > 0 {
		reader = brw.Reader // it holds what the client sent together with its handshake
	}
	// net/http left the handshake's answer in its own writer.
	if err := brw.Writer.Flush(); err != nil {
		_ = raw.Close() // the error of the write is the one to report
		return nil, nil, err
	}
	return h.sock, bufio.NewReadWriter(reader, bufio.NewWriterSize(h.sock, writeBuffer)), nil
}
