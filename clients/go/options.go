package troupe

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Defaults of Options.
const (
	// DefaultResumeWindow is used when the server does not announce its own.
	DefaultResumeWindow = 300 * time.Second
	// DefaultKeepaliveTimeout is slightly more than two of the server's default ping intervals: one
	// lost ping does not end a connection, but two do.
	DefaultKeepaliveTimeout = 45 * time.Second
	// DefaultWindow of output is held per execution. It is as much as the server retains with
	// wire.RetainUnread.
	DefaultWindow = 1 << 20
	// DefaultHandshakeTimeout covers TCP, TLS, HTTP and the first message.
	DefaultHandshakeTimeout = 15 * time.Second
)

// Options configure Dial and Attach. The zero value is usable against a server
// without authentication.
type Options struct {
	// Token is sent as a bearer token. Empty: none.
	Token string
	// TokenFunc supplies tokens that rotate. It is called before every connection and takes precedence
	// over Token. nil: Token.
	TokenFunc func() (string, error)

	// HTTPClient makes the handshake. nil: one that uses Proxy and TLS, and follows redirects only to
	// the same host.
	HTTPClient *http.Client
	// Proxy returns the proxy for the handshake, of the scheme http, https, socks5 or socks5h, or nil for
	// none. nil: that of HTTP_PROXY for ws, HTTPS_PROXY for wss or else ALL_PROXY, unless NO_PROXY names
	// the server; none for localhost. An HTTP proxy is used with CONNECT for both schemes.
	Proxy func(*http.Request) (*url.URL, error)
	// TLS configures wss when HTTPClient is nil. nil: the system's roots.
	TLS *tls.Config
	// Header is added to the handshake. nil: none.
	Header http.Header

	// Session is what Dial and Start ask of the new session: its name, labels and resume window. A server that
	// does not know an option opens the session without it.
	Session wire.SessionOptions

	// Logger gets connection losses and resumptions at Info, oddities at Warn. nil: silent.
	Logger *slog.Logger
	// OnNotice is called when the connection is lost, retried and resumed. It must not
	// block or call the Client. nil: not called.
	OnNotice func(Notice)

	// Backoff paces reconnection. Zero: see Backoff.
	Backoff Backoff
	// ResumeWindow bounds the time without a connection, after which the Client gives up the session.
	// Zero: the server's resume_window, or DefaultResumeWindow if it announces none.
	ResumeWindow time.Duration
	// DialRetry makes Dial and Start keep trying for this long when the server has no free session
	// (-32001), is draining or is unreachable. Start does not try again after a connection that ended
	// when it had sent its command. Zero: one try.
	DialRetry time.Duration
	// HandshakeTimeout bounds one attempt to connect. Zero: DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
	// KeepaliveTimeout ends a connection on which the server sent nothing for this long; the client
	// pings at a third of it. Zero: DefaultKeepaliveTimeout. Negative: never.
	KeepaliveTimeout time.Duration

	// Window bounds the unread output held per Execution, in bytes: the server sends no more than that
	// ahead of what Next returned. From wire.MinWindow to wire.MaxWindow. Zero: DefaultWindow.
	Window int
}

// Backoff is exponential with full jitter: attempt n waits a random time up to
// min(Max, Initial·2ⁿ). Full jitter spreads the clients of a pod that died.
type Backoff struct {
	Initial time.Duration // zero: 100 ms
	Max     time.Duration // zero: 5 s
}

func (b Backoff) delay(attempt int) time.Duration {
	ceiling := b.Initial << min(attempt, 30)
	if ceiling <= 0 || ceiling > b.Max {
		ceiling = b.Max
	}
	return rand.N(ceiling) + 1
}

func (o Options) withDefaults() Options {
	setDefault(&o.Backoff.Initial, 100*time.Millisecond)
	setDefault(&o.Backoff.Max, 5*time.Second)
	setDefault(&o.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&o.KeepaliveTimeout, DefaultKeepaliveTimeout)
	setDefault(&o.Window, DefaultWindow)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnNotice == nil {
		o.OnNotice = func(Notice) {}
	}
	if o.TokenFunc == nil {
		token := o.Token
		o.TokenFunc = func() (string, error) { return token, nil }
	}
	if o.Proxy == nil {
		o.Proxy = proxyFromEnvironment
	}
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{CheckRedirect: sameServer, Transport: newTunnel(o)}
	}
	return o
}

// check reports options that cannot work.
func (o Options) check() error {
	if o.Window < wire.MinWindow || o.Window > wire.MaxWindow {
		return fmt.Errorf("window of %d bytes: it must be from %d to %d", o.Window, wire.MinWindow, wire.MaxWindow)
	}
	return o.Session.Check()
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// NoticeKind says what happened to the connection.
type NoticeKind string

const (
	NoticeLost     NoticeKind = "lost"     // the connection ended, see Err and CloseCode(Err); a new one is made
	NoticeRetry    NoticeKind = "retry"    // an attempt failed; the next follows after Delay
	NoticeResumed  NoticeKind = "resumed"  // the session was resumed; Delay is the time without a connection
	NoticeDraining NoticeKind = "draining" // the server is stopping; Delay is what running executions have left
)

// Notice reports a change of the connection, for logs and users.
type Notice struct {
	Kind    NoticeKind
	Err     error
	Attempt int
	Delay   time.Duration
}
