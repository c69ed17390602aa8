//go:build linux

package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// stubborn survives unless every process of its tree is found and killed.
const stubborn = `trap "" TERM HUP; (setsid bash -c 'trap "" TERM HUP; exec -a MARK sleep 1000' &)
	bash -c 'trap "" HUP TERM; exec -a MARK sleep 1000' & echo ready; wait; sleep 1000`

// kill -9 of the runner ends every tree, and the next runner serves.
func TestRunnerKilled(t *testing.T) {
	events := make(chan RunnerEvent, 1000)
	r := open(t, func(c *Config) { c.OnEvent = func(e RunnerEvent) { events <- e } })
	if e := <-events; e.Kind != RunnerUp {
		t.Fatal(e)
	}
	for i := range soak(3, 8) { // the pauses between restarts grow
		a, b := run(t, r, stubborn), run(t, r, stubborn)
		a.waitFound(2)
		b.waitFound(2)
		unix.Kill(r.Status().PID, unix.SIGKILL)
		for _, c := range []*command{a, b} {
			if d := c.waitDead(); !d.Lost {
				t.Errorf("%+v", d)
			}
		}
		if e := <-events; e.Kind != RunnerLost {
			t.Error(e)
		}
		c := run(t, r, "exit 1") // waits for the next runner
		if e := waitEvent[Exited](c); e.Code != 1 {
			t.Errorf("%+v", e)
		}
		c.waitDead()
		if e := <-events; e.Kind != RunnerRestarted {
			t.Error(e)
		}
		if s := r.Status(); s.Restarts != i+1 || !s.Up {
			t.Errorf("%+v", s)
		}
	}
}

// A command kills its init and the runner at once, and moves a process to another session.
func TestCommandKillsInitAndRunner(t *testing.T) {
	r := open(t)
	for range soak(3, 8) {
		bystander := run(t, r, stubborn)
		bystander.waitFound(2)
		c := run(t, r, `runner=$(ps -o ppid= $PPID); (setsid bash -c 'exec -a MARK sleep 1000' &)
			while [ $(pgrep -fc 'MARK') -lt 2 ]; do sleep 0.01; done; kill -9 $runner $PPID; sleep 1000`)
		if d := c.waitDead(); !d.Lost {
			t.Errorf("%+v", d)
		}
		bystander.waitDead()
	}
}

// A stopped runner is resumed, since it is needed for new inits.
func TestRunnerStopped(t *testing.T) {
	r := open(t)
	for range soak(3, 30) {
		unix.Kill(r.Status().PID, unix.SIGSTOP)
		for range 8 {
			c := run(t, r, "kill -9 $PPID")
			c.waitDead()
		}
	}
}

// kill -9 of trouped ends everything.
func TestTroupedKilled(t *testing.T) {
	for range soak(3, 30) {
		marker := newMarker()
		script := strings.ReplaceAll(stubborn, "MARK", marker)
		cmd := helper("trouped", nil, script, script)
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var runner int
		lines := bufio.NewScanner(out)
		lines.Scan()
		fmt.Sscanf(lines.Text(), "runner %d", &runner)
		eventually(t, "four processes", func() bool { return len(find(marker)) >= 4+1 }) // trouped's argv has it too
		cmd.Process.Kill()
		cmd.Wait()
		eventually(t, "death of all", func() bool { return len(find(marker)) == 0 && gone(runner) })
	}
}

// gone reports whether a process is dead. It may be a zombie and a child of this process, which
// became a subreaper when it opened a Runner.
func gone(pid int) bool {
	s, ok := proctree.NewProcfs().Stat(pid)
	return !ok || s.Zombie()
}

// A command that stops the runner, and kills trouped before trouped can resume it, does not leave
// the runner behind.
func TestStoppedRunnerOutlivesNothing(t *testing.T) {
	for range soak(3, 30) {
		marker := newMarker()
		cmd := helper("trouped", nil, strings.ReplaceAll(stubborn, "MARK", marker))
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var runner int
		lines := bufio.NewScanner(out)
		lines.Scan()
		fmt.Sscanf(lines.Text(), "runner %d", &runner)
		eventually(t, "two processes", func() bool { return len(find(marker)) >= 2+1 })
		unix.Kill(cmd.Process.Pid, unix.SIGSTOP) // so that it cannot
		unix.Kill(runner, unix.SIGSTOP)
		cmd.Process.Kill()
		cmd.Wait()
		eventually(t, "death of all", func() bool { return len(find(marker)) == 0 && gone(runner) })
	}
}

// The inits kill their trees when trouped and the runner are killed at once.
func TestTroupedAndRunnerKilled(t *testing.T) {
	for range soak(3, 30) {
		marker := newMarker()
		cmd := helper("trouped", nil, strings.ReplaceAll(stubborn, "MARK", marker))
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var runner int
		lines := bufio.NewScanner(out)
		lines.Scan()
		fmt.Sscanf(lines.Text(), "runner %d", &runner)
		eventually(t, "two processes", func() bool { return len(find(marker)) >= 2+1 })
		unix.Kill(runner, unix.SIGKILL)
		cmd.Process.Kill()
		cmd.Wait()
		eventually(t, "death of all", func() bool { return len(find(marker)) == 0 })
	}
}

