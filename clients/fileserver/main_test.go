//go:build linux

package fileserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/gateway"
)

// buildDir holds the programs that the tests start; TestMain makes and removes it.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "troupe-fileserver-test-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		if allTestsRan() && code == 0 && unseen(os.Stderr) > 0 {
			code = 1
		}
		os.Exit(code)
	}))
}

// allTestsRan reports whether the command line chose no tests.
func allTestsRan() bool {
	return !slices.ContainsFunc(os.Args, func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		return slices.Contains([]string{"test.run", "test.skip", "test.list", "test.fuzz"}, name)
	})
}

// binaries builds the programs once for all tests of the package.
var binaries = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", buildDir+"/", "github.com/troupe-dev/troupe/cmd/troupe-runner",
		"github.com/troupe-dev/troupe/cmd/troupe-files")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
})

// server is a Handler for the files of one session, with an engine and a runner of its own.
type server struct {
	t       *testing.T
	engine  *actors.Engine
	dir     string // the session's working directory
	session *troupe.Client
	handler *Handler
	url     string // of the session in the Handler
}

// setup is what serving starts a server with.
type setup struct {
	dir    string // working directory of commands
	runner string
	engine actors.Config
}

// serving starts a server. change may alter with what.
func serving(t *testing.T, change func(*setup)) *server {
	t.Helper()
	if err := binaries(); err != nil {
		t.Fatal(err)
	}
	c := &setup{dir: t.TempDir(), runner: filepath.Join(buildDir, "troupe-runner")}
	c.engine.Limits = actors.DefaultLimits()
	if change != nil {
		change(c)
	}
	runner, err := proc.Open(proc.Config{
		Binary: c.runner, WarmInits: 1, Cgroup: "off", Isolation: proc.Isolation{Level: proc.IsolationNone},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runner.Close() })
	store, err := transcript.Open(transcript.Config{Dir: filepath.Join(t.TempDir(), "data"), Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c.engine.Runner, c.engine.Store, c.engine.Workdir = actors.ProcRunner(runner), store, c.dir
	c.engine.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	s := &server{t: t, dir: c.dir}
	if s.engine, err = actors.New(c.engine); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.engine.Close)
	s.session = connect(t, s.engine)
	s.handler = NewHandler(Config{Engine: s.engine, Caller: func(*http.Request, string) (Caller, error) {
		return Caller{Subject: "anonymous", ResumeToken: s.session.Connected().ResumeToken}, nil
	}})
	front := httptest.NewUnstartedServer(s.handler)
	front.Config.ReadTimeout, front.Config.WriteTimeout = time.Second, time.Second // the Handler lifts them
	front.Start()
	t.Cleanup(front.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s.url = front.URL + Prefix + s.session.ID()
	return s
}

// connect opens a session, through a gateway.
func connect(t *testing.T, engine *actors.Engine) *troupe.Client {
	t.Helper()
	door, err := gateway.New(gateway.Config{Engine: gateway.FromActors(engine), Auth: gateway.NoAuth{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Close(context.Background()) })
	web := httptest.NewServer(door.Handler())
	t.Cleanup(web.Close)
	session, err := troupe.Dial(t.Context(), "ws"+strings.TrimPrefix(web.URL, "http")+"/ws", troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// answer is a response that was read.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error // of reading the body
}

func (a answer) String() string {
	return fmt.Sprintf("%d %v %.300q %v", a.status, a.header, a.body, a.err)
}

// code returns that of a problem.
func (a answer) code() string {
	var p wire.Problem
	if a.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal([]byte(a.body), &p) != nil {
		return "not a problem"
	}
	return p.Code
}

// do sends a request for what, which is its method and its path below the session. header has names and
// values in turn.
func (s *server) do(what string, content io.Reader, header ...string) answer {
	s.t.Helper()
	resp := s.open(s.t.Context(), what, content, header...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(b), err}
}

// open is do for an answer that its caller reads.
func (s *server) open(ctx context.Context, what string, content io.Reader, header ...string) *http.Response {
	s.t.Helper()
	method, path, _ := strings.Cut(what, " ")
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, content)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	documented(s.t, resp)
	return resp
}

// sh runs a command of the session that must succeed, and returns its output.
func (s *server) sh(command string) string {
	s.t.Helper()
	var out, errs strings.Builder
	done, err := s.session.Run(s.t.Context(), wire.ExecuteParams{Command: command}, &out, &errs)
	if err != nil || done.ExitCode != 0 {
		s.t.Fatalf("%s: %v, %+v\n%s", command, err, done, errs.String())
	}
	return out.String()
}

// idle waits until no transfer runs in the session.
func (s *server) idle() {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		st, err := s.session.Status(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		running := 0
		for _, e := range st.Executions {
			if e.Completed == nil {
				running++
			}
		}
		if running == 0 {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d transfers still run: %+v", running, st.Executions)
		}
	}
}
