package gateway

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/turn"
)

// Buffer sizes of an idle connection. net/http's two buffers of 4 KiB would double its memory.
const (
	readBuffer  = 1 << 10 // requests are short; bufio bypasses it for longer reads
	writeBuffer = 1 << 10 // answers are short; bufio bypasses it for longer writes
	// corkLimit is how much a corked connection collects before it writes.
	corkLimit = 16 << 10
)

// corkBuffers are shared, because a writer that meets an empty transcript is idle for a moment.
var corkBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, corkLimit)
	return &b
}}

// netConn is the network connection below a WebSocket. It bounds how long the client may take
// nothing of a write, records when the client last sent something, and joins the writes of one round
// into one system call.
type netConn struct {
	net.Conn
	metrics *metrics
	timeout time.Duration  // for which a write may make no progress
	turn    turn.Turn      // of the reader
	little  turn.Allowance // of the reader, without turns

	heard   atomic.Int64 // when the client last sent bytes, in nanoseconds of clock
	taken   atomic.Int64 // bytes that the kernel has taken
	writing atomic.Bool
	stalled atomic.Bool // the client took nothing for the timeout
	aborted atomic.Bool // the library closed the connection during a write

	mu      sync.Mutex // held while writing
	corked  bool
	pending []byte // written while corked, at most corkLimit; nil while idle
	vector  [2][]byte
	buffers net.Buffers // of vector; here because WriteTo makes it escape
}

// clock is monotonic and, unlike a time.Time, fits an atomic integer.
var clockStart = time.Now()

func clock() int64 { return int64(time.Since(clockStart)) }

func (s *netConn) Read(p []byte) (int, error) {
	s.turn.GiveBack()
	n, err := s.Conn.Read(p)
	if n > 0 && s.little.Exceeds(n) {
		s.turn.Take(turn.Messages)
	}
	if n > 0 {
		s.heard.Store(clock())
		s.metrics.bytesReceived.Add(float64(n))
	}
	return n, err
}

func (s *netConn) Write(p []byte) (int, error) {
	s.turn.GiveBack() // the reader writes too: it answers pings
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.corked && len(s.pending)+len(p) <= corkLimit {
		if s.pending == nil {
			s.pending = *corkBuffers.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
		}
		s.pending = append(s.pending, p...)
		return len(p), nil
	}
	if err := s.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send writes what was collected and p, for as long as the client takes some of it within each
// timeout. It uses one writev because the bufio.Writer above passes on a message in two writes: its
// filled buffer, then the rest. Called with mu held.
func (s *netConn) send(p []byte) error {
	s.writing.Store(true)
	defer s.writing.Store(false)
	s.buffers = s.vector[:0]
	for _, b := range [][]byte{s.pending, p} {
		if len(b) > 0 {
			s.buffers = append(s.buffers, b)
		}
	}
	err := s.writeBuffers()
	s.vector, s.pending = [2][]byte{}, s.pending[:0]
	return err
}

func (s *netConn) writeBuffers() error {
	for {
		if err := s.Conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		sent, err := s.buffers.WriteTo(s.Conn)
		s.taken.Add(sent)
		s.metrics.bytesSent.Add(float64(sent))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if sent == 0 {
			s.stalled.Store(true)
			return err
		}
	}
}

// Opcodes of control frames (https://www.rfc-editor.org/rfc/rfc6455#section-5.2).
const (
	opPing = 0x9
	opPong = 0xa
)

// control writes a control frame, whose payload has at most 125 bytes. coder/websocket (v1.8) would
// close the connection to a client that takes more than 5 s to make room for it. It is for the
// writer, between two messages.
func (s *netConn) control(opcode byte, payload []byte) error {
	_, err := s.Write(append([]byte{0x80 | opcode, byte(len(payload))}, payload...))
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
	if s.pending != nil {
		b := s.pending[:0]
		corkBuffers.Put(&b)
		s.pending = nil
	}
	s.mu.Unlock()
}

// Close writes what was collected and closes the connection. coder/websocket (v1.8) calls it when
// the client closes, and when it could not write a control frame (a pong or a close) within 5 s,
// which counts as a write timeout.
func (s *netConn) Close() error {
	if s.writing.Load() {
		s.aborted.Store(true)
		return s.shut()
	}
	if s.mu.TryLock() {
		if len(s.pending) > 0 {
			_ = s.send(nil) // the connection ends either way
		}
		s.mu.Unlock()
	}
	return s.shut()
}

// abort closes the connection without writing what was collected.
func (s *netConn) abort() { _ = s.shut() } // the only error is that it is already closed

// shut closes the connection. The kernel goes on sending what it has taken, unless there is
// something that was not read: then it drops that and sends a reset (RFC 2525, 2.17).
func (s *netConn) shut() error {
	s.onSocket(func(fd int) {
		var buf [4 << 10]byte
		for range maxDiscard / len(buf) {
			if n, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT); n <= 0 || err != nil {
				return
			}
		}
	})
	return s.Conn.Close()
}

// maxDiscard bounds what shut reads: a client may send on for ever.
const maxDiscard = 1 << 20

// unsent returns how many bytes the kernel has taken and the client's has not: tcp(7), SIOCOUTQ.
func (s *netConn) unsent() (n int) {
	s.onSocket(func(fd int) {
		n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) // 0 where it is not known
	})
	return n
}

// onSocket calls f unless the connection is closed, or is none of the kernel's, as in some tests.
func (s *netConn) onSocket(f func(fd int)) {
	sc, ok := s.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

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