// Close leaves no process, descriptor or goroutine, whatever was running.
func TestCloseLeavesNothing(t *testing.T) {
	before := openFiles(t)
	for range soak(3, 30) {
		r := open(t)
		pid := r.Status().PID
		var running []*command
		for range 3 {
			running = append(running, run(t, r, stubborn))
		}
		quick := run(t, r, "true")
		quick.waitDead()
		unused := r.NewTree("o", "unused")
		running[0].waitFound(2)
		inits := below(pid)
		closeRunner(t, r)
		for _, c := range running {
			c.waitDead()
			c.read.Wait()
		}
		quick.read.Wait()
		await(t, unused.Dead(), "death of an unused tree")
		if unix.Kill(pid, 0) != unix.ESRCH {
			t.Error("the runner is there")
		}
		for _, s := range inits {
			if now, ok := proctree.NewProcfs().Stat(s.PID); ok && now.Start == s.Start {
				t.Errorf("%s is there", s.Comm())
			}
		}
		if tree := r.NewTree("o", "late"); tree.state != stateDead {
			t.Error("a closed runner takes a tree")
		}
		r.Close()
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Many commands leave no descriptor and no process behind.
func TestNothingAccumulates(t *testing.T) {
	r := open(t)
	pid := r.Status().PID
	once := func() {
		c := run(t, r, "true")
		c.waitDead()
		c.read.Wait()
	}
	// An init that retires is replaced only when the next command starts, since half a pool is
	// enough. So count with a full pool, before and after.
	fill := func() {
		eventually(t, "a full pool", func() bool {
			r.mu.Lock()
			full := len(r.conn.idle) == r.cfg.WarmInits && len(r.conn.inits) == r.cfg.WarmInits && r.conn.pending == 0
			r.mu.Unlock()
			if !full {
				once()
			}
			return full
		})
	}
	count := func() (files, procs int) { return openFiles(t), len(below(pid)) }
	fill()
	files, procs := count()
	for range soak(maxUses+50, 3000) {
		once()
	}
	fill()
	eventually(t, "the same counts", func() bool { f, p := count(); return f == files && p == procs })
	for _, s := range below(pid) {
		eventually(t, "an idle init's descriptors", func() bool { // it says Dead before it tidies up
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID))
			return len(fds) <= 7 // one is the next session's domain
		})
	}
}

func TestOpenNamesTheProblem(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, []byte("x"), 0o644)
	for _, tc := range []struct{ binary, want string }{
		{"/no/such/runner", "/no/such/runner: no such file"},
		{plain, "permission denied"},
		{"/bin/true", "did not say hello"},
	} {
		_, err := Open(Config{Binary: tc.binary, Cgroup: "off"})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.binary, err)
		}
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("an empty configuration is taken")
	}
	if _, err := Open(Config{Binary: runnerBinary, Cgroup: dir}); err == nil {
		t.Error("a cgroup that is none is taken")
	}
}

// socketRunner starts a runner that dials.
func socketRunner(t *testing.T, path string, stderr io.Writer) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(runnerBinary, "--connect", path, "--cgroup", "off")
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestSocketMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runner.sock")
	var said safeBuffer
	early := socketRunner(t, path, &said) // before there is a socket
	eventually(t, "a runner that waits", func() bool { return strings.Contains(said.String(), "waiting for trouped") })
	r := open(t, func(c *Config) { c.Binary, c.Socket = "", path })
	waiting := run(t, r, "exit 4") // before there is a runner
	if e := waitEvent[Exited](waiting); e.Code != 4 {
		t.Errorf("%+v", e)
	}
	waiting.waitDead()

	// The file is gone, so no other process can connect.
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket file is there: %v", err)
	}
	c := run(t, r, strings.ReplaceAll(`
		python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("PATH")' 2>/dev/null && echo connected
		[ -e PATH ] && echo there
		exit 0`, "PATH", path))
	waitEvent[Exited](c)
	c.waitDead()
	c.read.Wait()
	if c.stdout() != "" {
		t.Error(c.stdout())
	}
	second := socketRunner(t, path, os.Stderr)

	// The runner dies, its trees are dead, and the second one connects.
	c = run(t, r, stubborn)
	c.waitFound(2)
	early.Process.Kill()
	early.Wait()
	if d := waitEvent[Dead](c); !d.Lost {
		t.Errorf("%+v", d)
	}
	c = run(t, r, "exit 5")
	if e := waitEvent[Exited](c); e.Code != 5 {
		t.Errorf("%+v", e)
	}
	c.waitDead()
	if s := r.Status(); s.Restarts != 1 || s.PID != second.Process.Pid {
		t.Errorf("%+v", s)
	}
	closeRunner(t, r)
	done := make(chan struct{})
	go func() { second.Wait(); close(done) }()
	await(t, done, "exit of the runner when its connection closes")
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("Close left the socket file: %v", err)
	}
}

// Without a runner a command fails in time, and Close does not wait for it.
func TestSocketModeWithoutRunner(t *testing.T) {
	r := open(t, func(c *Config) { c.Binary, c.Socket = "", filepath.Join(t.TempDir(), "s") })
	c := run(t, r, "exit 4")
	killed := run(t, r, "exit 4")
	killed.tree.Kill()
	if f := waitEvent[StartFailed](killed); f.Err != ErrKilled {
		t.Error(f)
	}
	closeRunner(t, r)
	if f := waitEvent[StartFailed](c); f.Err != ErrKilled {
		t.Error(f)
	}
	c.waitDead()
}
