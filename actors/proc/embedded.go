//go:build linux

package proc

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// hello is a runner's first frame.
type hello struct {
	frame.Hello
	pidfd int // of the runner, owned; -1: none
}

// helloTimeout is how long a runner may take to send its hello, which takes it a few system calls.
const helloTimeout = 10 * time.Second

// readHello takes over a socket to a runner and reads its hello.
func readHello(fd int) (*runnerConn, error) {
	c, err := newFrameConn(fd, -1, "runner")
	if err != nil {
		return nil, err
	}
	in := frame.NewReceiver(c.recv)
	_ = c.file.SetReadDeadline(time.Now().Add(helloTimeout))
	h, err := decodeHello(in)
	_ = c.file.SetReadDeadline(time.Time{})
	if err != nil {
		in.Discard()
		c.close()
		return nil, err
	}
	return &runnerConn{
		conn: c, in: in, hello: h, inits: make(map[uint64]*initConn), cloning: make(map[uint64]*Tree),
		oomKillsExplained: h.OOMKills,
	}, nil
}

func decodeHello(in *frame.Receiver) (hello, error) {
	h := hello{pidfd: -1}
	k, body, err := in.Next()
	if err != nil {
		return h, err
	}
	if k != frame.KindHello {
		return h, frame.ErrMalformed
	}
	if h.Hello, err = frame.DecodeHello(body); err != nil || !h.HasPidfd {
		return h, err
	}
	fds, err := in.Take(1)
	if err == nil {
		h.pidfd = fds[0]
	}
	return h, err
}

// embedded is a runner that is a child of this process.
type embedded struct {
	pid    int
	exited chan struct{} // closed when it is dead and reaped
}

// runnerPIDs are the embedded runners of this process. The sweep after one of them must spare the
// others.
var (
	runnerMu   sync.Mutex
	runnerPIDs = make(map[int]bool)
)

// openEmbedded starts the first runner and returns its failure. Later failures are retried.
func (r *Runner) openEmbedded() error {
	for _, set := range []struct {
		option int
		value  uintptr
	}{{unix.PR_SET_CHILD_SUBREAPER, 1}, {unix.PR_SET_DUMPABLE, 0}} {
		if err := unix.Prctl(set.option, set.value, 0, 0, 0); err != nil {
			return fmt.Errorf("proc: %w", os.NewSyscallError("prctl", err))
		}
	}
	e, rc, err := r.launch()
	if err != nil {
		return fmt.Errorf("proc: starting the runner %s: %w", r.cfg.Binary, err)
	}
	r.adopt(rc)
	r.wg.Go(func() { r.superviseEmbedded(e, rc) })
	return nil
}

// launch starts a runner and waits for its hello.
func (r *Runner) launch() (*embedded, *runnerConn, error) {
	ours, theirs, err := frame.Socketpair()
	if err != nil {
		return nil, nil, err
	}
	e, err := r.spawn(theirs)
	unix.Close(theirs)
	if err != nil {
		unix.Close(ours)
		return nil, nil, err
	}
	rc, err := readHello(ours)
	if err != nil {
		e.kill()
		<-e.exited
		return nil, nil, fmt.Errorf("it did not say hello: %w", err)
	}
	return e, rc, nil
}

// spawn starts the program troupe-runner with one socket and nothing else of this process: no
// environment and no secret in its argv. It gets a session of its own, by which sweepOrphans
// recognizes its descendants.
func (r *Runner) spawn(sock int) (*embedded, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/null", err)
	}
	defer unix.Close(null)
	cgroup := r.cfg.Cgroup
	if cgroup == "" {
		cgroup = "auto"
	}
	e := &embedded{exited: make(chan struct{})}
	started := make(chan error)
	r.wg.Go(func() {
		// The thread that forks also waits, so that it lasts as long as the runner: the kernel
		// sends the parent-death signal when that thread exits (golang.org/issue/27505).
		runtime.LockOSThread()
		argv := append([]string{"troupe-runner", "--fd", "3", "--cgroup", cgroup}, r.cfg.Isolation.flags()...)
		if err := e.fork(r.cfg.Binary, argv, []uintptr{uintptr(null), uintptr(null), 2, uintptr(sock)}); err != nil {
			started <- err
			return
		}
		started <- nil
		e.wait()
	})
	return e, <-started
}

// flags returns those of the runner.
func (i *Isolation) flags() (flags []string) {
	for _, f := range []struct{ name, value string }{
		{"--isolation", i.Level},
		{"--workspace", i.Workspace},
		{"--workspace-seed", i.Seed},
		{"--isolation-read", strings.Join(i.Read, ",")},
		{"--isolation-write", strings.Join(i.Write, ",")},
		{"--isolation-proc", i.Proc},
	} {
		if f.value != "" {
			flags = append(flags, f.name, f.value)
		}
	}
	if i.SharedTmp {
		flags = append(flags, "--isolation-shared-tmp")
	}
	if i.SysVIPC {
		flags = append(flags, "--isolation-sysvipc")
	}
	return flags
}

