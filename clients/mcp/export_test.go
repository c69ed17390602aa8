package mcp

import (
	"net/http"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// NewFixture returns a Door whose server add completes with what the conformance suite asks for.
func NewFixture(cfg Config, opt *sdk.ServerOptions, add func(*sdk.Server)) (*Door, error) {
	d, err := New(cfg)
	if err != nil {
		return nil, err
	}
	d.server = sdk.NewServer(&sdk.Implementation{Name: "fixture", Version: "1"}, opt)
	d.addTools()
	d.addResources()
	add(d.server)
	return d, nil
}

// FixtureHandler is Handler, with or without sessions of the protocol.
func (d *Door) FixtureHandler(stateless bool) http.Handler {
	return d.handler(func(*http.Request) string { return "" }, stateless)
}

// CloseSessions ends the sessions of the protocol that clients have left open.
func (d *Door) CloseSessions() {
	for s := range d.server.Sessions() {
		_ = s.Close() // the test ends
	}
}
