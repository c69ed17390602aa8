package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// terminalWindow is how much of a terminal's output may be on its way here: what is printed before a
// key is answered is at most that.
const terminalWindow = 128 << 10

// start opens a session and starts a command in it.
func (a *app) start(
	ctx context.Context, params wire.ExecuteParams, session wire.SessionOptions,
) (*troupe.Client, *troupe.Execution, error) {
	url, err := serverURL(a.settings.server)
	if err != nil {
		return nil, nil, err
	}
	opt, err := a.options(a.configured())
	if err != nil {
		return nil, nil, err
	}
	opt.Session = session
	if params.Terminal != nil {
		opt.Window = terminalWindow
	}
	c, e, err := troupe.Start(ctx, url, params, opt)
	switch {
	case err == nil && params.Terminal != nil && !slices.Contains(c.Connected().Capabilities, wire.CapabilityTerminal):
		_ = c.Close()
		return nil, nil, fmt.Errorf("%s has no terminals: its release is too old for --tty", url)
	case err == nil:
		a.outage.end()
		return c, e, nil
	case c == nil:
		return nil, nil, a.explain(url, err)
	}
	_ = c.Close()
	if errors.Is(err, troupe.ErrTooLarge) {
		return nil, nil, &explained{"the command with its arguments and environment makes a message that is larger than " +
			"the server accepts (its --max-message): pass large data by stdin", err}
	}
	return nil, nil, refusal(params, err)
}

// attachTo attaches to a remembered session, following offsets as client.Attach does. one means that
// the run is about this session alone.
func (a *app) attachTo(ctx context.Context, r *record, offsets map[string]int64, one bool) (*troupe.Client, error) {
	use := a.credentialsFor(r, one)
	opt, err := a.options(use)
	if err != nil {
		return nil, err
	}
	if a.interactive() { // what runs there may have a terminal, which another machine has started
		opt.Window = terminalWindow
	}
	c, err := troupe.Attach(ctx, r.URL, r.ID, r.ResumeToken, offsets, opt)
	if err != nil {
		if r.elsewhere && errors.Is(err, troupe.ErrNoSession) {
			return nil, &explained{fmt.Sprintf("no such session at %s, or the wrong resume token", r.URL), err}
		}
		return nil, a.withheld(r.URL, use, a.explain(r.URL, err))
	}
	a.outage.end()
	r.Access, r.elsewhere = use.access(), false // what the record says from now on was accepted
	return c, nil
}

// withheld adds to the refusal of a request without a token that there is one, of another server.
func (a *app) withheld(server string, used credentials, err error) error {
	given := a.configured()
	var refused *troupe.HandshakeError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusUnauthorized ||
		used.token+used.tokenFile != "" || given.token+given.tokenFile == "" {
		return err
	}
	return &explained{fmt.Sprintf("%s did not authenticate you (401): the configured token is not known to be that server's "+
		"and was not sent; give its own with --token-file, or name the server with --server", server), err}
}