func (e *embedded) fork(binary string, argv []string, files []uintptr) (err error) {
	runnerMu.Lock()
	defer runnerMu.Unlock()
	e.pid, err = syscall.ForkExec(binary, argv, &syscall.ProcAttr{
		Files: files,
		// SIGCONT, not SIGKILL: a runner that a command has stopped must resume to notice that
		// trouped is gone. It then exits on its own.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGCONT},
	})
	if err == nil {
		runnerPIDs[e.pid] = true
	}
	return err
}

// wait reaps the runner, and resumes it whenever a command has stopped it.
func (e *embedded) wait() {
	defer close(e.exited)
	for {
		var info proctree.Siginfo
		err := proctree.Waitid(unix.P_PID, e.pid, &info, unix.WEXITED|unix.WSTOPPED, nil)
		switch {
		case err == unix.EINTR:
		case err == nil && info.Code == proctree.CLDStopped:
			unix.Kill(e.pid, unix.SIGCONT)
		default:
			runnerMu.Lock()
			delete(runnerPIDs, e.pid)
			runnerMu.Unlock()
			return
		}
	}
}

// kill kills the runner unless it is reaped. The race with wait is harmless: the kernel allocates
// pids in ascending order and wraps around, so one that was just freed is not reused at once.
func (e *embedded) kill() {
	select {
	case <-e.exited:
	default:
		unix.Kill(e.pid, unix.SIGKILL)
	}
}

// The pauses before an embedded runner is restarted grow, since a runner that dies at once will
// probably do so again.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// After a run of this length the pauses begin again at minBackoff.
	healthyRun = 10 * time.Second
)

// superviseEmbedded serves one runner after the other until Close.
func (r *Runner) superviseEmbedded(e *embedded, rc *runnerConn) {
	backoff := minBackoff
	for {
		began := time.Now()
		err := r.serveRunner(rc)
		r.disconnect(rc)
		r.reapEmbedded(e)
		r.sweepOrphans(rc)
		if rc.hello.Cgroup != "" {
			proctree.RemoveCgroup(rc.hello.Cgroup)
		}
		closing := r.closing()
		if !closing {
			r.log.Error("runner lost; its trees are dead", "pid", rc.hello.PID, "err", err)
			r.cfg.OnEvent(RunnerEvent{Kind: RunnerLost})
		}
		r.endTrees(rc)
		if closing {
			return
		}
		if time.Since(began) > healthyRun {
			backoff = minBackoff
		}
		for {
			select {
			case <-r.stop:
				return
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxBackoff)
			if e, rc, err = r.launch(); err == nil {
				break
			}
			r.log.Error("cannot restart the runner", "err", err, "retry_in", backoff)
		}
		r.adopt(rc)
		if r.closing() {
			rc.conn.close()
		}
	}
}

// reapEmbedded waits for a runner whose connection closed. The runner exits once its trees are
// dead. One that hangs is killed.
func (r *Runner) reapEmbedded(e *embedded) {
	t := time.NewTimer(2 * frame.ShutdownGrace)
	defer t.Stop()
	select {
	case <-e.exited:
		return
	case <-t.C:
	}
	e.kill()
	<-e.exited
}

// initGrace is how long the inits of a dead runner may take to kill their trees and exit, which
// takes them milliseconds.
const initGrace = 3 * time.Second

// sweepOrphans kills and reaps the processes that a dead runner left. They are in other sessions
// than this process: the runner was started in a session of its own, and no process can join an
// existing session of another (setsid(2)).
//
// The inits come last, and preferably exit by themselves. Each is killing its tree at this moment.
// If an init were killed first and this process then died, no process would kill that tree.
func (r *Runner) sweepOrphans(rc *runnerConn) {
	self := os.Getpid()
	session, err := unix.Getsid(0)
	if err != nil {
		return
	}
	r.mu.Lock()
	inits := make(map[int]bool, len(rc.inits))
	for _, c := range rc.inits {
		inits[c.pid] = true
	}
	r.mu.Unlock()
	for end := time.Now().Add(initGrace); len(inits) > 0 && time.Now().Before(end); {
		for pid := range inits {
			var info proctree.Siginfo
			err := proctree.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG, nil)
			if err == unix.ECHILD || info.PID != 0 {
				delete(inits, pid)
			}
		}
		time.Sleep(time.Millisecond)
	}
	w := proctree.NewWalker(self, func(s *proctree.Stat) bool { return s.Session == session || runnerPIDs[s.PID] })
	w.KillAll(runnerMu.Lock, runnerMu.Unlock, w.ReapOrphans, time.Sleep, make(map[proctree.ProcID]string))
}
