package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// commandBound is how long a command of a test may take that ends by itself at once.
const commandBound = 30 * time.Second

// url is the release's endpoint. Its host need not resolve: see throughIngress.
func (r *release) url() string {
	if r.host == "" {
		return "ws://" + suite.ingress + "/ws"
	}
	return "ws://" + r.host + "/ws"
}

// dialer makes the TCP connections of a client.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// throughIngress dials the ingress controller, whatever host the URL names.
func throughIngress(ctx context.Context, network, _ string) (net.Conn, error) {
	return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, suite.ingress)
}

// httpClient is one whose connections are made by dial and never reused.
func httpClient(dial dialer) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// options are those of a client of the release: it waits for a pod that is
// being replaced, as a program of a user would.
func (r *release) options() troupe.Options {
	return troupe.Options{Token: r.token, HTTPClient: httpClient(throughIngress), DialRetry: time.Minute}
}

// dial opens a session and closes it when the test is over.
func (r *release) dial(t *testing.T) *troupe.Client {
	t.Helper()
	return r.dialWith(t, r.options())
}

func (r *release) dialWith(t *testing.T, opt troupe.Options) *troupe.Client {
	t.Helper()
	c, err := troupe.Dial(t.Context(), r.url(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// shell runs a command line to its end and returns its stdout. It fails the
// test unless the command exits with 0.
func shell(t *testing.T, c *troupe.Client, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandBound)
	defer cancel()
	var stdout, stderr bytes.Buffer
	done, err := c.Run(ctx, wire.ExecuteParams{Command: line}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if done.Reason != wire.ReasonExited || done.ExitCode != 0 {
		t.Fatalf("%s ended with %s, exit code %d: %s", line, done.Reason, done.ExitCode, stderr.String())
	}
	return stdout.String()
}

// works fails the test unless a new session of the release can run a command.
func (r *release) works(t *testing.T) {
	t.Helper()
	c := r.dial(t)
	if out := shell(t, c, "echo works"); out != "works\n" {
		t.Fatalf("a new session printed %q", out)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// start starts a command and waits for its first line, so that it is known to run.
func start(t *testing.T, c *troupe.Client, params wire.ExecuteParams) *troupe.Execution {
	t.Helper()
	e, err := c.Execute(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if line := nextLine(t, e); line != "ready\n" {
		t.Fatalf("the command's first line is %q, not ready", line)
	}
	return e
}

// nextLine returns the next piece of output, skipping what is not output.
func nextLine(t *testing.T, e *troupe.Execution) string {
	t.Helper()
	return string(nextOutput(t, e).Data)
}

func nextOutput(t *testing.T, e *troupe.Execution) *troupe.Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandBound)
	defer cancel()
	for {
		ev, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for output: %v", err)
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			return ev
		case *troupe.Completed:
			t.Fatalf("no output, the command ended: %s", compact(ev))
		}
	}
}

// completed waits for the end of an execution.
func completed(t *testing.T, e *troupe.Execution, bound time.Duration) *wire.Completed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	done, err := e.Wait(ctx)
	if err != nil {
		t.Fatalf("waiting for the end of %s: %v", e.ID(), err)
	}
	return done
}

// notices records what a client says of its connection.
type notices struct {
	mu  sync.Mutex
	all []troupe.Notice
	at  []time.Time
}

func (n *notices) note(notice troupe.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.at = append(n.all, notice), append(n.at, time.Now())
}

// count returns how many notices of a kind came.
func (n *notices) count(kind troupe.NoticeKind) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for i := range n.all {
		if n.all[i].Kind == kind {
			count++
		}
	}
	return count
}

// first returns when the first notice of a kind came, and whether one did.
func (n *notices) first(kind troupe.NoticeKind) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.all {
		if n.all[i].Kind == kind {
			return n.at[i], true
		}
	}
	return time.Time{}, false
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	for i := range n.all {
		fmt.Fprintf(&b, "%s %s attempt %d delay %s: %v\n", n.at[i].Format("15:04:05.000"), n.all[i].Kind, n.all[i].Attempt,
			n.all[i].Delay, n.all[i].Err)
	}
	return b.String()
}

// get asks for a page of the release through the ingress.
func (r *release) get(ctx context.Context, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http"+strings.TrimSuffix(strings.TrimPrefix(r.url(),
		"ws"), "/ws")+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := httpClient(throughIngress).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b), err
}

// socketPair returns two ends of one connection: a net.Conn for this process
// and a file for a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours) // has a descriptor of its own
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}
