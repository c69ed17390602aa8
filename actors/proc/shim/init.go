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
	initControl  = 5 // socket to the runner; end-of-file means that the runner is gone
	initCgroup   = 6 // where it makes its cgroup, or of a clone its cgroup and the files of that; if it has one
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
// Three threads work in it. The loop takes requests, starts the command and waits for both the next
// request and the command's end. The reaper waits for any child. A command that lives for a moment,
// leaves nothing behind and receives no request needs the loop only: waking the reaper would cost
// thread switches on a CPU that the command could use. In every other case the loop hands over to
// the reaper first.
//
// The loop's thread, which forks the commands, is in the domain of their session. For another
// session the loop moves to a fresh thread, see bind.go. The main thread is in no domain. It does
// what a domain could deny: it reads /proc.
type initProcess struct {
	in      *frame.Receiver
	control *frame.Receiver
	cgroup  *cgroup
	slack   int           // timer slack for the command, in nanoseconds
	wake    chan struct{} // capacity 1: there is a child to wait for
	onMain  chan func()   // what the main thread does next; nil ends the init

	// leaderPidfd is a pidfd of the command while the loop waits for it. It is -1 while the reaper
	// waits or nothing runs. Only the loop uses it.
	leaderPidfd int

	asked bool // the runner asks for something; the loop's
	room  room

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
	terminal        bool                       // it has one
	oom             bool
	filesBounded    bool          // the kernel keeps its files below a size
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
	closeOnExec()
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil || traced() {
		return 1
	}
	setName("troupe-init")
	resetSignals()

	p := &initProcess{
		in:          frame.NewReceiver(frame.RecvBlocking(initRequests)),
		control:     frame.NewReceiver(frame.RecvBlocking(initControl)),
		slack:       slack,
		wake:        make(chan struct{}, 1),
		onMain:      make(chan func(), 4),
		leaderPidfd: -1,
		walk:        proctree.NewWalker(os.Getpid(), nil),
	}
	if p.furnish() != nil {
		return 1
	}
	p.cgroup = inheritedCgroup(initCgroup, &p.room.Settings)
	go p.reap()
	go p.loop(nil)
	if frame.SendBlocking(initEvents, frame.New(frame.KindReady).Done()) != nil {
		return 1
	}
	p.mu.Lock()
	p.refurnish()
	p.mu.Unlock()
	for f := range p.onMain {
		if f == nil {
			break
		}
		f()
	}
	return 0
}

// await has the main thread do something, and waits until it is done.
func (p *initProcess) await(f func()) {
	done := make(chan struct{})
	p.onMain <- func() { f(); close(done) }
	<-done
}

// loop takes requests until trouped or the runner is gone, or until one is for a session that this
// thread cannot serve: another loop then begins with that.
func (p *initProcess) loop(first *job) {
	// Never unlocked, so that the thread ends with the loop. The command's parent-death signal is
	// bound to the thread that forks it (golang.org/issue/27505); nothing of a command lives when
	// the loop moves.
	runtime.LockOSThread()
	setTimerSlack(p.slack) // the command inherits it from the thread that forks it
	unblockSignals()
	if first != nil {
		p.do(first)
	}
	for {
		j, ok := p.next()
		switch {
		case !ok:
			p.handOver()
			p.await(p.shutdown)
			p.onMain <- nil
			return
		case j == nil:
		case !p.room.fits(j.workspace):
			p.room.leave()
			go p.loop(j)
			return
		default:
			p.do(j)
		}
	}
}

// job is a request that must run in the domain of a session.
type job struct {
	workspace string
	start     *command
	clone     *frame.Clone
	fds       []int // of the clone
}

func (p *initProcess) do(j *job) {
	if j.start != nil {
		p.start(j.start)
	} else {
		p.clone(j)
	}
}

// next carries out requests until one must run in a domain. It returns false when trouped or the
// runner is gone.
func (p *initProcess) next() (*job, bool) {
	if !p.waitRequest() {
		return nil, false
	}
	if !p.in.Buffered() && p.asked {
		return p.nextClone()
	}
	k, body, err := p.in.Next()
	switch {
	case err != nil:
		return nil, false
	case k == frame.KindStart:
		return p.decodeStart(body), true
	}
	p.handOver()
	p.await(func() { p.handle(k, body) })
	return nil, true
}

