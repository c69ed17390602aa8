//go:build linux

package proc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/confine"
)

// openIsolated starts a Runner that separates sessions, or skips the test where that is impossible.
func openIsolated(t testing.TB, change ...func(*Config)) *Runner {
	t.Helper()
	if err := confine.Available(); err != nil {
		t.Skip(err)
	}
	root := t.TempDir()
	r := open(t, append([]func(*Config){func(c *Config) {
		c.Isolation = Isolation{Level: IsolationSession, Workspace: root}
	}}, change...)...)
	if s := r.Status(); s.Isolation != IsolationSession || s.IsolationABI < confine.MinABI {
		t.Fatalf("%+v", s)
	}
	return r
}

// workspace is the name of the n-th session's.
func workspace(n int) string { return fmt.Sprintf("%026x", n) }

// runIn starts a script in a session.
func runIn(t testing.TB, r *Runner, session int, script string) *command {
	t.Helper()
	marker := newMarker()
	return runSpec(t, r, marker, Spec{
		Argv:      []string{"/bin/bash", "-c", strings.ReplaceAll(script, "MARK", marker), marker},
		Env:       environ(),
		Workspace: workspace(session),
	})
}

// victim is a command of a session that waits, with a secret in its environment and in its home.
func victim(t testing.TB, r *Runner, session int) (c *command, pid int, home string) {
	t.Helper()
	c = runIn(t, r, session, "echo secret >file; echo $$ $HOME; exec -a MARK sleep 100")
	eventually(t, "the victim's pid", func() bool { return strings.Contains(c.stdout(), "\n") })
	first, home, _ := strings.Cut(strings.TrimSpace(c.stdout()), " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return c, pid, home
}

// try runs a script in a session and reports whether it succeeded.
func try(t testing.TB, r *Runner, session int, script string) (ok bool, out string) {
	t.Helper()
	c := runIn(t, r, session, script)
	code := waitEvent[Exited](c).Code
	c.waitDead()
	c.read.Wait()
	return code == 0, c.stdout() + c.errOut.String()
}

// attacks are what one process does to another of the same user: to pid %[1]d with the home %[2]s.
var attacks = map[string]string{
	"signal":       "kill -0 %[1]d",
	"stop":         "kill -STOP %[1]d && kill -CONT %[1]d",
	"environ":      "cat /proc/%[1]d/environ",
	"memory":       "exec 3</proc/%[1]d/mem",
	"cwd":          "ls /proc/%[1]d/cwd/.",
	"descriptors":  "readlink /proc/%[1]d/fd/0",
	"read a file":  "cat %[2]s/file",
	"list home":    "ls %[2]s",
	"write a file": "echo x >%[2]s/file2",
	"trace":        "strace -qq -o /dev/null -p %[1]d & p=$!; sleep .5; grep TracerPid /proc/%[1]d/status | grep -vw 0; r=$?; kill $p; exit $r",
}

// Overlapping executions of a session signal, trace and read each other. Sequential ones share files.
func TestSessionIsOneRoom(t *testing.T) {
	r := openIsolated(t)
	_, pid, home := victim(t, r, 1)
	for name, script := range attacks {
		if name == "trace" && !has("strace") {
			continue
		}
		if ok, out := try(t, r, 1, fmt.Sprintf(script, pid, home)); !ok {
			t.Errorf("%s: fails within the session: %s", name, out)
		}
	}
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// A command reaches no process and no file of another session.
func TestSessionsAreSeparate(t *testing.T) {
	r := openIsolated(t)
	_, pid, home := victim(t, r, 1)
	for name, script := range attacks {
		if ok, out := try(t, r, 2, fmt.Sprintf(script, pid, home)); ok {
			t.Errorf("%s: succeeds on another session: %s", name, out)
		}
	}
	if ok, out := try(t, r, 2, "ls $HOME/../.."); ok {
		t.Errorf("the workspaces can be listed: %s", out)
	}
}

// An abstract socket is reached by its own session only.
func TestAbstractSocketsAreSeparate(t *testing.T) {
	if !has("perl") {
		t.Skip("no perl")
	}
	r := openIsolated(t)
	const socket = `perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); $a = pack_sockaddr_un("\0%s"); %s'`
	name := newMarker()
	listener := runIn(t, r, 1, fmt.Sprintf(socket, name, `bind(S, $a) && listen(S, 9) or die; $| = 1; print "ready"; sleep`))
	listener.waitOutput("ready")
	connect := fmt.Sprintf(socket, name, `connect(S, $a) or die $!`)
	if ok, out := try(t, r, 1, connect); !ok {
		t.Error("its own session is refused:", out)
	}
	if ok, out := try(t, r, 2, connect); ok || !strings.Contains(out, "not permitted") {
		t.Errorf("another session connects: %v %s", ok, out)
	}
}

// A command reaches neither the runner, nor trouped, nor an idle init, nor one of another session.
func TestSessionsReachNoInit(t *testing.T) {
	r := openIsolated(t)
	victim(t, r, 1)
	runner := r.Status().PID
	eventually(t, "idle inits", func() bool { return idle(r) > 0 })
	targets := map[string]int{"runner": runner, "trouped": os.Getpid()}
	r.mu.Lock()
	for _, c := range r.conn.inits {
		targets["init "+strconv.FormatBool(c.busy)] = c.pid
	}
	r.mu.Unlock()
	for _, s := range []string{"signal", "stop", "environ", "memory", "cwd", "descriptors"} {
		for what, pid := range targets {
			if ok, out := try(t, r, 2, fmt.Sprintf(attacks[s], pid, "")); ok {
				t.Errorf("%s: succeeds on the %s: %s", s, what, out)
			}
		}
	}
}

// A warm init serves one session after the other, each in a domain of its own.
func TestInitServesSessionsInTurn(t *testing.T) {
	r := openIsolated(t, func(c *Config) { c.WarmInits = 1 })
	earlier, served := "/nowhere", make(map[uint64]int)
	for i := range 20 {
		ok, out := try(t, r, 100+i, fmt.Sprintf("echo mine >file; cat file; ! cat %s/file 2>/dev/null; echo $HOME", earlier))
		if earlier = strings.TrimSpace(strings.TrimPrefix(out, "mine\n")); !ok || !strings.HasPrefix(out, "mine\n/") {
			t.Fatalf("session %d: %q", i, out)
		}
		for _, c := range initsOf(r) {
			served[c.id]++
		}
	}
	for _, n := range served {
		if n > 1 {
			return
		}
	}
	t.Errorf("no init served two sessions: %v", served)
}

func initsOf(r *Runner) []*initConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*initConn
	for _, c := range r.conn.inits {
		list = append(list, c)
	}
	return list
}

// Idle clones are closed after a while, and at once when their session ends.
func TestIdleClonesEnd(t *testing.T) {
	r := openIsolated(t)
	victim(t, r, 1)
	if ok, out := try(t, r, 1, "true"); !ok {
		t.Fatal(out)
	}
	clones := func() (n int) {
		for _, c := range initsOf(r) {
			if c.clone {
				n++
			}
		}
		return n
	}
	if clones() != 1 {
		t.Fatalf("%d clones", clones())
	}
	began := time.Now()
	eventually(t, "the end of the clone", func() bool { return clones() == 0 })
	if took := time.Since(began); took < cloneIdle/2 {
		t.Errorf("it ended after %v", took)
	}
}

// A start while the session's only init is dying runs, in a domain of its own.
func TestStartBesideADyingInit(t *testing.T) {
	r := openIsolated(t)
	for range soak(10, 100) {
		c, _, _ := victim(t, r, 1)
		pids := initsOf(r)
		for _, i := range pids {
			r.mu.Lock()
			busy := i.busy
			r.mu.Unlock()
			if busy {
				go kill9(i.pid)
			}
		}
		if ok, out := try(t, r, 1, "true"); !ok {
			// The init that it was given may be the one that is killed.
			t.Log(out)
		}
		c.waitDead()
	}
}

// A hundred sessions run eight commands each at a time, and those of one session see each other.
func TestHundredSessionsAtOnce(t *testing.T) {
	r := openIsolated(t, func(c *Config) { c.WarmInits = 8 })
	sessions := soak(20, 100)
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for s := range sessions {
		wg.Go(func() {
			_, pid, _ := victim(t, r, 1000+s)
			for range 7 {
				wg.Go(func() {
					if ok, out := try(t, r, 1000+s, fmt.Sprintf("kill -0 %d", pid)); !ok {
						mu.Lock()
						defer mu.Unlock()
						if failed++; failed < 4 {
							t.Errorf("session %d: %s", s, out)
						}
					}
				})
			}
		})
	}
	wg.Wait()
}

func kill9(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }

// A session's directories begin with the seed, last until it ends, and then go, whatever is in them.
func TestWorkspaceLastsAsLongAsItsSession(t *testing.T) {
	seed, root := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(seed, "greeting"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := open(t, func(c *Config) { c.Isolation = Isolation{Level: IsolationNone, Workspace: root, Seed: seed} })
	ok, out := try(t, r, 1, `cat greeting && echo " $HOME" && test "$PWD" = "$HOME" && test -d "$TMPDIR" &&
		test "$(stat -c %a .)" = 700 && mkdir -p a/b && touch a/b/c && chmod 0 a/b a && ln -s / root`)
	text, home, found := strings.Cut(strings.TrimSpace(out), " ")
	if !ok || !found || text != "hello" {
		t.Fatal(out)
	}
	if ok, out := try(t, r, 1, "test -L root"); !ok {
		t.Error("the next command of the session has another home:", out)
	}
	if ok, out := try(t, r, 2, "test ! -e root && test -e greeting"); !ok {
		t.Error("another session has the same home:", out)
	}
	dir := filepath.Dir(home)
	r.RemoveWorkspace(workspace(1))
	eventually(t, "the end of the workspace", func() bool {
		left, err := filepath.Glob(filepath.Join(root, "r-*/.trash/*"))
		_, gone := os.Stat(dir)
		return err == nil && len(left) == 0 && os.IsNotExist(gone)
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the runner's directory", func() bool {
		left, err := os.ReadDir(root)
		return err == nil && len(left) == 0
	})
}

// No session sees a script of another one among the arguments of processes, however often it looks,
// neither of one that begins a domain nor of one that joins it. The session itself sees a shell.
func TestScriptsAreHidden(t *testing.T) {
	for name, proc := range map[string]string{"readable": "", "none": "none"} {
		t.Run("proc "+name, func(t *testing.T) {
			r := openIsolated(t, func(c *Config) { c.Isolation.Proc = proc })
			spy := runScript(t, r, 2,
				`while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -a hunte[r]2; done`)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 10 {
						c := runScript(t, r, 1, "x=hunter2; (sleep 0.05); echo $x; tr '\\0' ' ' </proc/$$/cmdline")
						c.waitDead()
						c.read.Wait()
						out := c.stdout()
						if !strings.HasPrefix(out, "hunter2\n") || proc == "" && !strings.Contains(out, "/bin/sh -c eval") {
							t.Errorf("%q %q", out, c.errOut.String())
						}
					}
				})
			}
			wg.Wait()
			if seen := spy.stdout(); seen != "" {
				t.Errorf("seen: %q", seen)
			}
			visible := runIn(t, r, 1, "x=hunter2; sleep 0.1; echo $x") // an argument like any other
			visible.waitDead()
			if proc == "" {
				spy.waitOutput("hunter2")
			} else if seen := spy.stdout(); seen != "" {
				t.Errorf("seen without /proc: %q", seen)
			}
		})
	}
}

// runScript starts a shell script of a client in a session.
func runScript(t testing.TB, r *Runner, session int, script string) *command {
	t.Helper()
	return runSpec(t, r, newMarker(), Spec{
		Argv: []string{"/bin/sh", "-c", script}, Script: true, Env: environ(), Workspace: workspace(session),
	})
}
