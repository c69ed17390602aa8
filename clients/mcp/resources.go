package mcp

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
)

const textPlain = "text/plain"

// executionURI names the output of an execution.
func executionURI(session, execution string) string {
	return fmt.Sprintf("troupe://session/%s/execution/%s", session, execution)
}

func (d *Door) addResources() {
	d.server.AddResourceTemplate(&sdk.ResourceTemplate{
		Name: "output", MIMEType: textPlain,
		Description: "The output of an execution: its beginning and its end, at most 16 KiB. read_output reads the rest.",
		URITemplate: "troupe://session/{session}/execution/{execution}",
	}, d.readResource)
}

// readResource returns the output of an execution as an excerpt.
func (d *Door) readResource(ctx context.Context, req *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
	session, execution, ok := parseExecutionURI(req.Params.URI)
	if !ok {
		return nil, sdk.ResourceNotFoundError(req.Params.URI)
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	f, err := d.followIn(ctx, callerOf(req.Extra), session, execution, func(wire.ExecutionStatus) int64 { return 0 })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sdk.ResourceNotFoundError(req.Params.URI), err)
	}
	defer f.close()
	x := newExcerpt(defaultBytes-reportBytes, 0)
	if _, err := f.each(ctx, func(b []byte, end int64) bool { x.write(b, end); return true }); err != nil {
		return nil, explain(err)
	}
	r := new(report)
	r.output(x)
	return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{
		{URI: req.Params.URI, MIMEType: textPlain, Text: r.Output},
	}}, nil
}

func parseExecutionURI(uri string) (session, execution string, ok bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "troupe" || u.Host != "session" {
		return "", "", false
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) != 3 || parts[1] != "execution" {
		return "", "", false
	}
	return parts[0], parts[2], true
}
