//go:build linux

package mcp_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/clients/mcp"
)

// buildDir holds the programs that the tests start; TestMain makes and removes it.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "troupe-mcp-test-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// binaries builds the programs once for all tests of the package.
var binaries = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", buildDir+"/", "github.com/troupe-dev/troupe/cmd/trouped",
		"github.com/troupe-dev/troupe/cmd/troupe-runner", "github.com/troupe-dev/troupe/cmd/troupe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
})

// launch starts a real trouped and returns its address.
func launch(t testing.TB, args ...string) (listen string) {
	t.Helper()
	if err := binaries(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(buildDir, "trouped"), append([]string{
		"--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json",
		"--data-dir", filepath.Join(t.TempDir(), "data"),
	}, args...)...)
	cmd.Dir = t.TempDir() // where commands start, unless sessions have a directory of their own
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line struct{ Msg, Listen string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
				ready <- line.Listen
			}
		}
		_ = cmd.Wait() // the tests kill it
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	select {
	case listen = <-ready:
	case <-ended:
		t.Fatal("trouped ended")
	case <-time.After(30 * time.Second):
		t.Fatal("trouped did not become ready")
	}
	return listen
}

// agent is a client of a Door.
type agent struct {
	t testing.TB
	*sdk.ClientSession
}

// connect serves a client with a Door as `troupe mcp` does.
func connect(t testing.TB, url string, change func(*mcp.Config)) *agent {
	t.Helper()
	cfg := mcp.Config{URL: url, OwnSession: true, Options: func(mcp.Call) troupe.Options { return troupe.Options{} }}
	if change != nil {
		change(&cfg)
	}
	door, err := mcp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, door, nil)
}

// serve connects a client to a Door over pipes.
func serve(t testing.TB, door *mcp.Door, opt *sdk.ClientOptions) *agent {
	t.Helper()
	here, there := pipes()
	served := make(chan error, 1)
	go func() { served <- door.Serve(t.Context(), there.Reader, there.Writer) }()
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, opt)
	s, err := client.Connect(t.Context(), here, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		<-served
		door.Close()
	})
	return &agent{t, s}
}

func pipes() (here, there *sdk.IOTransport) {
	hr, tw, _ := os.Pipe()
	tr, hw, _ := os.Pipe()
	return &sdk.IOTransport{Reader: hr, Writer: hw}, &sdk.IOTransport{Reader: tr, Writer: tw}
}

type args map[string]any

// call calls a tool that must succeed, and returns its structured result and its text.
func (a *agent) call(tool string, in args) (out map[string]any, text string) {
	a.t.Helper()
	res := a.try(tool, in)
	text = textOf(res)
	if res.IsError {
		a.t.Fatalf("%s: %s", tool, text)
	}
	return res.StructuredContent.(map[string]any), text
}

// refused calls a tool that must fail, and returns what the model reads.
func (a *agent) refused(tool string, in args) string {
	a.t.Helper()
	res := a.try(tool, in)
	if !res.IsError {
		a.t.Fatalf("%s did not fail: %s", tool, textOf(res))
	}
	return textOf(res)
}

func (a *agent) try(tool string, in args) *sdk.CallToolResult {
	a.t.Helper()
	res, err := a.CallTool(a.t.Context(), &sdk.CallToolParams{Name: tool, Arguments: in})
	if err != nil {
		a.t.Fatalf("%s: %v", tool, err)
	}
	return res
}

func textOf(res *sdk.CallToolResult) (s string) {
	for _, c := range res.Content {
		if c, ok := c.(*sdk.TextContent); ok {
			s += c.Text
		}
	}
	return s
}
