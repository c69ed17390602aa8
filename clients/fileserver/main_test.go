//go:build linux

package fileserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
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

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
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
	cmd := exec.Command("go", "build", "-o", buildDir+"/", "github.com/troupe-dev/troupe/cmd/trouped",
		"github.com/troupe-dev/troupe/cmd/troupe-runner", "github.com/troupe-dev/troupe/cmd/troupe-files")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
})

// server is a real trouped with one session, and a Handler of this process for its files.
type server struct {
	t       *testing.T
	process *os.Process
	dir     string // the session's working directory
	session *troupe.Client
	handler *Handler
	url     string // of the session in the Handler
}

// serving starts both. change may alter how trouped is started.
func serving(t *testing.T, change func(*exec.Cmd)) *server {
	t.Helper()
	if err := binaries(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: t.TempDir()}
	cmd := exec.Command(filepath.Join(buildDir, "trouped"), "--listen", "127.0.0.1:0", "--admin-listen", "",
		"--log-format", "json", "--data-dir", filepath.Join(t.TempDir(), "data"))
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	if change != nil {
		change(cmd)
	}
	listen := start(t, cmd)
	s.process = cmd.Process
	var err error
	if s.session, err = troupe.Dial(t.Context(), "ws://"+listen+"/ws", troupe.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.session.Close() })
	s.handler = NewHandler(Config{
		Attach: func(r *http.Request, session string, offsets map[string]int64) (*troupe.Client, error) {
			opt := troupe.Options{Window: 64 << 10}
			return troupe.Attach(r.Context(), "ws://"+listen+"/ws", session, s.session.Connected().ResumeToken, offsets, opt)
		},
	})
	front := httptest.NewUnstartedServer(s.handler)
	front.Config.ReadTimeout, front.Config.WriteTimeout = time.Second, time.Second // the Handler lifts them
	front.Start()
	t.Cleanup(front.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s.url = front.URL + Prefix + s.session.ID()
	return s
}

// start runs trouped until the test ends, and returns its address.
func start(t *testing.T, cmd *exec.Cmd) (listen string) {
	t.Helper()
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
	}
	return listen
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
