//go:build linux

package fileserver

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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
