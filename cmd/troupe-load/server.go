package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// server is a trouped that this program started.
type server struct {
	cmd   *exec.Cmd
	dir   string
	ws    string
	admin string
}

// start starts trouped on free ports and waits until it is ready.
func (e *env) start(args ...string) (*server, error) {
	return e.startWith(func(*exec.Cmd) {}, append([]string{"--runner-binary", e.runner}, args...)...)
}

// startWith is start for a command line that prepare may change. It names no runner.
func (e *env) startWith(prepare func(*exec.Cmd), args ...string) (*server, error) {
	dir, err := os.MkdirTemp("", "troupe-load-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir}
	s.cmd = exec.Command(e.trouped, append([]string{
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
		"--data-dir", dir + "/data", "--workdir", dir,
	}, args...)...)
	prepare(s.cmd)
	// This is a file, because reading a pipe would take time from the server being measured.
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		said, err := os.ReadFile(log.Name())
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(said)) {
			var ready struct{ Msg, Listen, Admin string }
			if json.Unmarshal([]byte(line), &ready) == nil && ready.Msg == "ready" {
				s.ws, s.admin = "ws://"+ready.Listen+"/ws", "http://"+ready.Admin
				return s, nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	said, _ := os.ReadFile(log.Name())
	s.stop()
	return nil, fmt.Errorf("trouped did not start: %s", said)
}

// stop stops the server immediately, which kills everything that it runs.
func (s *server) stop() {
	for range 2 {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		time.Sleep(50 * time.Millisecond)
	}
	_ = s.cmd.Wait()
	_ = os.RemoveAll(s.dir)
}

func (s *server) dial(ctx context.Context) (*troupe.Client, error) {
	return troupe.Dial(ctx, s.ws, troupe.Options{})
}

// memory reads a field of the server's /proc/PID/status, in bytes.
func (s *server) memory(field string) (int64, error) {
	return statusField(s.cmd.Process.Pid, field)
}

// statusField is memory of any process.
func statusField(pid int, field string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/status", field)
}

// ask returns what the server answers on its admin address.
func (s *server) ask(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.admin+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", path, resp.Status)
	}
	said, err := io.ReadAll(resp.Body)
	return string(said), err
}

// histogramP99 returns the bucket bound below which 99 % of a histogram in /metrics lie.
func (s *server) histogramP99(ctx context.Context, name string) (float64, error) {
	metrics, err := s.ask(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	type bucket struct{ le, n float64 }
	var buckets []bucket
	var total float64
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name+`_bucket{le="`); ok {
			le, n, _ := strings.Cut(strings.TrimSpace(rest), `"} `)
			var b bucket
			b.le, _ = strconv.ParseFloat(le, 64) // +Inf parses
			b.n, _ = strconv.ParseFloat(n, 64)
			buckets = append(buckets, b)
			total = b.n
		}
	}
	for _, b := range buckets {
		if total > 0 && b.n >= 0.99*total {
			return b.le, nil
		}
	}
	return 0, fmt.Errorf("no observations of %s", name)
}

// started runs a command in a new session and returns both once it runs.
func (s *server) started(ctx context.Context, p wire.ExecuteParams) (*troupe.Client, *troupe.Execution, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	x, err := c.Execute(ctx, p)
	if err != nil {
		return c, nil, err
	}
	return c, x, nil
}
