package observability

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// namespace is the label that the servers of the test are scraped with.
const namespace = "demo"

// maxSessions is what each server has of slots.
const maxSessions = 4

// maxExecutionsPerSubject is more than the subject of the other steps has at a time.
const maxExecutionsPerSubject = 12

// build makes the programs of the product, and returns the directory they are in.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/trouped", "./cmd/troupe-runner")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// server is a trouped with a runner of its own, as a pod has them: two processes and a socket.
type server struct {
	t      *testing.T
	pod    string
	bin    string
	socket string
	token  string
	second string     // the token of another subject; not in a cluster
	peers  *peerFiles // nil: it is alone

	ws, http, admin string // URLs

	cmd    *exec.Cmd
	ended  chan error
	log    sync.Mutex // held by who does not want stderr to be read
	last   []string   // lines of it, guarded by log
	runner *exec.Cmd  // nil: there is none
}

// serverConfig says how one differs from the others.
type serverConfig struct {
	pod     string
	cluster *apiServer // it is in this cluster
	token   string     // of its clients
	peers   *peerFiles // it is one of the pods of a Service of that cluster; nil: it is alone
}

// startServer returns when the server is ready for clients.
func startServer(t *testing.T, bin string, cfg serverConfig) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{
		t: t, pod: cfg.pod, bin: bin, token: cfg.token, second: cfg.token + "-second", peers: cfg.peers,
		socket: filepath.Join(dir, "runner.sock"), ended: make(chan error, 1),
	}
	args := []string{
		filepath.Join(bin, "trouped"), "--pod", cfg.pod, "--namespace", namespace, "--listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0",
		"--log-format", "json", "--data-dir", filepath.Join(dir, "data"), "--workdir", dir, "--runner", s.socket,
		"--max-sessions", strconv.Itoa(maxSessions), "--max-line", "1024", "--max-output", "1MiB", "--transcript-budget",
		"2MiB", "--resume-window", "5s", "--drain-timeout", "30s",
		"--max-executions-per-subject", strconv.Itoa(maxExecutionsPerSubject), "--isolation", "session",
	}
	if cfg.peers != nil {
		args = append(args, cfg.peers.args()...)
	}
	if cfg.cluster != nil {
		args = cfg.cluster.pod(t, args)
	} else {
		file := filepath.Join(dir, "tokens")
		if err := os.WriteFile(file, []byte("alice "+cfg.token+"\nbob "+s.second+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--auth", "token", "--token-file", file)
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	if cfg.cluster != nil {
		s.cmd.Env = append(os.Environ(), cfg.cluster.env()...)
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go s.follow(stderr, ready)
	t.Cleanup(s.kill)
	select {
	case <-ready:
	case err := <-s.ended:
		t.Fatalf("%s ended: %v\n%s", s.pod, err, strings.Join(s.last, "\n"))
	case <-time.After(30 * time.Second):
		t.Fatalf("%s is not ready after 30 s", s.pod)
	}
	s.startRunner()
	return s
}

// follow reads the log line by line, while no test holds its lock.
func (s *server) follow(stderr io.Reader, ready chan struct{}) {
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		s.log.Lock()
		if s.last = append(s.last, lines.Text()); len(s.last) > 12 {
			s.last = s.last[1:]
		}
		s.log.Unlock()
		var line struct{ Msg, Listen, Admin string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
			s.ws, s.http, s.admin = "ws://"+line.Listen+"/ws", "http://"+line.Listen, line.Admin
			close(ready)
		}
	}
	s.ended <- s.cmd.Wait()
	close(s.ended)
}

func (s *server) startRunner() {
	s.t.Helper()
	s.runner = exec.Command(filepath.Join(s.bin, "troupe-runner"), "--connect", s.socket,
		"--isolation", "none") // though the server asks for session
	if err := s.runner.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// killRunner is what the kernel does at the memory limit of the runner's container.
func (s *server) killRunner() {
	_ = s.runner.Process.Kill()
	_ = s.runner.Wait() // killed: of no interest
	s.runner = nil
}

// freezeRunner stops the runner and the inits of its executions, either of which could kill them.
func (s *server) freezeRunner() (goOn func()) {
	s.t.Helper()
	pids := []int{s.runner.Process.Pid}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread that has gone has none
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	signal := func(sig syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // an init may have ended by itself
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
	if s.runner != nil {
		s.killRunner()
	}
	if s.t.Failed() {
		s.t.Logf("%s said last:\n%s", s.pod, strings.Join(s.last, "\n"))
	}
}

// drain is what the kubelet does when the pod is deleted.
func (s *server) drain() { _ = s.cmd.Process.Signal(syscall.SIGTERM) }

// dial opens a session, waiting for a slot and a runner if need be.
func (s *server) dial() *troupe.Client {
	s.t.Helper()
	return s.dialAs(s.token)
}

// dialAs is dial with the token of a subject.
func (s *server) dialAs(token string) *troupe.Client {
	s.t.Helper()
	c, err := troupe.Dial(s.t.Context(), s.ws, troupe.Options{Token: token, DialRetry: 30 * time.Second})
	if err != nil {
		s.t.Fatalf("%s: %v", s.pod, err)
	}
	s.t.Cleanup(func() { c.Detach() })
	return c
}

// knock asks for a session without a usable token, and returns the status.
func (s *server) knock(c *http.Client, token string) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.http+"/ws", http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return resp.StatusCode
}

// scrape is the configuration with which a Prometheus finds the servers. The labels are those that
// a PodMonitor adds.
func scrape(servers ...*server) string {
	var b strings.Builder
	b.WriteString("- job_name: troupe\n  static_configs:\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "  - targets: [%q]\n    labels: {namespace: %s, pod: %s}\n", s.admin, namespace, s.pod)
	}
	return b.String()
}
