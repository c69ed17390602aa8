//go:build linux

package proc

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// container is a PID namespace with a runner as its first process, of an ordinary user that cannot
// gain privileges: what the kubelet makes of a pod's second container, as far as this package is
// concerned.
type container struct {
	t   testing.TB
	cmd *exec.Cmd // the first process itself
	err safeBuffer
	end chan struct{}
}

// safeBuffer may be read while a process writes to it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startContainer starts a runner that dials. in, if not empty, is what a shell does first, as root.
func startContainer(t testing.TB, socket string, in ...string) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a PID namespace and for another user in it")
	}
	c := &container{t: t, end: make(chan struct{})}
	script := strings.Join(append(in, "mount --make-rprivate /", "mount -t proc proc /proc",
		`exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$0" --connect "$1" --cgroup off`), " && ")
	c.cmd = exec.Command("/bin/sh", "-c", script, runnerBinary, socket)
	c.cmd.Dir = "/"
	c.cmd.Stderr = &c.err
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if err := c.cmd.Start(); err != nil {
		t.Skipf("no PID namespace is available: %v", err)
	}
	go func() { c.cmd.Wait(); close(c.end) }()
	t.Cleanup(c.kill)
	return c
}

func (c *container) pid() int { return c.cmd.Process.Pid }

// kill ends the container as a kubelet does after the grace period. Its pid may be another
// process's by now, which os.Process knows.
func (c *container) kill() {
	c.cmd.Process.Kill()
	await(c.t, c.end, "end of the container")
}

// enter starts a shell in the container as "kubectl exec" does: in its PID namespace, with a parent
// that is outside.
func (c *container) enter(uid, script string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(c.pid()), "--pid", "--mount",
		"setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "/bin/bash", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		c.t.Fatalf("%q, %v", line, err)
	}
	return cmd
}

// socketDir is a directory that any user may enter.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "proctest-run") //nolint:usetesting // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	return dir
}

func socketMode(path string) func(*Config) {
	return func(c *Config) { c.Binary, c.Socket = "", path }
}