// resetSignals resets the ignored and blocked signals that this process inherited and would pass
// on. It also keeps a command's "kill -TERM -1" from ending its own init.
func resetSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM)
	defaultIgnored()
	// The Go runtime handles SIGCHLD, so the death of a command would interrupt the loop for
	// nothing. The default action interrupts no thread.
	setDefault(unix.SIGCHLD)
	unblockSignals()
}

// unblockSignals unblocks all signals on the calling thread, from which the processes that it forks
// inherit the mask.
func unblockSignals() {
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil) // fails only for a bad argument
}

// handOverAfter is how long the loop waits for the command by itself. After that the reaper
// waits, so that other children that die do not stay zombies, which count against process limits.
const handOverAfter = 100 * time.Millisecond

// patience is handOverAfter in milliseconds, or less if the tree is to be measured.
func (p *initProcess) patience() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && p.current.watch != nil {
		return int(samplePeriod.Milliseconds())
	}
	return int(handOverAfter.Milliseconds())
}

// waitRequest waits for a frame of trouped or of the runner, which sets asked, and for the command
// if the reaper does not wait for it. It returns false on an error. When one of them is gone, it
// returns true and the next read fails.
func (p *initProcess) waitRequest() bool {
	p.asked = false
	for !p.in.Buffered() {
		fds := [...]unix.PollFd{
			{Fd: initRequests, Events: unix.POLLIN},
			{Fd: initControl, Events: unix.POLLIN},
			{Fd: int32(p.leaderPidfd), Events: unix.POLLIN}, // poll skips -1
		}
		timeout := -1
		if p.leaderPidfd >= 0 {
			timeout = p.patience()
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
		if p.asked = fds[1].Revents != 0; p.asked || fds[0].Revents != 0 {
			return true
		}
	}
	return true
}

// leaderDied reaps the command in the loop.
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

// handle carries out a request for the tree, on the main thread.
func (p *initProcess) handle(k frame.Kind, body []byte) {
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

// decodeStart returns what the body of a start asks for, or refuses it and returns nil.
func (p *initProcess) decodeStart(body []byte) *job {
	start, err := frame.DecodeStart(body)
	if err != nil {
		p.refuse(&frame.StartFailed{Message: err.Error(), Errno: unix.EINVAL})
		return nil
	}
	fds, err := p.in.Take(start.Descriptors())
	if err != nil {
		p.refuse(&frame.StartFailed{Message: err.Error(), Errno: unix.EINVAL})
		return nil
	}
	return &job{workspace: start.Workspace, start: &command{Start: start, files: p.room.Files, fds: fds}}
}

// refuse answers StartFailed and Dead.
func (p *initProcess) refuse(why *frame.StartFailed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send(why.Encode(), p.deadFrame(&execution{}))
	p.refurnish()
}

// start runs the command, and answers Started, or StartFailed and Dead.
func (p *initProcess) start(req *command) {
	defer frame.CloseAll(req.fds)
	if err := p.enter(req.Workspace); err != nil {
		p.refuse(&frame.StartFailed{Message: err.Error(), Errno: unix.EACCES})
		return
	}
	p.room.welcome(req.Start)
	if req.Script && p.room.hidesEnvironments() {
		req.hideScript()
	}
	if size := req.Session.Disk; size > 0 {
		if err := limitFiles(size); err != nil {
			p.refuse(&frame.StartFailed{Message: "limiting the size of files: " + err.Error(), Errno: unix.EPERM})
			return
		}
	}
	p.enterCgroup(req.Start)
	// The lock keeps the reaper from seeing the child before it is registered.
	p.mu.Lock()
	pid, pidfd, failed := p.exec(req)
	if failed != nil {
		p.mu.Unlock()
		p.refuse(failed)
		return
	}
	x := &execution{
		pid: pid, dead: make(chan struct{}), watch: newWatch(req.Start, p.cgroup.limitsMemory()),
		filesBounded: req.Session.Disk > 0, terminal: req.Terminal,
	}
	p.current = x
	p.send(frame.New(frame.KindStarted).Uint(uint64(pid)).Done())
	p.mu.Unlock()
	if req.Full {
		p.await(func() { forbidFiles(pid) })
	}
	if p.leaderPidfd = pidfd; pidfd < 0 { // a kernel before 5.2 or a sandbox without pidfds
		p.reapFromNowOn()
	} else if p.room.HideProc { // survivors are looked up there, which the loop's thread cannot
		p.handOver()
	}
}
