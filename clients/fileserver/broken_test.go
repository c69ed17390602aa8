//go:build linux

package fileserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// begin begins an upload that can be resumed, and returns its path below the session.
func (s *server) begin(path string, header ...string) string {
	s.t.Helper()
	a := s.do("PUT /files/"+path, http.NoBody, append(header, "Upload-Complete", "?0")...)
	at, ok := strings.CutPrefix(a.header.Get("Location"), Prefix+s.session.ID())
	if a.status != http.StatusCreated || !ok {
		s.t.Fatal(a)
	}
	return at
}

// offset returns how much of an upload has arrived, and whether it is complete.
func (s *server) offset(upload string) string {
	s.t.Helper()
	a := s.do("HEAD "+upload, nil)
	return fmt.Sprint(a.status, " ", a.header.Get("Upload-Offset"), " ", a.header.Get("Upload-Complete"))
}

// TestUploadsGoOnWhereTheyWere: in parts, with wrong offsets and with the digest at the end.
func TestUploadsGoOnWhereTheyWere(t *testing.T) {
	s := serving(t, nil)
	at := s.begin("f", "Upload-Length", "10")
	part := func(offset, content string, status int, header ...string) answer {
		t.Helper()
		a := s.do("PATCH "+at, strings.NewReader(content), append(header, "Upload-Offset", offset)...)
		if a.status != status {
			t.Errorf("%q at %s: %v", content, offset, a)
		}
		return a
	}
	more := []string{"Upload-Complete", "?0"}
	part("0", "01234", 204, more...)
	if have := s.offset(at); have != "204 5 ?0" {
		t.Error(have)
	}
	if a := part("0", "01234", 409, more...); a.code() != "offset" || a.header.Get("Upload-Offset") != "5" {
		t.Error(a)
	}
	part("9", "9", 409)
	part("x", "9", 400)
	part("5", "9", 400, "Upload-Complete", "yes")
	part("5", "9", 400, "Repr-Digest", "sha-256=:AA==:")
	part("5", "56789", 204, more...)
	if have := s.sh("ls"); have != "" {
		t.Errorf("half an upload shows as %q", have)
	}
	last := []string{"Upload-Complete", "?1", "Repr-Digest", digest("0123456789")}
	first := part("10", "", 201, last...)
	// The answer may have been lost: the same request has the same answer.
	if again := part("10", "", 201, last...); again.body != first.body {
		t.Errorf("%v, and then %v", first, again)
	}
	if have := s.offset(at); have != "204 10 ?1" {
		t.Error(have)
	}
	if have := s.sh("cat f"); have != "0123456789" {
		t.Errorf("f has %q", have)
	}
	s.check([]row{
		{what: "PATCH " + s.begin("f"), body: "new", header: []string{"Upload-Offset", "0"}, status: 200},
	})
}

// TestUploadsThatFailSaySo: with the program's reason, and for good.
func TestUploadsThatFailSaySo(t *testing.T) {
	s := serving(t, nil)
	at := s.begin("f", "Upload-Length", "3")
	s.check([]row{
		{
			what: "PATCH " + at, body: "abc", header: []string{"Upload-Offset", "0", "Repr-Digest", digest("xyz")},
			status: 422, code: "digest",
		},
		{what: "PATCH " + at, header: []string{"Upload-Offset", "3"}, status: 422, code: "digest"},
		{what: "HEAD " + at, status: 410},
		{what: "PATCH /uploads/upload-none", header: []string{"Upload-Offset", "3"}, status: 404, code: "no_upload"},
		{what: "DELETE /uploads/other", status: 404, code: "no_upload"},
	})
	if have := s.sh("ls -A"); have != "" {
		t.Errorf("the session has %q", have)
	}
	s.sh("echo old >g")
	at = s.begin("g", "If-Match", s.do("HEAD /files/g", nil).header.Get("ETag"))
	s.sh("echo new >g")
	s.check([]row{
		{what: "PATCH " + at, body: "mine", header: []string{"Upload-Offset", "0"}, status: 412, code: "precondition"},
	})
}

