//go:build linux

package shim

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// Descriptors of an init. The command inherits none of them.
const (
	initEvents   = 3 // socket to trouped
	initRequests = 4 // socket from trouped
	initLifeline = 5 // read end of a pipe that the runner holds; end-of-file means that the runner is gone
	initCgroup   = 6 // directory of its cgroup, if it has one
)

// initArg is the argv word that makes troupe-runner an init.
const initArg = "init"

// initEnv is an init's environment. An init holds a few hundred kilobytes for milliseconds to
// hours, so garbage collection only pays after a very large argv was sent. GOMAXPROCS is one for
// each of its threads and a spare, so that a thread that returns from a system call never waits to
// run. GODEBUG spares it reading the CPU limits of its cgroup (Go 1.25 and later).
var initEnv = []string{
	"GOGC=off", "GOMEMLIMIT=24MiB", "GOMAXPROCS=3", "GODEBUG=containermaxprocs=0,updatemaxprocs=0",
}

// monitorSlack is how late an init's timers may be, in nanoseconds. It quietens the Go runtime's
// monitor thread (sysmon), which starts before any code of ours and sleeps for 20 µs at a time
// while the init works; each time it woke up, it took the CPU from the command. An init times
// nothing more exactly than to a millisecond.
const monitorSlack = 1_000_000

// initProcess owns the tree of one command at a time.
//
// Two threads work in it. The main thread takes requests, starts the command and waits for both the
// next request and the command's end. The reaper waits for any child. A command that lives for a
// moment, leaves nothing behind and receives no request needs the main thread only: waking the
// reaper would cost thread switches on a CPU that the command could use. In every other case the
// main thread hands over to the reaper first.
type initProcess struct {
	in     *frame.Receiver
	cgroup *cgroup
	wake   chan struct{} // capacity 1: there is a child to wait for

	// leaderPidfd is a pidfd of the command while the main thread waits for it. It is -1 while the
	// reaper waits or nothing runs. Only the main thread uses it.
	leaderPidfd int

	// mu is held while children are reaped and while they are signalled, so that a pid that was
	// just read still belongs to the child.
	mu      sync.Mutex
	walk    *proctree.Walker
	current *execution // nil: idle
	silent  bool       // trouped or the runner is gone: send nothing
}

// execution is the tree that an init runs.
type execution struct {
	pid             int  // of the command, the leader of the tree
	exited          bool // the command is reaped, and trouped was told
	usage           unix.Rusage
	survivorsKilled map[proctree.ProcID]string // killed after the command had exited
	killedByUs      bool                       // this init sent the command a SIGKILL
	oom             bool
	watch           *watch        // nil: nothing to watch
	exceeded        frame.Bound   // this init killed the tree for it
	dead            chan struct{} // closed when nothing of the tree is left
}

// initMain runs an init and returns its exit code. slack is the timer slack for the command.
func initMain(slack int) int {
	// First of all, keep processes of the same user, such as commands, from tracing this process
	// and from reading its memory, environment and descriptors.
	// https://man7.org/linux/man-pages/man2/pr_set_dumpable.2const.html
	if unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) != nil {
		return 1
	}
	// The command's parent-death signal is bound to the thread that forks it
	// (golang.org/issue/27505).
	runtime.LockOSThread()
	setTimerSlack(slack) // the command inherits it from the thread that forks it
	closeOnExec()
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil || traced() {
		return 1
	}
	setName("troupe-init")
	resetSignals()

	p := &initProcess{
		in:          frame.NewReceiver(frame.RecvBlocking(initRequests)),
		cgroup:      inheritedCgroup(initCgroup),
		wake:        make(chan struct{}, 1),
		leaderPidfd: -1,
		walk:        proctree.NewWalker(os.Getpid(), nil),
	}
	go p.reap()
	if frame.SendBlocking(initEvents, frame.New(frame.KindReady).Done()) != nil {
		return 1
	}
	for p.waitRequest() {
		k, body, err := p.in.Next()
		if err != nil {
			break
		}
		p.handle(k, body)
	}
	p.shutdown()
	return 0
}

// resetSignals resets the ignored and blocked signals that this process inherited and would pass
// on. It also keeps a command's "kill -TERM -1" from ending its own init.
func resetSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM)
	defaultIgnored()
	// The Go runtime handles SIGCHLD, so the death of a command would interrupt the main thread for
	// nothing. The default action interrupts no thread.
	setDefault(unix.SIGCHLD)
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil) // fails only for a bad argument
}

// handOverAfter is how long the main thread waits for the command by itself. After that the reaper
// waits, so that other children that die do not stay zombies, which count against process limits.
const handOverAfter = 100 * time.Millisecond

