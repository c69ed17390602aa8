//go:build linux

package proc

import (
	"fmt"
	"os"
	"runtime"
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

// helloWait is how long a runner may take to say hello. It makes no more than
// a few system calls before.
const helloWait = 10 * time.Second

// greet reads the hello of a runner at fd, which it takes over.
func greet(fd int) (*link, *frame.Receiver, hello, error) {
	c, err := newConn(fd, -1, "runner")
	if err != nil {
		return nil, nil, hello{}, err
	}
	in := frame.NewReceiver(c.recv)
	_ = c.file.SetReadDeadline(time.Now().Add(helloWait))
	k, body, err := in.Next()
	_ = c.file.SetReadDeadline(time.Time{})
	h := hello{pidfd: -1}
	if err == nil {
		h.Hello, err = frame.DecodeHello(body)
	}
	if err == nil && k != frame.KindHello {
		err = frame.ErrMalformed
	}
	if err == nil && h.HasPidfd {
		var fds []int
		if fds, err = in.Take(1); err == nil {
			h.pidfd = fds[0]
		}
	}
	if err != nil {
		in.Discard()
		c.close()
		return nil, nil, h, err
	}
	return &link{conn: c, inits: make(map[uint64]*initConn), lost: make(chan struct{}), kills: h.OOMKills}, in, h, nil
}

// embedded is a runner that is our child.
type embedded struct {
	pid    int
	exited chan struct{} // closed when it is dead and reaped
}

// runnerPIDs are the embedded runners of this process, which the sweep after
// one of them must leave alone.
var (
	runnerMu   sync.Mutex
	runnerPIDs = make(map[int]bool)
)

// openEmbedded starts the first runner. Its failure is the caller's; later
// ones are retried.
func (r *Runner) openEmbedded() error {
	for _, set := range []struct {
		option int
		value  uintptr
	}{{unix.PR_SET_CHILD_SUBREAPER, 1}, {unix.PR_SET_DUMPABLE, 0}} {
		if err := unix.Prctl(set.option, set.value, 0, 0, 0); err != nil {
			return fmt.Errorf("proc: %w", os.NewSyscallError("prctl", err))
		}
	}
	e, l, in, h, err := r.launch()
	if err != nil {
		return fmt.Errorf("proc: starting the runner %s: %w", r.cfg.Binary, err)
	}
	r.adopt(l, h)
	r.wg.Go(func() { r.keepEmbedded(e, l, in, h) })
	return nil
}

// launch starts a runner and waits for its hello.
func (r *Runner) launch() (*embedded, *link, *frame.Receiver, hello, error) {
	ours, theirs, err := frame.Socketpair()
	if err != nil {
		return nil, nil, nil, hello{}, err
	}
	e, err := r.spawn(theirs)
	unix.Close(theirs)
	if err != nil {
		unix.Close(ours)
		return nil, nil, nil, hello{}, err
	}
	l, in, h, err := greet(ours)
	if err != nil {
		e.kill()
		<-e.exited
		return nil, nil, nil, h, fmt.Errorf("it did not say hello: %w", err)
	}
	return e, l, in, h, nil
}

// spawn forks the runner with nothing of ours but one socket: no environment,
// no secret in its argv, a session of its own, by which sweepLost knows what
// came from it.
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
		// The thread that forks is the one that waits, and lasts as long as
		// the runner: the parent-death signal is bound to it.
		runtime.LockOSThread()
		argv := []string{"troupe-runner", "--fd", "3", "--cgroup", cgroup}
		if err := e.fork(r.cfg.Binary, argv, []uintptr{uintptr(null), uintptr(null), 2, uintptr(sock)}); err != nil {
			started <- err
			return
		}
		started <- nil
		e.wait()
	})
	return e, <-started
}

func (e *embedded) fork(binary string, argv []string, files []uintptr) (err error) {
	runnerMu.Lock()
	defer runnerMu.Unlock()
	e.pid, err = syscall.ForkExec(binary, argv, &syscall.ProcAttr{
		Files: files,
		// The signal only continues: a runner that a command has stopped must
		// run to see that trouped is gone. Its end it finds by itself.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGCONT},
	})
	if err == nil {
		runnerPIDs[e.pid] = true
	}
	return err
}

// wait reaps the runner, and continues it when a command has stopped it.
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

// kill is only called before exited is closed, or races with it harmlessly:
// the pid of a process that is reaped in this moment is not reused in it.
func (e *embedded) kill() {
	select {
	case <-e.exited:
	default:
		unix.Kill(e.pid, unix.SIGKILL)
	}
}

// Restarting an embedded runner: at once the first time, then with growing
// pauses, since one that dies at once will do so again.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// A runner that lived this long did not die of starting.
	healthyRun = 10 * time.Second
)

// keepEmbedded serves one runner after the other until Close.
func (r *Runner) keepEmbedded(e *embedded, l *link, in *frame.Receiver, h hello) {
	backoff := minBackoff
	for {
		began := time.Now()
		err := r.serveLink(l, in)
		r.drop(l)
		r.reapEmbedded(e)
		r.sweepLost(l)
		if h.Cgroup != "" {
			proctree.RemoveCgroup(h.Cgroup)
		}
		closing := r.closing()
		if !closing {
			r.log.Error("runner lost; its trees are dead", "pid", h.PID, "err", err)
			r.cfg.OnEvent(RunnerEvent{Kind: RunnerLost})
		}
		r.release(l)
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
			if e, l, in, h, err = r.launch(); err == nil {
				break
			}
			r.log.Error("cannot restart the runner", "err", err, "retry_in", backoff)
		}
		r.adopt(l, h)
		if r.closing() {
			l.conn.close()
		}
	}
}

// reapEmbedded waits for a runner whose connection closed. It exits by itself
// once its trees are dead, unless it is stuck.
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

// initGrace is how long the inits of a dead runner get to kill their trees and
// exit. It takes them milliseconds.
const initGrace = 3 * time.Second

// sweepLost kills and reaps what a dead runner left. All of it is in other
// sessions than ours, since the runner was started in one of its own and a
// process cannot enter another's.
//
// The inits come last, and by themselves if they can: each is killing its tree
// at this moment, and would leave it to nobody if it were killed first and
// this process then died too.
func (r *Runner) sweepLost(l *link) {
	self := os.Getpid()
	session, err := unix.Getsid(0)
	if err != nil {
		return
	}
	r.mu.Lock()
	inits := make(map[int]bool, len(l.inits))
	for _, c := range l.inits {
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
