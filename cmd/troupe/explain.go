package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// explained wraps an error in a message for the user.
type explained struct {
	message string
	err     error
}

func (e *explained) Error() string { return e.message }
func (e *explained) Unwrap() error { return e.err }

// explain returns an error that says in one line what went wrong with a session or a connection,
// and what to do.
func (a *app) explain(server string, err error) error {
	message := a.endOfSession(server, err)
	for _, about := range []func(string, error) string{refusedSession, refusedHandshake, untrusted, unreachable} {
		if message == "" {
			message = about(server, err)
		}
	}
	if message == "" {
		return err
	}
	if lasts, _ := a.outage.lasts(); lasts > 0 && a.settings.wait > 0 {
		message += fmt.Sprintf(" (tried for %s)", roughly(lasts))
	}
	return &explained{message, err}
}

// roughly rounds to what a person reads.
func roughly(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

// endOfSession explains why a session is gone.
func (a *app) endOfSession(server string, err error) string {
	switch {
	case errors.Is(err, troupe.ErrSessionLost):
		return "the session is lost: the pod that ran it is gone, and so are its commands"
	case errors.Is(err, troupe.ErrUnknownOutcome):
		return fmt.Sprintf("the connection to %s ended before the server confirmed the command: it may have been started, "+
			"and then ends with its session's resume window; it was not sent again", server)
	case errors.Is(err, troupe.ErrSessionEnded):
		return "the server has ended the session: it is stopping, or the session was closed or idle"
	case errors.Is(err, troupe.ErrNoSession):
		return fmt.Sprintf("no such session at %s any more, and its commands are gone with it: the server was restarted, "+
			"the session was closed, or no client was attached for its resume window", server)
	case errors.Is(err, troupe.ErrUnreachable):
		lasts, cause := a.outage.lasts()
		return fmt.Sprintf("no connection to %s for %s, which is the session's resume window: %s; "+
			"the session ends there with its commands", server, roughly(lasts), whyNot(cause))
	}
	return ""
}

// refusedSession explains why a server gives no session.
func refusedSession(server string, err error) string {
	var answer *wire.Error
	if !errors.As(err, &answer) {
		return ""
	}
	switch answer.Code {
	case wire.CodeSessionLimit:
		return fmt.Sprintf("%s has no free session (%s); try again later, or use --wait=1m", server, answer.Message)
	case wire.CodeDraining:
		return fmt.Sprintf("%s is stopping (%s); try again, or use --wait=1m", server, answer.Message)
	}
	return ""
}

// refusedHandshake explains an HTTP answer.
func refusedHandshake(server string, err error) string {
	var refused *troupe.HandshakeError
	if !errors.As(err, &refused) {
		return ""
	}
	status := fmt.Sprintf("%d %s", refused.StatusCode, http.StatusText(refused.StatusCode))
	switch body := because(refused.Body); {
	case refused.StatusCode == http.StatusUnauthorized:
		return fmt.Sprintf("%s did not authenticate you (401 %s): set TROUPE_TOKEN or --token-file", server, body)
	case refused.StatusCode == http.StatusForbidden:
		return fmt.Sprintf("%s denied you access (403 %s)", server, body)
	case refused.StatusCode == http.StatusBadRequest && strings.Contains(body, "HTTPS"):
		return fmt.Sprintf("%s expects TLS: use wss:// or https://", server)
	case refused.StatusCode == http.StatusTooManyRequests: // of this subject
		return fmt.Sprintf("%s, or a proxy in front of it, takes no more connections of yours (%s %s); or use --wait=1m",
			server, status, body)
	case refused.StatusCode >= 500:
		return fmt.Sprintf("%s, or a proxy in front of it, is not ready (%s %s); try again, or use --wait=1m", server,
			status, body)
	default:
		return fmt.Sprintf("%s is not troupe's endpoint: it answered %s instead of opening a WebSocket; "+
			"check host, port and path (usually /ws)", server, status)
	}
}

// untrusted explains failures of TLS.
func untrusted(server string, err error) string {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, new(tls.RecordHeaderError)):
		return fmt.Sprintf("%s does not speak TLS: use ws:// or http:// if it is meant to be so", server)
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Sprintf("the certificate of %s is not signed by an authority that is trusted here: "+
			"name the authority's certificate with --ca-file", server)
	case errors.As(err, &certificate):
		return fmt.Sprintf("the certificate of %s is not valid: %v", server, certificate.Err)
	}
	return ""
}

// unreachable explains failures of name resolution, TCP and HTTP.
func unreachable(server string, err error) string {
	var network *net.OpError
	var dns *net.DNSError
	var request *url.Error
	hint := ""
	if strings.HasPrefix(server, "ws:") {
		hint = "; if it expects TLS, use wss://"
	}
	var proxy *troupe.ProxyError
	switch {
	case errors.As(err, &proxy):
		return fmt.Sprintf("cannot reach %s: %v; it is named by HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, and NO_PROXY "+
			"lists the hosts that need none", server, proxy)
	case errors.As(err, &dns):
		return fmt.Sprintf("cannot reach %s: %v; name the server with --server or TROUPE_SERVER", server, dns)
	case errors.As(err, &network) && network.Op == "dial":
		return fmt.Sprintf("cannot reach %s: %v; "+
			"start a server there with trouped, or name another with --server or TROUPE_SERVER", server, network)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s accepts connections, but did not answer in time", server)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("%s closed the connection without an answer%s", server, hint)
	case !errors.As(err, &request):
		return ""
	case strings.Contains(request.Error(), "malformed HTTP"): // net/http has no type for it
		return fmt.Sprintf("%s does not speak HTTP: check host and port%s", server, hint)
	}
	return fmt.Sprintf("cannot connect to %s: %v", server, request.Err)
}

// because returns the reason of a refusal. A reason from trouped is kept whole, since it says what
// is missing; one from a proxy is cut, since it may be an HTML page.
func because(body string) string {
	var answer struct{ Error string }
	if json.Unmarshal([]byte(body), &answer) == nil && answer.Error != "" {
		return strings.Join(strings.Fields(answer.Error), " ")
	}
	return oneLine(body)
}
