package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// BenchmarkOutput is the path of output from a transcript to the socket: 10 MiB in lines of 80
// bytes.
func BenchmarkOutput(b *testing.B) { benchmarkOutput(b, "/ws") }

// BenchmarkBinaryOutput is the same in binary frames.
func BenchmarkBinaryOutput(b *testing.B) { benchmarkOutput(b, "/ws?frames=binary") }

func benchmarkOutput(b *testing.B, path string) {
	b.Helper()
	f := start(b, nil)
	outs := newOutputs(b)
	out := outs.create("x")
	out.write(strings.Repeat(strings.Repeat("x", 79)+"\n", 10<<20/80))
	out.complete()
	conn := f.rawClientAt(b, path, "")
	e := f.accepted(b)
	last := make(chan struct{})
	go func() {
		// A raw socket, so that the benchmark measures the server and not a client. Completed ends
		// each run.
		buf := make([]byte, 256<<10)
		kept := 0
		for {
			n, err := conn.Read(buf[kept:])
			if err != nil {
				return
			}
			n += kept
			if bytes.Contains(buf[max(0, n-1024):n], []byte(`"process.completed"`)) {
				last <- struct{}{}
				n = 0
			}
			kept = copy(buf, buf[max(0, n-512):n])
		}
	}()
	b.SetBytes(out.End())
	b.ReportAllocs()
	for b.Loop() {
		e.client.Follow(out.feed(0))
		<-last
	}
}

// BenchmarkRawFrames is the same bytes through the library alone: the most that BenchmarkOutput
// could reach.
func BenchmarkRawFrames(b *testing.B) {
	conns := make(chan *websocket.Conn, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err == nil {
			conns <- ws
		}
	}))
	defer srv.Close()
	f := &fixture{url: "ws" + strings.TrimPrefix(srv.URL, "http")}
	conn := f.rawClient(b, "")
	ws := <-conns
	defer ws.CloseNow()
	frame := make([]byte, wire.MaxOutputMessage)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if err := ws.Write(context.Background(), websocket.MessageText, frame); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleConnections reports the memory of one connection that has had a request answered and
// is idle, the library's share and the test client's socket included.
func BenchmarkIdleConnections(b *testing.B) {
	const n = 2000
	f := start(b, nil)
	f.engine.handle = answerAll
	for b.Loop() {
		before := memory()
		var ends []net.Conn
		for range n {
			ends = append(ends, f.rawClient(b, ""))
			f.accepted(b)
			askOnce(b, ends[len(ends)-1])
		}
		after := memory()
		b.ReportMetric(float64(after-before)/n, "B/conn")
		b.ReportMetric(float64(runtime.NumGoroutine())/n, "goroutines/conn")
		for _, c := range ends {
			_ = c.Close()
		}
	}
}

// askOnce sends one request over a raw socket and reads its answer. The mask is zero, so nothing
// needs masking.
func askOnce(b *testing.B, conn net.Conn) {
	b.Helper()
	const text = `{"jsonrpc":"2.0","id":1,"method":"execute","params":{"command":"true","env":{"A":"1"}}}`
	if _, err := conn.Write(append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)); err != nil {
		b.Fatal(err)
	}
	const answer = `{"jsonrpc":"2.0","id":1,"result":{}}`
	if _, err := io.ReadFull(conn, make([]byte, 2+len(answer))); err != nil {
		b.Fatal(err)
	}
}

// memory is the heap and the stacks in use.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
