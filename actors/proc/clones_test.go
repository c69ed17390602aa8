//go:build linux

package proc

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// childrenOf lists the children of a process.
func childrenOf(pid int) (children []int) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, field := range strings.Fields(string(list)) {
			if n, err := strconv.Atoi(field); err == nil {
				children = append(children, n)
			}
		}
	}
	return children
}

// onlyInits waits until the runner has no child that trouped does not know.
func onlyInits(t *testing.T, r *Runner) {
	t.Helper()
	eventually(t, "no other children of the runner", func() bool {
		return len(childrenOf(r.Status().PID)) == len(initsOf(r))
	})
}

// repeatedly does something until stop is called.
func repeatedly(pause time.Duration, do func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(pause):
				do()
			}
		}
	})
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// Clones that are killed as soon as they exist, many before the runner knows them, keep no command
// from running and leave nothing.
func TestCloneDiesBeforeItIsKnown(t *testing.T) {
	r := openIsolated(t, func(c *Config) { c.WarmInits = 16 })
	victim(t, r, 1)
	eventually(t, "idle inits", func() bool { return idle(r) >= 8 })
	known := make(map[int]bool)
	for _, pid := range childrenOf(r.Status().PID) {
		known[pid] = true
	}
	killed := make(map[int]bool)
	stop := repeatedly(50*time.Microsecond, func() {
		for _, pid := range childrenOf(r.Status().PID) {
			if !known[pid] {
				killed[pid] = true
				kill9(pid)
			}
		}
	})
	for range soak(20, 200) {
		c := runIn(t, r, 1, "exit 0")
		if d := c.waitDead(); d.RunnerLost {
			t.Fatalf("%+v", d)
		}
	}
	if stop(); len(killed) < 5 {
		t.Errorf("only %d clones were killed", len(killed))
	}
	onlyInits(t, r)
	_, pid, _ := victim(t, r, 1)
	if ok, out := try(t, r, 1, fmt.Sprintf("kill -0 %d", pid)); !ok {
		t.Error("no clone starts any more:", out)
	}
}

// holder is the init that runs the only command.
func holder(t *testing.T, r *Runner) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conn.inits {
		if c.busy {
			return c.pid
		}
	}
	t.Fatal("no init is busy")
	return 0
}

// An init that is stopped again and again is continued by the runner, and still makes clones.
func TestStoppedInitIsAskedForAClone(t *testing.T) {
	r := openIsolated(t)
	_, pid, _ := victim(t, r, 1)
	stopped := holder(t, r)
	stop := repeatedly(20*time.Microsecond, func() { _ = unix.Kill(stopped, unix.SIGSTOP) })
	defer stop()
	for range 3 {
		if ok, out := try(t, r, 1, fmt.Sprintf("kill -0 %d", pid)); !ok {
			t.Error(out)
		}
	}
}

// An init that is busy is not moved to the domain of another session, which would end its command.
func TestInitIsAskedForAnotherSession(t *testing.T) {
	r := openIsolated(t)
	c, pid, _ := victim(t, r, 1)
	r.mu.Lock()
	for _, init := range r.conn.inits {
		if init.busy {
			ask := frame.Clone{Request: 1 << 40, Init: init.id, Workspace: workspace(2)}
			if err := r.conn.conn.send(ask.Encode()); err != nil {
				t.Error(err)
			}
		}
	}
	r.mu.Unlock()
	// The next answer of the init comes after that.
	if ok, out := try(t, r, 1, fmt.Sprintf("kill -0 %d", pid)); !ok {
		t.Error(out)
	}
	select {
	case <-c.tree.Dead():
		t.Error("its command has ended")
	default:
	}
	onlyInits(t, r)
}

// An init that answers nothing delays the next command of its session by a second, and the ones after
// it not at all. They run in domains of their own. The clone that it was asked for comes to nothing,
// and there are clones again when it is back.
func TestFrozenInitIsAskedForAClone(t *testing.T) {
	r := openIsolated(t)
	_, pid, _ := victim(t, r, 1)
	thaw := freeze(t, holder(t, r))
	for i, atLeast := range []time.Duration{time.Second, 0} {
		began := time.Now()
		ok, out := try(t, r, 1, "true")
		if took := time.Since(began); !ok || took < atLeast || took > atLeast+startTimeout/2 {
			t.Errorf("start %d: %v after %v: %s", i, ok, took, out)
		}
	}
	thaw()
	eventually(t, "a clone", func() bool {
		ok, _ := try(t, r, 1, fmt.Sprintf("kill -0 %d", pid))
		return ok
	})
	onlyInits(t, r)
}

// freeze stops all threads of a process in a way that SIGCONT does not end, until thaw is called.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root traces an init")
	}
	frozen, end, done := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the tracer is a thread; it ends here, and with it the trace
		frozen <- freezeThreads(pid)
		<-end
	}()
	thaw = sync.OnceFunc(func() { close(end); <-done })
	t.Cleanup(thaw)
	if err := <-frozen; err != nil {
		t.Skip(err)
	}
	return thaw
}

func freezeThreads(pid int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.PtraceSeize(tid); err != nil {
			return os.NewSyscallError("ptrace", err)
		}
		if err := unix.PtraceInterrupt(tid); err != nil {
			return os.NewSyscallError("ptrace", err)
		}
		if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != nil {
			return os.NewSyscallError("wait4", err)
		}
	}
	return nil
}

// A runner that dies while clones are made ends every command that has started, starts the others with
// the next runner, and leaves nothing.
func TestRunnerDiesDuringAClone(t *testing.T) {
	r := openIsolated(t)
	for i := range soak(4, 20) {
		c, _, _ := victim(t, r, 1)
		var clones []*command
		for range 8 {
			clones = append(clones, runIn(t, r, 1, "echo started; exec -a MARK sleep 1000"))
		}
		time.Sleep(time.Duration(i) * time.Millisecond) // the fault itself: it comes at another moment each time
		kill9(r.Status().PID)
		if d := c.waitDead(); !d.Lost || !d.RunnerLost {
			t.Errorf("%+v", d)
		}
		for _, c := range clones {
			eventually(t, "a start or an end", func() bool {
				select {
				case <-c.tree.Dead():
					return true
				default:
					return strings.Contains(c.stdout(), "started")
				}
			})
			c.tree.Kill()
			c.waitDead()
		}
	}
	if ok, out := try(t, r, 1, "true"); !ok {
		t.Error(out)
	}
	onlyInits(t, r)
}
