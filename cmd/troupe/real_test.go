//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// buildDir holds the programs that the tests start; TestMain makes and removes it.
var buildDir string

// TestMain lets the test binary stand in for troupe, so that signals, the environment and open files
// are tested on a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("TROUPE_TEST_MAIN") != "" {
		os.Unsetenv("TROUPE_TEST_MAIN")
		main()
	}
	dir, err := os.MkdirTemp("", "troupe-test-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// serverBinaries builds trouped and troupe-runner once for all tests of the package.
var serverBinaries = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", buildDir+"/",
		"github.com/troupe-dev/troupe/cmd/trouped", "github.com/troupe-dev/troupe/cmd/troupe-runner",
		"github.com/troupe-dev/troupe/cmd/troupe-files")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return nil
})

// instance is a real trouped.
type instance struct {
	t      *testing.T
	cmd    *exec.Cmd
	listen string // host:port
	url    string // ws://…/ws
	ended  chan struct{}
}

// launch starts trouped and waits until it is ready.
func launch(t *testing.T, args ...string) *instance {
	t.Helper()
	if err := serverBinaries(); err != nil {
		t.Fatal(err)
	}
	s := &instance{t: t, ended: make(chan struct{})}
	s.cmd = exec.Command(filepath.Join(buildDir, "trouped"), append([]string{
		"--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json",
		"--data-dir", filepath.Join(t.TempDir(), "data"), "--workdir", t.TempDir(),
	}, args...)...)
	s.cmd.Env = bare("PATH=" + os.Getenv("PATH"))
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	ready := make(chan string, 1)
	go func() {
		defer close(s.ended)
		log, wasReady := new(bytes.Buffer), false
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.Write(append(lines.Bytes(), '\n'))
			var line struct{ Msg, Listen string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
				ready <- line.Listen
				wasReady = true
			}
		}
		_ = s.cmd.Wait() // the tests kill it
		if !wasReady {
			fmt.Fprintf(os.Stderr, "trouped said:\n%s", log)
			ready <- ""
		}
	}()
	select {
	case s.listen = <-ready:
	case <-time.After(30 * time.Second):
	}
	if s.listen == "" {
		t.Fatal("trouped did not become ready")
	}
	s.url = "ws://" + s.listen + "/ws"
	return s
}

// kill ends the server without warning, as a crash does.
func (s *instance) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// bare returns an environment with nothing but pairs.
func bare(pairs ...string) []string {
	// Without GORACE a binary under the race detector sleeps for a second before it exits.
	return append([]string{"GORACE=atexit_sleep_ms=0"}, pairs...)
}

// program is a troupe in a process of its own.
type program struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *output
}

// troupeCmd returns a troupe that is not started. Its environment is env alone, as with env -i.
func troupeCmd(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return programOf(t, env, own, args...)
}

// shellCmd returns a shell that is not started; script finds troupe as $TROUPE.
func shellCmd(t *testing.T, env []string, script string) *program {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return programOf(t, append(env, "TROUPE="+own, "PATH="+os.Getenv("PATH")), "/bin/sh", "-c", script)
}

func programOf(t *testing.T, env []string, name string, args ...string) *program {
	t.Helper()
	p := &program{
		t: t, stdout: &output{grew: make(chan struct{}, 1)}, stderr: &output{grew: make(chan struct{}, 1)},
	}
	p.cmd = exec.CommandContext(t.Context(), name, args...)
	p.cmd.Env = append(bare("TROUPE_TEST_MAIN=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 10 * time.Second
	return p
}

func (p *program) start() *program {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return p
}

// signal sends sig to the program's process group.
func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code, or minus the signal that killed the program.
func (p *program) exit() int {
	p.t.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		p.t.Fatal(err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return -int(status.Signal())
	}
	return exit.ExitCode()
}

// runTroupe runs troupe to its end.
func runTroupe(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := troupeCmd(t, env, args...).start()
	code = p.exit()
	return code, p.stdout.String(), p.stderr.String()
}

// home returns the environment of a user with a home directory who uses the server at url.
func home(t *testing.T, url string) []string {
	t.Helper()
	return []string{"HOME=" + t.TempDir(), "TROUPE_SERVER=" + url}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after 15 s: %s", strings.TrimSpace(what))
		}
	}
}

// silentAccepts counts the connections that listenSilently has accepted.
var silentAccepts atomic.Int64

// listenSilently accepts connections and never answers. It returns its address.
func listenSilently(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			silentAccepts.Add(1)
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for _, c := range open {
			c.Close()
		}
	})
	return l.Addr().String()
}
