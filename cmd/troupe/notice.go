package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// slowAfter is how long troupe may be without a connection before it says why it waits, with
// --quiet, too: a run that hangs without a word looks broken. Tests shorten it.
var slowAfter = 10 * time.Second

// outage is the time without a connection.
type outage struct {
	mu    sync.Mutex
	began time.Time // zero: there is a connection
	cause error     // of the last failure
	told  bool      // the user was told
	slow  bool      // and told why it takes long
}

// begin notes a failure, and returns when the outage began.
func (o *outage) begin(cause error) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began.IsZero() {
		o.began = time.Now()
	}
	o.cause = cause
	return o.began
}

// end notes that there is a connection, and reports whether the user was told that there was none.
func (o *outage) end() (told bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	told = o.told
	o.began, o.cause, o.told, o.slow = time.Time{}, nil, false, false
	return told
}

// tell reports whether the user is still to be told about the outage, or why it takes long, and
// notes that this was done.
func (o *outage) tell(slow bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slow && o.slow || !slow && o.told {
		return false
	}
	o.told, o.slow = true, o.slow || slow
	return true
}

// lasts returns for how long there has been no connection, and why. 0 means that there is one.
func (o *outage) lasts() (time.Duration, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began.IsZero() {
		return 0, nil
	}
	return max(1, time.Since(o.began)), o.cause
}

// disconnected reports whether the connection is lost and was not resumed yet.
func (a *app) disconnected() bool {
	lasts, _ := a.outage.lasts()
	return lasts > 0
}

// notice reports changes of the connection: one line for each loss and each resumption, and one if
// the connection stays away.
func (a *app) notice(n troupe.Notice) {
	quiet := a.settings.quiet
	switch n.Kind {
	case troupe.NoticeLost:
		a.outage.begin(n.Err)
		if troupe.CloseCode(n.Err) == tooBig {
			return // the request that was too large reports it, and the connection is back at once
		}
		if !quiet && !a.over.Load() && a.outage.tell(false) {
			a.notef("connection lost: %s; resuming", whyLost(n.Err))
		}
	case troupe.NoticeRetry:
		began := a.outage.begin(n.Err)
		if wait := time.Since(began) + n.Delay; wait >= slowAfter && !a.over.Load() && a.outage.tell(true) {
			a.notef("no connection for %s: %s; still trying", roughly(time.Since(began)), whyNot(n.Err))
		}
	case troupe.NoticeResumed:
		if t := a.tty.Load(); t != nil {
			t.reconnected()
		}
		if a.outage.end() && !a.over.Load() {
			a.notef("resumed after %s", n.Delay.Round(time.Millisecond))
		}
	case troupe.NoticeDraining:
		if !quiet && !a.over.Load() {
			a.notef("the server is stopping, running commands have %s", n.Delay.Round(time.Second))
		}
	}
}

// tooBig is the close code for a message that is larger than the receiver accepts (RFC 6455, 7.4.1).
const tooBig = 1009

// lostBecause explains the server's close codes to the user. Codes that end the session are handled
// by explain.
var lostBecause = map[int]string{
	1001:                          "the server, or a proxy in front of it, went away",
	tooBig:                        "a message was larger than the server accepts",
	wire.CauseInternal.Code():     "the server failed",
	wire.CauseDraining.Code():     "the server is restarting",
	wire.CausePingTimeout.Code():  "the server did not hear from us",
	wire.CauseSlowConsumer.Code(): "output was not read fast enough",
}

// whyLost says why a connection was lost. It does not quote the underlying errors, because their
// texts name libraries.
func whyLost(err error) string {
	because, known := lostBecause[troupe.CloseCode(err)]
	var network net.Error
	switch {
	case known:
		return because
	case errors.Is(err, troupe.ErrKeepaliveTimeout):
		return "nothing was heard from the server"
	case errors.Is(err, syscall.ECONNRESET):
		return "it was reset"
	case errors.As(err, &network) && network.Timeout():
		return "it timed out"
	}
	return "it broke"
}

// whyNot says why an attempt to connect failed.
func whyNot(err error) string {
	var answer *wire.Error
	var refused *troupe.HandshakeError
	var network *net.OpError
	var request *url.Error
	switch {
	case errors.As(err, &answer):
		return answer.Message
	case errors.As(err, &refused):
		return fmt.Sprintf("the server answered %d %s", refused.StatusCode, http.StatusText(refused.StatusCode))
	case errors.As(err, &network) && network.Op == "dial":
		return network.Error()
	case errors.As(err, &request):
		return request.Err.Error() // without the method and the URL
	}
	return whyLost(err)
}
