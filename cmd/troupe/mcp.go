package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/clients/mcp"
)

const mcpHelp = `Serve tools for agents over stdin and stdout, in the Model Context Protocol: run
commands on the server, follow them, read and change files.

An agent starts this program itself. In its configuration, name the command
'troupe' with the argument 'mcp', and give TROUPE_SERVER and TROUPE_TOKEN_FILE in
the environment or in troupe's own configuration file.

A session lasts until the agent closes it. When troupe ends, its sessions are left
to run for their resume window, as with troupe exec --detach.`

// mcpCommand serves the tools of package mcp to the program that started this one.
func (a *app) mcpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "mcp",
		Short:   "Serve tools for agents over stdin and stdout (Model Context Protocol)",
		Long:    mcpHelp,
		Example: `  {"mcpServers": {"troupe": {"command": "troupe", "args": ["mcp"]}}}`,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.serveMCP() },
	}
}

func (a *app) serveMCP() error {
	url, err := serverURL(a.settings.server)
	if err != nil {
		return err
	}
	opt, err := a.options(a.configured())
	if err != nil {
		return err
	}
	api, err := troupe.NewAPI(url, opt)
	if err != nil {
		return err
	}
	door, err := mcp.New(mcp.Config{
		URL: url, OwnSession: true, Version: buildVersion(),
		Attach: func(ctx context.Context, _ mcp.Call, session string) (string, error) {
			return attachByID(ctx, api, session)
		},
		Options: func(mcp.Call) troupe.Options { return opt },
		Explain: func(err error) error { return a.explain(url, err) },
	})
	if err != nil {
		return err
	}
	defer door.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := a.signals()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	err = door.Serve(ctx, io.NopCloser(a.stdin), nopCloser{a.stdout})
	if errors.Is(err, context.Canceled) {
		return nil // a signal: the agent ends
	}
	return err
}

// attachByID returns a resume token for a session that an earlier run, or another program, has opened.
func attachByID(ctx context.Context, api *troupe.API, session string) (string, error) {
	a, err := api.AttachSession(ctx, session)
	var refused *troupe.APIError
	if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
		return "", fmt.Errorf("%w: %w", troupe.ErrNoSession, err)
	}
	if err != nil {
		return "", err
	}
	return a.ResumeToken, nil
}

// nopCloser leaves stdout open for the exit's own messages.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
