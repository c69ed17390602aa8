package k8s

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// process is a trouped that finds a service account where a pod has it.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	addr  string // host:port for clients
	logs  logs
	ended chan error
}

// asPod makes the service account in $1 appear where a pod has it, in a mount
// namespace of its own, and becomes the rest of its arguments.
const asPod = `mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount &&
mount --bind "$1" /run/secrets/kubernetes.io/serviceaccount && shift && exec "$@"`

// launch starts a trouped in the namespace, as the pod troupe-0.
func (s *space) launch(args ...string) *process { return s.launchAs("troupe-0", args...) }

func (s *space) launchAs(name string, args ...string) *process {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("needs root, for a mount namespace")
	}
	must(s.t, binaries())
	dir := s.t.TempDir()
	p := &process{t: s.t, ended: make(chan error, 1)}
	host, port := address()
	pod := s.pod(name, "troupe")
	p.cmd = exec.Command("unshare", append([]string{
		"--mount", "sh", "-c", asPod, "sh", s.dir, filepath.Join(bin, "trouped"),
		"--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json", "--data-dir", filepath.Join(dir, "data"),
		"--workdir", s.t.TempDir(), // beside the data, which no session may read
	}, args...)...)
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port,
		"TROUPE_POD=" + pod.Name, "TROUPE_POD_UID=" + pod.UID, // as the downward API gives them
	}
	stderr, err := p.cmd.StderrPipe()
	must(s.t, err)
	must(s.t, p.cmd.Start())
	ready := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&p.logs, lines.Text())
			var line struct{ Msg, Listen string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
				p.addr = line.Listen
				close(ready)
			}
		}
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}()
	s.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended if the test went well
		<-p.ended
		if s.t.Failed() {
			s.t.Logf("trouped said:\n%s", &p.logs)
		}
	})
	select {
	case <-ready:
	case err := <-p.ended:
		s.t.Fatalf("trouped ended: %v\n%s", err, &p.logs)
	case <-time.After(bound):
		s.t.Fatal("trouped is not ready")
	}
	return p
}

// drain ends trouped as a kubelet does, and returns how long that took.
func (p *process) drain() time.Duration {
	p.t.Helper()
	began := time.Now()
	must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("trouped ended with %v", err)
		}
	case <-time.After(bound):
		p.t.Fatal("trouped has not ended")
	}
	return time.Since(began)
}

func (p *process) dial(token string) (*troupe.Client, error) {
	return troupe.Dial(p.t.Context(), "ws://"+p.addr+"/ws", troupe.Options{Token: token})
}

// troupe is the command-line client, with a token file.
func (p *process) troupe(addr, tokenFile string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(bin, "troupe"),
		append([]string{"exec", "--server", "ws://" + addr + "/ws", "--token-file", tokenFile, "--"}, args...)...)
	cmd.Env = []string{"HOME=" + p.t.TempDir()}
	return cmd
}

func (s *space) tokenFile(token string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "token")
	must(s.t, os.WriteFile(path, []byte(token), 0o600))
	return path
}

// TestCommandWithServiceAccount: from the client's projected token to the command's
// output, and from the refusal to the line that says what to grant.
func TestCommandWithServiceAccount(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.account("ann")
	s.account("bob")
	s.grant("ann", "ann", sessions)
	p := s.launch("--auth", "kubernetes")
	out, err := p.troupe(p.addr, s.tokenFile(s.token("ann", nil, audience)), "echo", "hello").Output()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("got %q, %v", out, err)
	}
	for _, c := range []struct{ name, token, want string }{
		{"another audience", s.token("ann", nil, "other"), "401"},
		{"no permission", s.token("bob", nil, audience), "system:serviceaccount:" + s.name +
			":bob may not create sessions.troupe.dev in the namespace " + s.name},
	} {
		out, err := p.troupe(p.addr, s.tokenFile(c.token), "echo", "hello").CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "hello") {
			t.Errorf("%s: %q, %v", c.name, out, err)
		}
	}
	p.drain()
	if want := `"msg":"audit","subject":"system:serviceaccount:` + s.name + `:ann"`; p.logs.count(want) != 1 {
		t.Errorf("the log has no %s", want)
	}
	if p.logs.count(`"level":"WARN"`)+p.logs.count(`"level":"ERROR"`) > 0 {
		t.Error("there were warnings")
	}
}

