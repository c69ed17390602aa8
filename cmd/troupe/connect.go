package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// notice reports changes of the connection: one line for each loss and each resumption.
func (a *app) notice(n troupe.Notice) {
	switch n.Kind {
	case troupe.NoticeLost:
		now := time.Now()
		a.lost.CompareAndSwap(nil, &now)
	case troupe.NoticeResumed:
		a.lost.Store(nil)
	}
	if a.settings.quiet || a.over.Load() {
		return
	}
	switch n.Kind {
	case troupe.NoticeLost:
		a.notef("connection lost: %s; resuming", whyLost(n.Err))
	case troupe.NoticeResumed:
		a.notef("resumed after %s", n.Delay.Round(time.Millisecond))
	case troupe.NoticeDraining:
		a.notef("the server is stopping, running commands have %s", n.Delay.Round(time.Second))
	case troupe.NoticeRetry: // the loss was reported, and the end will be too
	}
}

// lostBecause explains the server's close codes to the user. Codes that end the session are handled
// by explain.
var lostBecause = map[int]string{
	1001:                          "the server, or a proxy in front of it, went away",
	1009:                          "a message was larger than the server accepts",
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

// start opens a session and starts a command in it.
func (a *app) start(ctx context.Context, params wire.ExecuteParams) (*troupe.Client, *troupe.Execution, error) {
	url, err := serverURL(a.settings.server)
	if err != nil {
		return nil, nil, err
	}
	opt, err := a.options(a.configured())
	if err != nil {
		return nil, nil, err
	}
	c, e, err := troupe.Start(ctx, url, params, opt)
	switch {
	case err == nil:
		return c, e, nil
	case c == nil:
		return nil, nil, explain(url, err)
	}
	_ = c.Close()
	return nil, nil, refusal(err)
}

// attachTo attaches to a remembered session, following offsets as client.Attach does. one means that
// the run is about this session alone.
func (a *app) attachTo(ctx context.Context, r *record, offsets map[string]int64, one bool) (*troupe.Client, error) {
	use := a.credentialsFor(r, one)
	opt, err := a.options(use)
	if err != nil {
		return nil, err
	}
	c, err := troupe.Attach(ctx, r.URL, r.ID, r.ResumeToken, offsets, opt)
	if err != nil {
		return nil, explain(r.URL, err)
	}
	r.Access, r.elsewhere = use.access(), false // what the record says from now on was accepted
	return c, nil
}

// explained wraps an error in a message for the user.
type explained struct {
	message string
	err     error
}

func (e *explained) Error() string { return e.message }
func (e *explained) Unwrap() error { return e.err }

// explain returns an error that says in one line what went wrong with a connection and what to do.
func explain(url string, err error) error {
	say := func(format string, args ...any) error { return &explained{fmt.Sprintf(format, args...), err} }
	var refused *troupe.HandshakeError
	var network *net.OpError
	var dns *net.DNSError
	var answer *wire.Error
	errors.As(err, &answer)
	switch {
	case errors.Is(err, troupe.ErrSessionLost):
		return say("the session is lost: the pod that ran it is gone, and so are its commands")
	case errors.Is(err, troupe.ErrSessionEnded):
		return say("the server has ended the session: it is stopping, or the session was closed or idle")
	case errors.Is(err, troupe.ErrNoSession):
		return say("no such session at %s, or the wrong resume token; a session ends when no client is attached "+
			"for its resume window", url)
	case wire.CodeOf(err) == wire.CodeSessionLimit:
		return say("%s has no free session (%s); try again later, or use --wait=1m", url, answer.Message)
	case wire.CodeOf(err) == wire.CodeDraining:
		return say("%s is stopping (%s); try again, or use --wait=1m", url, answer.Message)
	case errors.As(err, &refused) && refused.StatusCode == 401:
		return say("%s did not authenticate you (401 %s): set TROUPE_TOKEN or --token-file", url, because(refused.Body))
	case errors.As(err, &refused) && refused.StatusCode == 403:
		return say("%s denied you access (403 %s)", url, because(refused.Body))
	case errors.As(err, &dns):
		return say("cannot reach %s: %v; name the server with --server or TROUPE_SERVER", url, dns)
	case errors.As(err, &network) && network.Op == "dial":
		return say("cannot reach %s: %v; start a server there with trouped, or name another with --server or TROUPE_SERVER",
			url, network)
	}
	return err
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
