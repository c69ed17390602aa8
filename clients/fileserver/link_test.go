//go:build linux

package fileserver

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// attached returns a link to the session.
func (s *server) attached() *link {
	s.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.SetPathValue("session", s.session.ID())
	l, _, err := s.handler.attach(r, map[string]int64{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(l.close)
	return l
}

// TestUploadsWaitForRoom: commands that do not read their input have taken the budget for it. An upload goes on
// when there is room again, and has every byte once.
func TestUploadsWaitForRoom(t *testing.T) {
	s := serving(t, nil)
	l := s.attached()
	hogs := []string{"a", "b", "c"}
	for _, hog := range hogs {
		params := &wire.ExecuteParams{Command: "sleep 100", ExecutionID: hog, Stdin: true}
		if _, err := l.call(t.Context(), params); err != nil {
			t.Fatal(err)
		}
		for size, at := 512<<10, 0; size > 0; {
			select { // a refusal comes at once, the answer to what waits never
			case a := <-l.send(wire.NewInput(hog, make([]byte, size), int64(at), false)):
				switch {
				case a.err == nil: // it fits into the pipe
					at += size
				case a.err.Code == wire.CodeSessionLimit:
					size /= 2
				default:
					t.Fatal(a.err)
				}
			case <-time.After(20 * time.Millisecond):
				at += size
			}
		}
	}
	data := make([]byte, 5*pieceSize+1)
	rand.Read(data)
	at := s.begin("f")
	answered := make(chan answer, 1)
	go func() { answered <- s.do("PATCH "+at, bytes.NewReader(data), "Upload-Offset", "0") }()
	select {
	case a := <-answered:
		t.Fatal("there was room: ", a)
	case <-time.After(3 * inputRetry):
	}
	for _, hog := range hogs {
		if _, err := l.call(t.Context(), &wire.ControlParams{Type: wire.ControlCancel, ExecutionID: hog}); err != nil {
			t.Fatal(err)
		}
	}
	if a := <-answered; a.status != http.StatusCreated {
		t.Fatal(a)
	}
	if got, err := os.ReadFile(filepath.Join(s.dir, "f")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}
}

// TestUploadsEndWithTheirConnection: also while their clients send nothing.
func TestUploadsEndWithTheirConnection(t *testing.T) {
	s := serving(t, nil)
	body, feed := io.Pipe()
	defer feed.Close()
	at := s.begin("f")
	answered := make(chan answer, 1)
	go func() { answered <- s.do("PATCH "+at, body, "Upload-Offset", "0") }()
	if _, err := feed.Write(make([]byte, pieceSize)); err != nil {
		t.Fatal(err)
	}
	for s.offset(at) != fmt.Sprint("204 ", pieceSize, " ?0") {
		time.Sleep(5 * time.Millisecond)
	}
	s.engine.Close()
	select {
	case a := <-answered:
		if a.status != http.StatusServiceUnavailable && a.status != http.StatusNotFound {
			t.Error(a)
		}
	case <-time.After(stallTimeout / 2):
		t.Error("the upload waits for its client")
	}
}

// TestUploadsOutliveAConnectionWhileTheProgramIsSlow: all content of the request has arrived when its connection
// breaks, and some of it waits for the program. The upload goes on where that is.
func TestUploadsOutliveAConnectionWhileTheProgramIsSlow(t *testing.T) {
	s := serving(t, nil)
	at := s.begin("f")
	l := s.attached()
	control := func(typ string) {
		t.Helper()
		if _, err := l.call(t.Context(), &wire.ControlParams{Type: typ}); err != nil {
			t.Fatal(err)
		}
	}
	control(wire.ControlPause)
	host, path, _ := strings.Cut(strings.TrimPrefix(s.url, "http://"), "/")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	const size = 2 * pieceSize // as many as are under way at a time
	fmt.Fprintf(conn, "PATCH /%s%s HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nUpload-Complete: ?0\r\nContent-Length: %d\r\n\r\n",
		path, at, size)
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // it is at the point where it waits
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	control(wire.ControlResume)
	deadline := time.Now().Add(10 * time.Second)
	for {
		have := s.offset(at)
		if strings.HasPrefix(have, "204 ") && !strings.HasPrefix(have, "204 0 ") {
			break
		}
		if strings.HasPrefix(have, "410") || time.Now().After(deadline) {
			t.Fatal("the upload is at ", have)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