// TestTokenRotatesUnderACommand: the kubelet replaces a client's token while its
// command runs. When the connection breaks after the old one is worth nothing, the
// client comes back with the new one and loses nothing.
func TestTokenRotatesUnderACommand(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.account("ann")
	s.grant("ann", "ann", sessions)
	p := s.launch("--auth", "kubernetes")
	old := s.pod("client", "ann")
	first := s.token("ann", &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: old.Name,
		UID: types.UID(old.UID),
	}, audience)
	file := s.tokenFile(first)

	wire := cutter(t, p.addr)
	cmd := p.troupe(wire.addr, file, "sh", "-c", "echo one; read line; echo $line")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	var said bytes.Buffer
	cmd.Stderr = &said
	must(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "one" {
		t.Fatalf("got %q, %v", lines.Text(), lines.Err())
	}

	must(t, os.WriteFile(file, []byte(s.token("ann", nil, audience)), 0o600))
	now := int64(0)
	must(t, kube.CoreV1().Pods(s.name).Delete(t.Context(), old.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	a := s.authenticator()
	eventually(t, "the first token is worth nothing", func(ctx context.Context) error { return is(ctx, a, first, "bad") })
	wire.cut()
	_, err = io.WriteString(stdin, "two\n")
	must(t, err)
	if !lines.Scan() || lines.Text() != "two" {
		t.Errorf("got %q, %v", lines.Text(), lines.Err())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("troupe ended with %v: %s", err, &said)
	}
	if wire.count() != 2 {
		t.Errorf("%d connections, want 2", wire.count())
	}
}

// line is a TCP connection to somewhere that can be cut.
type line struct {
	addr string
	mu   sync.Mutex
	all  []net.Conn // both ends of every connection
}

func cutter(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &line{addr: l.Addr().String()}
	t.Cleanup(func() { l.Close(); c.cut() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			c.all = append(c.all, near, far)
			c.mu.Unlock()
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					near.Close()
					far.Close()
				}()
			}
		}
	}()
	return c
}

// cut closes the connections that are open.
func (c *line) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.all {
		conn.Close()
	}
}

// count returns how many connections there have been.
func (c *line) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all) / 2
}

// TestPodReports: the pod's annotations and Events, from a trouped's first to its last moment.
func TestPodReports(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	p := s.launch("--max-sessions", "1")
	pod, err := kube.CoreV1().Pods(s.name).Get(t.Context(), "troupe-0", metav1.GetOptions{})
	must(t, err)
	own := podOf(pod.Namespace, pod.Name, string(pod.UID))
	eventually(t, "the first number", annotated(own, 0))
	c, err := p.dial("")
	must(t, err)
	eventually(t, "one session", annotated(own, 1))
	for range 3 {
		if _, err := p.dial(""); wire.CodeOf(err) != wire.CodeSessionLimit {
			t.Fatalf("a second session of one: %v", err)
		}
	}
	must(t, c.Close())
	p.drain()
	all, err := described(t.Context(), own)
	must(t, err)
	if all["SessionLimitReached"].Count != 3 || all["Draining"].Count != 1 || all["Drained"].Count != 1 || len(all) != 3 {
		t.Errorf("the Events are %v", all)
	}
	if p.logs.count(`"level":"WARN"`) > 0 {
		t.Error("there were warnings")
	}
}

// TestAPIServerFreezes: it neither answers nor closes its connections. Clients with a
// session notice nothing, new clients are told to retry within the time of a
// handshake, and the pod ends in time. This test is not parallel: the others need
// the API server.
func TestAPIServerFreezes(t *testing.T) {
	s := newSpace(t)
	s.account("ann")
	s.account("bob")
	s.grant("ann", "ann", sessions)
	s.grant("bob", "bob", sessions)
	p := s.launch("--auth", "kubernetes")
	ann, bob := s.token("ann", nil, audience), s.token("bob", nil, audience)
	c, err := p.dial(ann)
	must(t, err)

	thaw := freeze(t)
	began := time.Now()
	_, err = p.dial(bob)
	var refused *troupe.HandshakeError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusServiceUnavailable || !refused.Temporary() ||
		time.Since(began) > 10*time.Second {
		t.Errorf("a new client got %v after %v", err, time.Since(began))
	}
	done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "true"}, io.Discard, io.Discard)
	if err != nil || done.ExitCode != 0 {
		t.Errorf("a command ended with %+v, %v", done, err)
	}
	thaw()
	eventually(t, "the new client gets in", func(context.Context) error {
		c, err := p.dial(bob)
		if err == nil {
			err = c.Close()
		}
		return err
	})

	defer freeze(t)()
	must(t, c.Close())
	if took := p.drain(); took > 10*time.Second {
		t.Errorf("the drain took %v", took)
	}
}
