package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// limited serves h with at most most plain HTTP connections.
func limited(t *testing.T, most int, h http.Handler) (*listener, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config = NewHTTPServer(h, nil)
	l, ok := Limit(server.Listener, ListenerConfig{Max: most}).(*listener)
	if !ok {
		t.Fatal("Limit returns something else")
	}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return l, server.Listener.Addr().String()
}

var answerOK = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })

// openTo connects to a server and sends text.
func openTo(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer reads one answer, or fails.
func answerOf(t *testing.T, c net.Conn) (status int) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(testTimeout))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

const getRoot = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// TestUnauthenticatedConnectionsAreBounded: of 30 times as many clients as there may be connections
// that hold what they have, by doing nothing, by half a header, by a body that does not come and by
// staying idle, no more are open than may be. A client that sends its request is served at once,
// from the same address too.
func TestUnauthenticatedConnectionsAreBounded(t *testing.T) {
	const most = 8
	for name, text := range map[string]string{
		"silent":         "",
		"half a header":  "GET / HTTP/1.1\r\nHost: x\r\n",
		"idle":           getRoot,
		"half a body":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
		"half a request": "GE",
		"OPTIONS *":      "OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, addr := limited(t, most, answerOK)
			begun := time.Now()
			for i := range 30 * most {
				openTo(t, addr, text)
				if i%most == 0 {
					if got := answerOf(t, openTo(t, addr, getRoot)); got != http.StatusOK {
						t.Fatalf("an honest client got %d", got)
					}
				}
			}
			if took := time.Since(begun); took > 20*time.Second { // 0.1 s; 60 s if each waits until another was served for long
				t.Errorf("the honest clients waited: %v in all", took)
			}
			if n := value(l.open); n > most {
				t.Errorf("%v connections are open, want at most %d", n, most)
			}
			if value(l.overLimit) == 0 {
				t.Error("no connection counts as dropped")
			}
		})
	}
}

// TestARequestBeingServedKeepsItsConnection: a client that is being authenticated, which may take
// seconds, is not the one that gives way to those that have sent nothing.
func TestARequestBeingServedKeepsItsConnection(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	_, addr := limited(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Slow") != "" {
			close(begun)
			<-finish
		}
		_, _ = io.WriteString(w, "ok")
	}))
	slow := openTo(t, addr, "GET / HTTP/1.1\r\nHost: x\r\nSlow: 1\r\n\r\n")
	<-begun
	for range 50 {
		openTo(t, addr, "")
	}
	answerOf(t, openTo(t, addr, getRoot)) // the server has accepted those before it
	close(finish)
	if got := answerOf(t, slow); got != http.StatusOK {
		t.Errorf("got %d", got)
	}
}

// TestTheAddressWithMostConnectionsGivesWay: a client of another address keeps an idle connection
// while one address opens as many as it can.
func TestTheAddressWithMostConnectionsGivesWay(t *testing.T) {
	_, addr := limited(t, 4, answerOK)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	other, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Skip("127.0.0.2 is no address of this machine:", err)
	}
	defer other.Close()
	_, _ = io.WriteString(other, getRoot)
	answerOf(t, other)
	for range 50 {
		openTo(t, addr, "")
	}
	answerOf(t, openTo(t, addr, getRoot))
	_, _ = io.WriteString(other, getRoot)
	if got := answerOf(t, other); got != http.StatusOK {
		t.Errorf("got %d", got)
	}
}

// TestHeadersAreBounded: in bytes and in lines, and for every request of a connection.
func TestHeadersAreBounded(t *testing.T) {
	const line = "a: b\r\n"
	lines := func(n int) string { return "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat(line, n-1) + "\r\n" }
	bytesOf := func(n int) string {
		head := "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n"
		return strings.Replace(head, "A: ", "A: "+strings.Repeat("x", n-len(head)), 1)
	}
	_, addr := limited(t, 8, answerOK)
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"as many lines as may be": {lines(maxHeaderLines), http.StatusOK},
		"one more line":           {lines(maxHeaderLines + 1), http.StatusRequestHeaderFieldsTooLarge},
		"as many bytes as may be": {bytesOf(MaxHeader), http.StatusOK},
		"one more byte":           {bytesOf(MaxHeader + 1), http.StatusRequestHeaderFieldsTooLarge},
	} {
		// Of a later request net/http reads the first buffer before it counts.
		later := c.text
		if name == "one more byte" {
			later = bytesOf(MaxHeader + headerSlop + 1)
		}
		fresh := openTo(t, addr, c.text)
		if got := answerOf(t, fresh); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		reused := openTo(t, addr, getRoot)
		answerOf(t, reused)
		_, _ = fmt.Fprint(reused, later)
		if got := answerOf(t, reused); got != c.want {
			t.Errorf("%s, after another request: %d, want %d", name, got, c.want)
		}
	}
}

// TestCloseEndsAnAcceptThatWaitsForRoom: a server stops although every connection is being served.
func TestCloseEndsAnAcceptThatWaitsForRoom(t *testing.T) {
	raw, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(raw, ListenerConfig{Max: 1})
	openTo(t, raw.Addr().String(), "")
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	openTo(t, raw.Addr().String(), "")
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	_ = l.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("accepted beyond the bound")
		}
	case <-time.After(testTimeout):
		t.Fatal("Accept still waits")
	}
}

// TestARequestThatNobodyHasReadKeepsItsConnection: a client that has sent its request does not give way to
// one that has sent nothing because its goroutine has not run yet. Here, no goroutine reads.
func TestARequestThatNobodyHasReadKeepsItsConnection(t *testing.T) {
	raw, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	l := Limit(raw, ListenerConfig{Max: 3})
	accept := func(text string) *httpConn {
		t.Helper()
		openTo(t, raw.Addr().String(), text)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*httpConn) //nolint:forcetypeassert // Limit's own
	}
	asks, silent := accept(getRoot), []*httpConn{accept("")}
	deadline := time.Now().Add(testTimeout)
	for !asks.hasUnread() {
		if time.Now().After(deadline) {
			t.Fatal("the request did not arrive")
		}
		time.Sleep(time.Millisecond)
	}
	silent = append(silent, accept(""))
	limit := l.(*listener) //nolint:forcetypeassert // as above
	limit.mu.Lock()
	defer limit.mu.Unlock()
	limit.evict()
	if asks.evicted || !silent[0].evicted {
		t.Errorf("evicted: the client that asks %v, the silent ones %v, %v",
			asks.evicted, silent[0].evicted, silent[1].evicted)
	}
	if limit.evict(); !silent[1].evicted || limit.evict() || asks.evicted {
		t.Errorf("evicted: the client that asks %v, the last silent one %v", asks.evicted, silent[1].evicted)
	}
	asks.ready, asks.serving, asks.since = false, true, time.Now()
	if limit.evict() {
		t.Error("a client gave way whose request is being served")
	}
	if asks.since = time.Now().Add(-servedFor); !limit.evict() {
		t.Error("a client that does not read its answer keeps its connection")
	}
}