// lives reports whether a process has the marker for its name.
func lives(marker string) bool {
	return slices.ContainsFunc(find(marker), func(p string) bool {
		_, argv, _ := strings.Cut(p, " ")
		return strings.HasPrefix(argv, marker)
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// cut closes the connection to the runner, as the death of trouped does.
func cut(t testing.TB, r *Runner) {
	t.Helper()
	r.mu.Lock()
	rc := r.conn
	r.mu.Unlock()
	if rc == nil {
		t.Fatal("there is no runner")
	}
	rc.conn.close()
}

// Everything in the container ends with the connection: commands, whatever they do to prevent it,
// and processes that were started from outside. The next container serves.
func TestContainerEndsWithItsConnection(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	r := open(t, socketMode(path))
	for i := range soak(3, 20) {
		box := startContainer(t, path)
		c := run(t, r, stubborn)
		// The limit is for a child: the command itself would end where it cannot fork.
		forks := run(t, r, `(ulimit -u 300; exec -a MARK bash -c 'f() { (f &); (f &); }; f') & exec -a MARK sleep 1000`)
		c.waitFound(2)
		forks.waitFound(10)
		outside := newMarker()
		guest := box.enter("65534", "echo ready; exec -a "+outside+" sleep 1000")
		if s := r.Status(); s.PID != 1 || s.Restarts != i {
			t.Errorf("%+v", s)
		}
		cut(t, r)
		for _, c := range []*command{c, forks} {
			if d := waitEvent[Dead](c); !d.RunnerLost {
				t.Errorf("%+v", d)
			}
		}
		// No waiting here: RunnerLost means that all are dead already.
		for _, marker := range []string{c.marker, forks.marker, outside} {
			if left := find(marker); len(left) > 0 {
				t.Errorf("the runner is lost, but there are %v", left)
			}
		}
		await(t, box.end, "end of the container")
		guest.Wait()
		code, said := box.cmd.ProcessState.ExitCode(), box.err.String()
		if code != 0 || !strings.Contains(said, "closed the connection") {
			t.Errorf("exit code %d: %s", code, &box.err)
		}
	}
	startContainer(t, path)
	if e := waitEvent[Exited](run(t, r, "exit 6")); e.Code != 6 {
		t.Errorf("%+v", e)
	}
}

// The kubelet sends SIGTERM to both containers of a pod at once. A runner and its commands continue
// while trouped is there. A runner that waits for trouped exits.
func TestContainerOutlivesSIGTERM(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	r := open(t, socketMode(path))
	box := startContainer(t, path)
	c := run(t, r, `echo ready; read; echo done; exit 7`)
	c.waitOutput("ready")
	for range 3 {
		box.cmd.Process.Signal(unix.SIGTERM)
	}
	next := run(t, r, "kill -9 $PPID") // whose init must be swept, and replaced
	next.waitDead()
	next = run(t, r, "exit 8")
	if e := waitEvent[Exited](next); e.Code != 8 {
		t.Errorf("%+v", e)
	}
	c.tree.Kill()
	if d := c.waitDead(); d.Lost {
		t.Errorf("%+v", d)
	}
	closeRunner(t, r)
	await(t, box.end, "end of the container when trouped has ended")

	box = startContainer(t, path)
	eventually(t, "a runner that waits", func() bool {
		return strings.Contains(box.err.String(), "waiting for trouped at "+path)
	})
	box.cmd.Process.Signal(unix.SIGTERM)
	await(t, box.end, "end of a runner that waits for trouped")
	if code := box.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, &box.err)
	}
}

// A running "kubectl exec" is left alone. The processes that it leaves behind are killed when an
// init is next swept. A process of another user, which cannot have come from a command, is not
// killed and does not keep the sweep from ending.
func TestGuestsOfAContainer(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	r := open(t, socketMode(path))
	box := startContainer(t, path)
	alive, orphan, foreign := newMarker(), newMarker(), newMarker()
	leave := func(marker string) string {
		return strings.ReplaceAll(`(exec -a MARK setsid bash -c 'exec -a MARK sleep 1000' </dev/null >/dev/null 2>&1 &)
			while [ -z "$(ps -eo ppid,args | grep '^ *1 'MARK)" ]; do sleep 0.01; done; echo ready`, "MARK", marker)
	}
	eventually(t, "a runner", func() bool { return r.Status().Up })
	box.enter("65534", leave(orphan)).Wait()
	box.enter("0", leave(foreign)).Wait()
	guest := box.enter("65534", "echo ready; exec -a "+alive+" sleep 1000")
	defer guest.Wait()
	defer box.kill()
	eventually(t, "the guest", func() bool { return lives(alive) }) // it said ready, and then became what it is
	if !lives(orphan) || !lives(foreign) {
		t.Fatalf("orphans: %v %v", find(orphan), find(foreign))
	}
	before := r.Status().Escaped
	for range 3 {
		c := run(t, r, "kill -9 $PPID; sleep 1000")
		c.waitDead()
	}
	if left := find(orphan); len(left) > 0 {
		t.Errorf("an orphan is left: %v", left)
	}
	if !lives(alive) || !lives(foreign) {
		t.Errorf("guest %v, foreign %v", find(alive), find(foreign))
	}
	if n := r.Status().Escaped - before; n < 1 {
		t.Errorf("%d escaped", n)
	}
}

// A dying runner closes its connection before it is dead. Until it is dead, no process can dial.
// Here it is not dead because it is stopped.
func TestNobodyListensBeforeTheRunnerIsDead(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	events := make(chan RunnerEvent, 100)
	r := open(t, socketMode(path), func(c *Config) { c.OnEvent = func(e RunnerEvent) { events <- e } })
	box := startContainer(t, path)
	if e := <-events; e.Kind != RunnerUp {
		t.Fatal(e)
	}
	c := run(t, r, stubborn)
	c.waitFound(2)
	unix.Kill(box.pid(), unix.SIGSTOP)
	cut(t, r)
	eventually(t, "the loss of the runner", func() bool { return !r.Status().Up })
	for end := time.Now().Add(4 * lockPollInterval); time.Now().Before(end); time.Sleep(lockPollInterval / 10) {
		if exists(path) {
			t.Fatal("there is a socket while the runner lives")
		}
	}
	select {
	case e := <-events:
		t.Errorf("%v while the runner lives", e)
	default:
	}
	unix.Kill(box.pid(), unix.SIGCONT)
	if d := c.waitDead(); !d.RunnerLost {
		t.Errorf("%+v", d)
	}
	eventually(t, "a socket", func() bool { return exists(path) })
	await(t, box.end, "end of the container")
}

// A restarted trouped, which knows nothing of the earlier runner, does not listen before that is
// dead. Then a new runner finds it.
func TestRestartedTroupedWaitsForTheEarlierRunner(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	marker := newMarker()
	cmd := helper("trouped", nil, strings.ReplaceAll(stubborn, "MARK", marker))
	cmd.Env = append(cmd.Env, "PROC_TEST_SOCKET="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	box := startContainer(t, path)
	eventually(t, "two processes", func() bool { return len(find(marker)) >= 2+1 }) // trouped's argv has it too
	unix.Kill(box.pid(), unix.SIGSTOP)
	cmd.Process.Kill()
	cmd.Wait()
	r := open(t, socketMode(path))
	for end := time.Now().Add(4 * lockPollInterval); time.Now().Before(end); time.Sleep(lockPollInterval / 10) {
		if exists(path) {
			t.Fatal("there is a socket while a runner lives")
		}
	}
	unix.Kill(box.pid(), unix.SIGCONT)
	await(t, box.end, "end of the container")
	eventually(t, "a socket", func() bool { return exists(path) })
	if left := find(marker); len(left) > 0 {
		t.Errorf("there is a socket, and %v", left)
	}
	startContainer(t, path)
	if e := waitEvent[Exited](run(t, r, "exit 6")); e.Code != 6 {
		t.Errorf("%+v", e)
	}
}

// A trouped that was killed while it waited leaves a socket on which no process listens. The runner
// keeps dialling, and the next trouped replaces the socket.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	startContainer(t, path)
	r := open(t, socketMode(path))
	if e := waitEvent[Exited](run(t, r, "exit 6")); e.Code != 6 {
		t.Errorf("%+v", e)
	}
}

// Where commands may write, one could put something in the socket's place. trouped does not remove
// what it did not make, but reports the path.
func TestSomethingInTheSocketsPlace(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "runner.sock")
	os.Mkdir(path, 0o755)
	if r, err := Open(Config{Socket: path}); err == nil {
		closeRunner(t, r)
		t.Error("listens in spite of a directory")
	} else if !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	os.Remove(path)
	os.Remove(frame.LockPath(path))
	if err := os.Symlink("/etc/passwd", frame.LockPath(path)); err != nil {
		t.Fatal(err)
	}
	if r, err := Open(Config{Socket: path}); err == nil {
		closeRunner(t, r)
		t.Error("follows a link to a lock")
	}
	if exists(path) {
		t.Error("left a socket")
	}
}