// handOverAfter returns that in milliseconds, or less if the tree is to be measured.
func (p *initProcess) handOverAfter() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && p.current.watch != nil {
		return int(samplePeriod.Milliseconds())
	}
	return int(handOverAfter.Milliseconds())
}

// waitRequest waits for trouped's next frame, and for the command if the reaper does not. It
// returns false when the runner is gone. When trouped is gone, it returns true and the next read
// fails.
func (p *initProcess) waitRequest() bool {
	for !p.in.Buffered() {
		fds := [...]unix.PollFd{
			{Fd: initRequests, Events: unix.POLLIN},
			{Fd: initLifeline},
			{Fd: int32(p.leaderPidfd), Events: unix.POLLIN}, // poll skips -1
		}
		timeout := -1
		if p.leaderPidfd >= 0 {
			timeout = p.handOverAfter()
		}
		n, err := unix.Poll(fds[:], timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return false
		case n == 0:
			p.handOver()
		case fds[2].Revents != 0:
			p.leaderDied()
		}
		if fds[1].Revents != 0 {
			return false
		}
		if fds[0].Revents != 0 {
			return true
		}
	}
	return true
}

// leaderDied reaps the command on the main thread.
func (p *initProcess) leaderDied() {
	p.mu.Lock()
	more := p.reaped(p.current.pid, nil)
	p.mu.Unlock()
	if more {
		p.handOver()
		return
	}
	p.closeLeader()
}

// handOver makes the reaper wait for children, if it does not already. It must come before
// everything that needs children to be reaped meanwhile, such as a kill.
func (p *initProcess) handOver() {
	if p.leaderPidfd >= 0 {
		p.closeLeader()
		p.reapFromNowOn()
	}
}

// reapFromNowOn makes the reaper wait for children, and begins to measure the tree. A command that
// ends before is not measured.
func (p *initProcess) reapFromNowOn() {
	p.mu.Lock()
	x := p.current
	p.mu.Unlock()
	if x != nil && x.watch != nil {
		go p.watchTree(x)
	}
	p.wake <- struct{}{}
}

func (p *initProcess) closeLeader() {
	unix.Close(p.leaderPidfd)
	p.leaderPidfd = -1
}

func (p *initProcess) handle(k frame.Kind, body []byte) {
	if k == frame.KindStart {
		p.start(body)
		return
	}
	p.handOver()
	// Drop a request for a tree that has just died. It cannot be meant for the next one, which
	// trouped starts only after it has read Dead.
	p.mu.Lock()
	x := p.current
	p.mu.Unlock()
	if x == nil {
		return
	}
	switch k {
	case frame.KindSignal:
		d := frame.NewDecoder(body)
		p.signal(x, unix.Signal(d.Uint()))
	case frame.KindTerminate:
		p.terminate(x)
	case frame.KindPause:
		p.pause(x)
	case frame.KindResume:
		p.resume(x)
	case frame.KindSweep:
		p.sweep(x)
	case frame.KindKill:
		p.kill(x)
	}
}

// shutdown kills the tree, if there is one, because trouped or the runner is gone.
func (p *initProcess) shutdown() {
	p.handOver()
	p.mu.Lock()
	p.silent = true
	x := p.current
	p.mu.Unlock()
	if x != nil {
		p.kill(x)
	}
}

func (p *initProcess) send(frames ...[]byte) {
	if p.silent {
		return
	}
	all := frames[0]
	for _, f := range frames[1:] {
		all = append(all, f...)
	}
	// An error means that trouped is gone, which the main thread notices too.
	_ = frame.SendBlocking(initEvents, all)
}

// start runs the command, and answers Started, or StartFailed and Dead.
func (p *initProcess) start(body []byte) {
	start, err := frame.DecodeStart(body)
	req := command{Start: start}
	if err == nil {
		req.fds, err = p.in.Take(start.Descriptors())
	}
	if err != nil {
		refused := frame.StartFailed{Message: err.Error(), Errno: unix.EINVAL}
		p.send(refused.Encode(), p.deadFrame(&execution{}))
		return
	}
	if p.cgroup != nil {
		p.cgroup.prepare(req.MaxMemory)
	}
	// The lock keeps the reaper from seeing the child before it is registered.
	p.mu.Lock()
	pid, pidfd, failed := req.exec(p.cgroup)
	frame.CloseAll(req.fds)
	if failed != nil {
		p.send(failed.Encode(), p.deadFrame(&execution{}))
		p.mu.Unlock()
		return
	}
	x := &execution{pid: pid, dead: make(chan struct{}), watch: newWatch(start, p.cgroup.limitsMemory())}
	p.current = x
	p.send(frame.New(frame.KindStarted).Uint(uint64(pid)).Done())
	p.mu.Unlock()
	if p.leaderPidfd = pidfd; pidfd < 0 { // a kernel before 5.2 or a sandbox without pidfds
		p.reapFromNowOn()
	}
}
