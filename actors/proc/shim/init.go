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

// Descriptors of an init. The command gets none of them.
const (
	initEvents   = 3 // socket to trouped
	initRequests = 4 // socket from trouped
	initLifeline = 5 // read end of a pipe that the runner holds: its end means that the runner is gone
	initLeaf     = 6 // directory of its cgroup, if it has one
)

// initArg is the argv word that makes troupe-runner an init.
const initArg = "init"

// initEnv is an init's environment. It holds a few hundred kilobytes for
// milliseconds to hours, so collecting garbage is only worth it when a very
// large argv was sent. Three is one for each of its threads and a spare, so that
// one that returns from a system call never waits to run. And it need not ask
// its cgroup how many CPUs it has.
var initEnv = []string{"GOGC=off", "GOMEMLIMIT=24MiB", "GOMAXPROCS=3", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// monitorSlack is how late an init's timers may be, in nanoseconds. It is there
// for the runtime's monitor thread, which starts before any code of ours and
// sleeps for 20 µs at a time while the init is at work: every time it woke it
// took the CPU from the command. Nothing in an init is timed more exactly than
// to a millisecond.
const monitorSlack = 1_000_000

// initProcess owns the tree of one command at a time. Two threads work in it:
// the main one takes requests, starts the command and waits for both the next
// request and the command's end; the reaper waits for children, whichever they
// are. A command that lives for a moment, leaves nothing behind and is asked
// for nothing needs the main thread only: to wake the reaper for it would cost
// thread switches on the CPU that the command could run on. In every other
// case the main thread hands over to the reaper first.
type initProcess struct {
	in   *frame.Receiver
	leaf *leaf
	wake chan struct{} // capacity 1: there is a child to wait for

	// leader is a pidfd of the command while the main thread waits for it, and
	// -1 while the reaper does or there is none. Only the main thread uses it.
	leader int

	// mu is held while children are reaped and while they are signalled, so
	// that a pid that was just read still belongs to the child.
	mu   sync.Mutex
	walk *proctree.Walker
	run  *execution // nil: idle
	mute bool       // trouped or the runner is gone, nobody is to be told
}

// execution is the tree that an init runs.
type execution struct {
	leader int
	exited bool // the leader is reaped, and trouped was told
	usage  unix.Rusage
	killed map[proctree.ProcID]string // what was killed after the leader had exited
	shot   bool                       // this init sent it a SIGKILL
	oom    bool
	dead   chan struct{} // closed when nothing of it is left
}

// initMain is the life of an init. slack is the timer slack that the command
// is to have. It returns the exit code.
func initMain(slack int) int {
	// First of all: no tracing, no reading of memory, environment or
	// descriptors by processes of the same user, which commands are.
	if unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) != nil {
		return 1
	}
	// The command's parent-death signal is bound to the thread that forks it.
	runtime.LockOSThread()
	setTimerSlack(slack) // of the thread that forks the command
	closeOnExec()
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil || traced() {
		return 1
	}
	setName("troupe-init")
	resetSignals()

	p := &initProcess{
		in:     frame.NewReceiver(frame.RecvBlocking(initRequests)),
		leaf:   inheritedLeaf(initLeaf),
		wake:   make(chan struct{}, 1),
		leader: -1,
		walk:   proctree.NewWalker(os.Getpid(), nil),
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
	p.end()
	return 0
}

// resetSignals undoes what this process inherited and would hand down:
// ignored signals and blocked ones. It also keeps a command's "kill -TERM -1"
// from ending its own init.
func resetSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM)
	defaultIgnored()
	// The runtime handles SIGCHLD, so the death of a command would interrupt
	// the main thread for nothing. By default nobody is interrupted.
	setDefault(unix.SIGCHLD)
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil) // fails for a bad argument only
}

// aloneFor is how long the main thread waits for a command by itself.
// Afterwards the reaper does, so that what dies meanwhile without being the
// command does not stay a zombie, which counts against limits on processes.
const aloneFor = 100 * time.Millisecond

// waitRequest waits for trouped's next frame, and for the command if the
// reaper does not. It is false when the runner is gone; when trouped is, the
// read that follows says so.
func (p *initProcess) waitRequest() bool {
	for !p.in.Buffered() {
		fds := [...]unix.PollFd{
			{Fd: initRequests, Events: unix.POLLIN},
			{Fd: initLifeline},
			{Fd: int32(p.leader), Events: unix.POLLIN}, // poll skips -1
		}
		timeout := -1
		if p.leader >= 0 {
			timeout = int(aloneFor.Milliseconds())
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
	more := p.reaped(p.run.leader, nil)
	p.mu.Unlock()
	if more {
		p.handOver()
		return
	}
	p.forgetLeader()
}

// handOver leaves the waiting for children to the reaper, if it is not its
// already. It comes before everything that needs somebody to reap meanwhile,
// such as a kill.
func (p *initProcess) handOver() {
	if p.leader >= 0 {
		p.forgetLeader()
		p.wake <- struct{}{}
	}
}

func (p *initProcess) forgetLeader() {
	unix.Close(p.leader)
	p.leader = -1
}

func (p *initProcess) handle(k frame.Kind, body []byte) {
	if k == frame.KindStart {
		p.start(body)
		return
	}
	p.handOver()
	// A request for a tree that has just died is for nobody: trouped starts the
	// next one only after it has read Dead, so it cannot be meant.
	p.mu.Lock()
	x := p.run
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

// end kills the tree, if there is one, because trouped or the runner is gone.
func (p *initProcess) end() {
	p.handOver()
	p.mu.Lock()
	p.mute = true
	x := p.run
	p.mu.Unlock()
	if x != nil {
		p.kill(x)
	}
}

func (p *initProcess) tell(frames ...[]byte) {
	if p.mute {
		return
	}
	all := frames[0]
	for _, f := range frames[1:] {
		all = append(all, f...)
	}
	// An error means that trouped is gone, which the main thread hears too.
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
		p.tell(refused.Encode(), p.deadFrame(&execution{}))
		return
	}
	if p.leaf != nil {
		p.leaf.begin(req.MaxMemory)
	}
	// The lock keeps the reaper from meeting a child that is not known yet.
	p.mu.Lock()
	pid, pidfd, failed := req.exec(p.leaf)
	frame.CloseAll(req.fds)
	if failed != nil {
		p.tell(failed.Encode(), p.deadFrame(&execution{}))
		p.mu.Unlock()
		return
	}
	x := &execution{leader: pid, dead: make(chan struct{})}
	p.run = x
	watched := req.MaxMemory > 0 && !p.leaf.limitsMemory()
	if watched {
		go p.watchMemory(x, req.MaxMemory)
	}
	p.tell(frame.New(frame.KindStarted).Uint(uint64(pid)).Done())
	p.mu.Unlock()
	if p.leader = pidfd; pidfd < 0 { // a kernel or a sandbox without pidfds
		p.wake <- struct{}{}
	} else if watched { // it may kill
		p.handOver()
	}
}
