package troupe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// ProxyError means that a proxy could not be reached, or refused to connect to the server.
type ProxyError struct {
	Proxy      string // URL of the proxy, without credentials
	Target     string // host:port that it was asked for
	StatusCode int    // HTTP status of its answer to CONNECT; 0: none
	Err        error  // nil with a StatusCode
}

func (e *ProxyError) Error() string {
	switch {
	case e.StatusCode == http.StatusProxyAuthRequired:
		return fmt.Sprintf("the proxy %s asks for a user and a password (407): give them in its URL", e.Proxy)
	case e.StatusCode != 0:
		return fmt.Sprintf("the proxy %s does not connect to %s: %d %s", e.Proxy, e.Target, e.StatusCode,
			http.StatusText(e.StatusCode))
	}
	return fmt.Sprintf("the proxy %s: %v", e.Proxy, e.Err)
}

func (e *ProxyError) Unwrap() error { return e.Err }

// Temporary reports whether trying again may help.
func (e *ProxyError) Temporary() bool {
	return e.StatusCode == 0 || e.StatusCode == http.StatusTooManyRequests || e.StatusCode >= 500
}

// proxyFromEnvironment is http.ProxyFromEnvironment, with ALL_PROXY where the scheme has no variable
// of its own, as in curl.
func proxyFromEnvironment(req *http.Request) (*url.URL, error) {
	cfg := httpproxy.FromEnvironment()
	all := firstOf(os.Getenv("ALL_PROXY"), os.Getenv("all_proxy"))
	cfg.HTTPProxy, cfg.HTTPSProxy = firstOf(cfg.HTTPProxy, all), firstOf(cfg.HTTPSProxy, all)
	return cfg.ProxyFunc()(req.URL)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// tunnel is a transport that reaches ws as well as wss through an HTTP proxy with CONNECT
// (RFC 6455, section 4.1). net/http does so for https alone, and sends the proxy a plain GET for
// http, which proxies do not upgrade. It leaves SOCKS to net/http.
type tunnel struct {
	http.Transport
	proxy  func(*http.Request) (*url.URL, error)
	dialer net.Dialer
}

// proxyKey is the key of the HTTP proxy, a *url.URL, in the context of a request.
type proxyKey struct{}

func newTunnel(o Options) *tunnel {
	t := &tunnel{proxy: o.Proxy, dialer: net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}}
	t.TLSClientConfig = o.TLS
	// A refused handshake would otherwise leave an idle connection behind.
	t.DisableKeepAlives = true
	t.DialContext = t.dial
	t.DialTLSContext = t.dialTLS
	t.Transport.Proxy = func(req *http.Request) (*url.URL, error) {
		if req.Context().Value(proxyKey{}) != nil {
			return nil, nil //nolint:nilnil // dial uses it
		}
		return t.proxy(req)
	}
	return t
}

// RoundTrip implements http.RoundTripper.
func (t *tunnel) RoundTrip(req *http.Request) (*http.Response, error) {
	via, err := t.proxy(req)
	if err != nil {
		return nil, fmt.Errorf("proxy of the environment: %w", err)
	}
	if via != nil && (via.Scheme == "http" || via.Scheme == "https") {
		req = req.WithContext(context.WithValue(req.Context(), proxyKey{}, via))
	}
	return t.Transport.RoundTrip(req)
}

func (t *tunnel) dial(ctx context.Context, network, target string) (net.Conn, error) {
	conn, err := t.dialRaw(ctx, network, target)
	if err != nil {
		return nil, err
	}
	return newPolite(conn), nil
}

func (t *tunnel) dialTLS(ctx context.Context, network, target string) (net.Conn, error) {
	conn, err := t.dialRaw(ctx, network, target)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(target) // it was dialed
	if t.TLSClientConfig != nil && t.TLSClientConfig.ServerName != "" {
		host = t.TLSClientConfig.ServerName
	}
	secure, err := secured(ctx, conn, t.TLSClientConfig, host)
	if err != nil {
		return nil, err
	}
	return newPolite(secure), nil
}

// polite is a connection that lets the client speak first, as HTTP does. net/http prints what a
// server says before the request to the standard logger, and its error does not tell what came.
type polite struct {
	net.Conn
	spoke chan struct{} // closed by the first Write, or by Close
	speak sync.Once
}

func newPolite(conn net.Conn) *polite { return &polite{Conn: conn, spoke: make(chan struct{})} }

func (c *polite) Read(p []byte) (int, error) {
	<-c.spoke
	return c.Conn.Read(p)
}

func (c *polite) Write(p []byte) (int, error) {
	c.speak.Do(func() { close(c.spoke) })
	return c.Conn.Write(p)
}

func (c *polite) Close() error {
	err := c.Conn.Close()
	c.speak.Do(func() { close(c.spoke) })
	return err
}

func (t *tunnel) dialRaw(ctx context.Context, network, target string) (net.Conn, error) {
	via, ok := ctx.Value(proxyKey{}).(*url.URL)
	if !ok {
		return t.dialer.DialContext(ctx, network, target)
	}
	fail := &ProxyError{Proxy: (&url.URL{Scheme: via.Scheme, Host: via.Host}).String(), Target: target}
	conn, err := t.dialProxy(ctx, network, via)
	if err != nil {
		fail.Err = err
		return nil, fail
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	fail.StatusCode, fail.Err = connect(conn, target, via.User)
	if !stop() && fail.Err == nil {
		fail.StatusCode, fail.Err = 0, ctx.Err()
	}
	if fail.Err != nil || fail.StatusCode != http.StatusOK {
		_ = conn.Close()
		return nil, fail
	}
	return conn, nil
}

func (t *tunnel) dialProxy(ctx context.Context, network string, via *url.URL) (net.Conn, error) {
	port := via.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[via.Scheme]
	}
	conn, err := t.dialer.DialContext(ctx, network, net.JoinHostPort(via.Hostname(), port))
	if err != nil || via.Scheme == "http" {
		return conn, err
	}
	return secured(ctx, conn, t.TLSClientConfig, via.Hostname())
}

// secured returns TLS to host on conn, which it closes if the handshake fails. A nil base is the default.
func secured(ctx context.Context, conn net.Conn, base *tls.Config, host string) (net.Conn, error) {
	cfg := &tls.Config{} //nolint:gosec // the default is TLS 1.2 and later
	if base != nil {
		cfg = base.Clone()
	}
	cfg.ServerName = host
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// connect asks the proxy at the other end of conn for a tunnel, and returns the status of its answer.
func connect(conn net.Conn, target string, user *url.Userinfo) (status int, err error) {
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: make(http.Header),
	}
	if user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := req.Write(conn); err != nil {
		return 0, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req) //nolint:bodyclose // conn is the body of an answer to CONNECT
	if err != nil {
		return 0, err
	}
	if resp.StatusCode == http.StatusOK && br.Buffered() > 0 {
		return 0, errors.New("the proxy sent data before the server did")
	}
	return resp.StatusCode, nil
}
