//go:build linux

package mcp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/grpc/test/bufconn"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/clients/mcp"
	"github.com/troupe-dev/troupe/gateway"
)

// script is a Runner whose commands are a function, so that they can take their time in a bubble.
type script struct {
	run func(stdout io.Writer) proc.Dead
}

func (s script) NewTree(string, string) actors.Tree {
	return &scripted{script: s, dead: make(chan struct{})}
}
func (script) OwnerDone(string) <-chan struct{}   { c := make(chan struct{}); close(c); return c }
func (script) RemoveWorkspace(string)             {}
func (script) CannotStart() string                { return "" }
func (script) Containment() string                { return "tree" }
func (script) Isolation() (level string, abi int) { return "none", 0 }

// scripted is one execution.
type scripted struct {
	script
	once sync.Once
	dead chan struct{}
}

type pipeEnd struct{ net.Conn }

func (pipeEnd) Pending() (int, error)       { return 0, nil }
func (pipeEnd) Grow(int)                    {}
func (pipeEnd) Resize(proc.Size) error      { return nil }
func (pipeEnd) ReadNow([]byte) (int, error) { return 0, proc.ErrPipeEmpty }

func (t *scripted) Start(_ proc.Spec, events func(proc.Event)) (*actors.Stdio, error) {
	out, outW := net.Pipe()
	errR, errW := net.Pipe()
	go func() {
		events(proc.Started{PID: 1})
		end := t.run(outW)
		_, _ = outW.Close(), errW.Close()
		events(proc.Exited{Code: 0, NoSurvivors: true, OutOfMemory: end.OutOfMemory})
		t.once.Do(func() { close(t.dead) })
		events(end)
	}()
	return &actors.Stdio{Stdout: pipeEnd{out}, Stderr: pipeEnd{errR}}, nil
}

func (t *scripted) Signal(syscall.Signal) {}
func (t *scripted) Terminate()            {}
func (t *scripted) Pause()                {}
func (t *scripted) Resume()               {}
func (t *scripted) Sweep()                {}
func (t *scripted) Memory() int64         { return 0 }
func (t *scripted) Kill()                 {}
func (t *scripted) Dead() <-chan struct{} { return t.dead }

// bubble serves a Door before an engine with a Runner, all in this process, and connects a client.
func bubble(t *testing.T, r actors.Runner, opt *sdk.ClientOptions) (a *agent, stop func()) {
	t.Helper()
	store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := actors.New(actors.Config{Limits: actors.DefaultLimits(), Runner: r, Store: store, Pod: "pod"})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := gateway.New(gateway.Config{Engine: gateway.FromActors(engine), Auth: gateway.NoAuth{}})
	if err != nil {
		t.Fatal(err)
	}
	server := gateway.NewHTTPServer(gate.Handler(), nil)
	// With buffers, as sockets have them: each side writes while the other does.
	listener := bufconn.Listen(64 << 10)
	go func() { _ = server.Serve(listener) }()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
	}}
	door, err := mcp.New(mcp.Config{
		URL: "ws://pod/ws", OwnSession: true,
		Options: func(mcp.Call) troupe.Options { return troupe.Options{HTTPClient: client} },
	})
	if err != nil {
		t.Fatal(err)
	}
	hr, tw := io.Pipe()
	tr, hw := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- door.Serve(t.Context(), tr, tw) }()
	s, err := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, opt).
		Connect(t.Context(), &sdk.IOTransport{Reader: hr, Writer: hw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &agent{t, s}, func() {
		_ = s.Close()
		_ = hw.Close()
		<-served
		door.Close()
		_ = gate.Close(t.Context())
		_ = server.Close()
		engine.Close()
		time.Sleep(time.Minute) // what the engine has throttled, in fake time
		_ = store.Close()
	}
}

// TestBuildOfTenMinutes: an agent sees a long build through yields of 10 s. No call waits longer, each
// tells how far the build is, and together they have every line once.
func TestBuildOfTenMinutes(t *testing.T) {
	const steps = 600
	synctest.Test(t, func(t *testing.T) {
		a, stop := bubble(t, script{func(stdout io.Writer) proc.Dead {
			for i := range steps {
				time.Sleep(time.Second)
				fmt.Fprintf(stdout, "step %d\n", i+1)
			}
			return proc.Dead{}
		}}, nil)
		began := time.Now()
		out, _ := a.call("exec", args{"command": "make", "execution_id": "build"})
		output, calls := out["output"].(string), 1
		for out["state"] == "running" && calls < 100 {
			asked := time.Now()
			out, _ = a.call("wait", args{"execution": "build", "offset": out["next_offset"]})
			if took := time.Since(asked); took > 10*time.Second+time.Millisecond {
				t.Errorf("call %d took %v", calls, took)
			}
			output += out["output"].(string)
			calls++
		}
		var want strings.Builder
		for i := range steps {
			fmt.Fprintf(&want, "step %d\n", i+1)
		}
		if took := time.Since(began); took < 600*time.Second || took > 611*time.Second || calls < 60 || calls > 62 {
			t.Errorf("%d calls in %v", calls, took)
		}
		if output != want.String() || out["exit_code"] != 0.0 || out["seconds"].(float64) < 600 {
			t.Errorf("%d bytes of output, want %d; %v", len(output), want.Len(), out)
		}
		stop()
	})
}

// TestProgress: a client that asked for it learns every 10 s of a command that it waits for.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var messages []string
		a, stop := bubble(t, script{func(stdout io.Writer) proc.Dead {
			fmt.Fprintf(stdout, "first\nlong %s", strings.Repeat("é", 500))
			time.Sleep(35 * time.Second)
			return proc.Dead{}
		}}, &sdk.ClientOptions{
			ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) {
				mu.Lock()
				defer mu.Unlock()
				messages = append(messages, r.Params.Message)
			},
		})
		params := &sdk.CallToolParams{Name: "exec", Arguments: args{"command": "make", "yield_ms": 60_000}}
		params.SetProgressToken("token")
		if res, err := a.CallTool(t.Context(), params); err != nil || res.IsError {
			t.Fatal(res, err)
		}
		synctest.Wait()
		if len(messages) != 3 || !strings.HasPrefix(messages[2], "30s, 1011 bytes: long éé") {
			t.Errorf("%q", messages)
		}
		for _, m := range messages {
			if len(m) > 200 {
				t.Errorf("a message of %d bytes", len(m))
			}
		}
		stop()
	})
}
