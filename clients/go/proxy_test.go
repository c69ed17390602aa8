package troupe_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// connectProxy is a forward proxy that knows CONNECT alone, as RFC 6455 wants it used. It connects
// to server, whatever host is asked for.
type connectProxy struct {
	server   string // host:port
	password string // of the user me; empty: none needed
	refuse   int    // status
	targets  chan string
	tls      bool
}

func (p *connectProxy) start(t *testing.T) *url.URL {
	t.Helper()
	p.targets = make(chan string, 10)
	s := httptest.NewUnstartedServer(p)
	if p.tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusUpgradeRequired) // what squid and others answer to a GET with Upgrade
		return
	}
	want := http.Header{}
	(&http.Request{Header: want}).SetBasicAuth("me", p.password)
	if p.password != "" && r.Header.Get("Proxy-Authorization") != want.Get("Authorization") {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.targets <- r.Host
	if p.refuse != 0 {
		w.WriteHeader(p.refuse)
		return
	}
	far, err := net.Dial("tcp", p.server)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	near, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
	_, _ = io.Copy(near, far)
	_ = near.Close()
}

// through dials a server by a name that only the proxy can resolve.
func through(t *testing.T, scheme string, proxy *url.URL, s *fakeServer) (*troupe.Client, error) {
	t.Helper()
	// The certificate of httptest, which server and proxy have, is for example.com and 127.0.0.1.
	trust := httptest.NewTLSServer(nil)
	defer trust.Close()
	transport := trust.Client().Transport.(*http.Transport)
	opt := troupe.Options{Proxy: http.ProxyURL(proxy), TLS: transport.TLSClientConfig}
	c, err := troupe.Dial(t.Context(), scheme+"://example.com:8003/ws", opt)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// Plain ws goes through an HTTP proxy with CONNECT too (RFC 6455, section 4.1; curl#21663).
func TestHTTPProxyIsAskedToConnect(t *testing.T) {
	for name, tc := range map[string]struct {
		scheme, password string
		tls              bool // of the proxy
	}{
		"ws":                    {scheme: "ws"},
		"wss":                   {scheme: "wss"},
		"ws, password":          {scheme: "ws", password: "secret"},
		"wss, password":         {scheme: "wss", password: "secret"},
		"ws through https":      {scheme: "ws", tls: true},
		"wss, password, https ": {scheme: "wss", password: "secret", tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &fakeServer{script: noise(200_000, 16), secure: tc.scheme == "wss"}
			s.start(t)
			p := &connectProxy{server: s.http.Listener.Addr().String(), password: tc.password, tls: tc.tls}
			proxy := p.start(t)
			proxy.User = url.UserPassword("me", tc.password)
			c, err := through(t, tc.scheme, proxy, s)
			if err != nil {
				t.Fatal(err)
			}
			done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, io.Discard, io.Discard)
			if err != nil || done.OutputBytes != 200_000 {
				t.Errorf("%+v, %v", done, err)
			}
			if target := <-p.targets; target != "example.com:8003" {
				t.Errorf("the proxy was asked for %q", target)
			}
		})
	}
}

// What a proxy refuses is said in its name, without its password, and repeated only where that helps.
func TestProxyErrorsNameTheProxy(t *testing.T) {
	for name, tc := range map[string]struct {
		proxy     connectProxy
		status    int
		temporary bool
	}{
		"denied":   {connectProxy{refuse: 403}, 403, false},
		"busy":     {connectProxy{refuse: 503}, 503, true},
		"password": {connectProxy{password: "right"}, 407, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &fakeServer{}
			s.start(t)
			for _, scheme := range []string{"ws", "wss"} {
				proxy := tc.proxy.start(t)
				proxy.User = url.UserPassword("me", "wrong-secret")
				_, err := through(t, scheme, proxy, s)
				var pe *troupe.ProxyError
				if !errors.As(err, &pe) || pe.StatusCode != tc.status || pe.Temporary() != tc.temporary ||
					!strings.Contains(err.Error(), "the proxy http://"+proxy.Host) ||
					strings.Contains(err.Error(), "secret") {
					t.Errorf("%s: %v", scheme, err)
				}
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := &fakeServer{}
	s.start(t)
	_, err = through(t, "ws", &url.URL{Scheme: "http", Host: l.Addr().String()}, s)
	var pe *troupe.ProxyError
	if !errors.As(err, &pe) || !pe.Temporary() || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a proxy that is not there: %v", err)
	}
}

// SOCKS proxies carry any bytes, so net/http's way is used for them (RFC 1928).
func TestSOCKSProxy(t *testing.T) {
	s := &fakeServer{script: noise(1000, 17)}
	s.start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var asked atomic.Value
	go func() {
		near, err := l.Accept()
		if err != nil {
			return
		}
		defer near.Close()
		br := bufio.NewReader(near)
		_, _ = io.ReadFull(br, make([]byte, 3)) // version, one method: none
		_, _ = near.Write([]byte{5, 0})
		head := make([]byte, 5) // version, connect, reserved, a name, its length
		_, _ = io.ReadFull(br, head)
		host := make([]byte, int(head[4])+2)
		_, _ = io.ReadFull(br, host)
		asked.Store(string(host[:head[4]]))
		_, _ = near.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		far, err := net.Dial("tcp", s.http.Listener.Addr().String())
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(far, br); _ = far.Close() }()
		_, _ = io.Copy(near, far)
	}()
	c, err := through(t, "ws", &url.URL{Scheme: "socks5", Host: l.Addr().String()}, s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, nil, nil)
	if err != nil || asked.Load() != "example.com" {
		t.Errorf("%v, asked for %v", err, asked.Load())
	}
}
