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

// Buffer sizes of an idle connection. net/http's two buffers of 4 KiB would double its memory.
const (
	readBuffer  = 1 << 10 // requests are short; bufio bypasses it for longer reads
	writeBuffer = 1 << 10 // answers are short; bufio bypasses it for longer writes
	// corkLimit is how much a corked connection collects before it writes.
	corkLimit = 16 << 10
)

// netConn is the network connection below a WebSocket. It bounds every write, records when the
// client last sent something, and joins the writes of one round into one system call.
type netConn struct {
	net.Conn
	metrics *metrics
	timeout time.Duration // of a write

	heard   atomic.Int64 // when the client last sent bytes, in nanoseconds of clock
	writing atomic.Bool
	stalled atomic.Bool // a write took longer than the timeout
	aborted atomic.Bool // the library closed the connection during a write

	mu      sync.Mutex // held while writing
	corked  bool
	pending []byte // written while corked; nil while idle
	vector  [2][]byte
	buffers net.Buffers // of vector; here because WriteTo makes it escape
}

// clock is monotonic and, unlike a time.Time, fits an atomic integer.
var clockStart = time.Now()

func clock() int64 { return int64(time.Since(clockStart)) }

func (s *netConn) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.heard.Store(clock())
		s.metrics.bytesReceived.Add(float64(n))
	}
	return n, err
}

func (s *netConn) Write(p []byte) (int, error) {
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

// send writes what was collected and p within the timeout. It uses one writev because the
// bufio.Writer above passes on a message in two writes: its filled buffer, then the rest. Called
// with mu held.
func (s *netConn) send(p []byte) error {
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
func (s *netConn) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

// uncork writes what was collected.
func (s *netConn) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	if len(s.pending) == 0 {
		return nil
	}
	return s.send(nil)
}

// idle frees the memory that only a busy connection needs.
func (s *netConn) idle() {
	s.mu.Lock()
	s.pending = nil
	s.mu.Unlock()
}

// Close writes what was collected and closes the connection. coder/websocket (v1.8) calls it when
// the client closes, and when it could not write a control frame (a pong or a close) within 5 s,
// which counts as a write timeout.
func (s *netConn) Close() error {
	if s.writing.Load() {
		s.aborted.Store(true)
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

// abort closes the connection without writing what was collected.
func (s *netConn) abort() { _ = s.Conn.Close() } // the only error is that it is already closed

// hijackInto is a ResponseWriter whose Hijack returns a netConn with small buffers.
type hijackInto struct {
	http.ResponseWriter
	conn *netConn
}

// Hijack implements http.Hijacker.
func (h hijackInto) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if counted, ok := raw.(*httpConn); ok {
		raw = counted.Conn // it counts no longer, and writev needs the *net.TCPConn
	}
	h.conn.Conn = raw
	h.conn.heard.Store(clock())
	reader := bufio.NewReaderSize(h.conn, readBuffer)
	if n := brw.Reader.Buffered(); n > 0 {
		reader = brw.Reader // it holds what the client sent behind its handshake; the library rebinds it
	}
	// net/http has left the handshake's answer in its own writer.
	if err := brw.Writer.Flush(); err != nil {
		_ = raw.Close() // the error of the write is the one to report
		return nil, nil, err
	}
	return h.conn, bufio.NewReadWriter(reader, bufio.NewWriterSize(h.conn, writeBuffer)), nil
}