// TestLostClientsLeaveNothing: whose connection ends in the middle of an upload, or of a download.
func TestLostClientsLeaveNothing(t *testing.T) {
	s := serving(t, nil)
	host, path, _ := strings.Cut(strings.TrimPrefix(s.url, "http://"), "/")
	for _, request := range []string{
		"PUT /%s/files/f HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
		"PUT /%s/files/f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n",
		"PUT /%s/files/d HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: 100000000\r\n\r\n" +
			string(archived(t, tarFile("f", 1<<20))[:1<<19]),
		"GET /%s/files/big HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /%s/files/?watch HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		s.sh("rm -rf d big; mkdir d; head -c 20000000 /dev/urandom >big")
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, request, path)
		if strings.HasPrefix(request, http.MethodPut) {
			_, _ = conn.Write(make([]byte, 500000))
		} else if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		s.idle()
		if have := s.sh("find . -mindepth 1"); have != "./d\n./big\n" && have != "./big\n./d\n" {
			t.Errorf("after %q: %q", request[:40], have)
		}
	}
}

// TestCancelledUploadsLeaveNothing: by DELETE, and with the session.
func TestCancelledUploadsLeaveNothing(t *testing.T) {
	s := serving(t, nil)
	s.sh("echo old >f")
	at := s.begin("f")
	s.check([]row{
		{
			what: "PATCH " + at, body: strings.Repeat("x", 1<<20), header: []string{"Upload-Offset", "0", "Upload-Complete", "?0"},
			status: 204,
		},
		{what: "DELETE " + at, status: 204},
	})
	// The program is dead then; that it has ended is known a moment later.
	for end := time.Now().Add(10 * time.Second); s.do("HEAD "+at, nil).status != 410 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	s.check([]row{
		{what: "HEAD " + at, status: 410},
		{what: "PATCH " + at, header: []string{"Upload-Offset", "1048576"}, status: 410, code: "canceled"},
	})
	s.idle()
	if have := s.sh("ls -A; cat f"); have != "f\nold\n" {
		t.Errorf("the session has %q", have)
	}
	s.begin("g")
	s.session.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if a := s.do("GET /files/f", nil); a.code() == "no_session" {
			break
		} else if time.Now().After(end) {
			t.Fatal(a)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}

// TestFilesThatChangeAreNotTakenForWhole: the connection breaks off.
func TestFilesThatChangeAreNotTakenForWhole(t *testing.T) {
	s := serving(t, nil)
	s.sh("head -c 50000000 /dev/urandom >f")
	for _, header := range [][]string{nil, {"Want-Repr-Digest", "sha-256=1"}, {"Range", "bytes=0-49999998"}} {
		resp := s.open(t.Context(), "GET /files/f", nil, header...)
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		s.sh("printf x | dd of=f bs=1 seek=40000000 conv=notrunc 2>/dev/null")
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Errorf("%q: it was taken for whole", header)
		}
		resp.Body.Close()
		s.idle()
	}
}

// TestClientsMayNotPauseForLong: one that sends nothing, and one that takes nothing.
func TestClientsMayNotPauseForLong(t *testing.T) {
	s := serving(t, nil)
	s.handler.stall = 200 * time.Millisecond
	body, feed := io.Pipe()
	defer feed.Close()
	if a := s.do("PUT /files/f", body); a.status != http.StatusRequestTimeout || a.code() != "incomplete" {
		t.Error(a)
	}
	again, feedAgain := io.Pipe()
	defer feedAgain.Close()
	at := s.begin("f")
	if a := s.do("PATCH "+at, again, "Upload-Offset", "0"); a.status != http.StatusRequestTimeout {
		t.Error(a)
	}
	s.check([]row{{what: "DELETE " + at, status: 204}}) // it was still there
	s.sh("head -c 50000000 /dev/zero >big")
	resp := s.open(t.Context(), "GET /files/big", nil)
	defer resp.Body.Close()
	s.idle() // the client has read nothing
	if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a client that had paused got all: %v", err)
	}
}

// TestWatchesLastWhileNothingHappens: a watch is not a client that pauses.
func TestWatchesLastWhileNothingHappens(t *testing.T) {
	s := serving(t, nil)
	s.handler.stall = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp := s.open(ctx, "GET /files/?watch", nil)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the watch ended: %v", lines.Err())
		}
		return lines.Text()
	}
	if line := next(); line != `{"kind":"ready"}` {
		t.Error(line)
	}
	s.sh("sleep 2; : >f") // 10 times stall
	if line := next(); line != `{"kind":"created","path":"f"}` {
		t.Error(line)
	}
	cancel()
	s.idle()
}
