//go:build linux

package shim

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// supervisor is the runner process. It makes inits, hands trouped the other ends of their sockets,
// and remains their parent. Any other child has lost its init, and is killed.
type supervisor struct {
	sock       int    // control connection to trouped, blocking
	exe        string // the file to execute as an init
	devNull    int
	settings   frame.Settings
	workspaces *workspaces
	cgroups    *cgroupManager
	oom        *oomCounter
	confined   bool // see the function confined
	limits     *rlimits
	disks      *disks

	// clones is held for reading while an init forks a clone that is not in inits yet, and for
	// writing by whoever would take one for an orphan. It is taken before mu.
	clones  sync.RWMutex
	cloning chan struct{} // capacity: how many clones are made at a time

	sendMu sync.Mutex

	// mu is held while inits are forked and children are reaped or signalled.
	mu     sync.Mutex
	inits  map[int]*child // by pid
	forked *sync.Cond     // there is a child to wait for
	nextID uint64
	walk   *proctree.Walker
}

// child is an init as the runner sees it.
type child struct {
	id  uint64
	pid int

	// cloneMu is held while the init is asked for a clone, and before control is closed.
	cloneMu sync.Mutex
	control int // socket to it, blocking; -1: closed
	answers *frame.Receiver
	asked   uint64 // clones that it was asked for
	heard   uint64 // and those that it has answered
}

// serve is the runner: it serves a connected socket until that closes. When it returns, everything
// that it started is dead and reaped; if it is the first process of a PID namespace, that holds
// when it exits. pidfd, unless it is -1, is a pidfd of this process for trouped, which is in
// another PID namespace and cannot make one.
func serve(sock, pidfd int, version, cgroup string, isolation *isolation) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	resetSignals()
	s := &supervisor{sock: sock, inits: make(map[int]*child), oom: findOOMCounter(), limits: ownLimits()}
	s.disks = newDisks()
	s.cloning = make(chan struct{}, maxCloning)
	s.forked = sync.NewCond(&s.mu)
	s.confined = confined()
	s.walk = proctree.NewWalker(os.Getpid(), s.leaveAlone)
	var err error
	if s.exe, err = initExecutable(); err != nil {
		return err
	}
	if s.devNull, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("open /dev/null", err)
	}
	why, err := s.isolate(isolation)
	if err != nil {
		return err
	}
	s.cgroups, err = openCgroupManager(cgroup)
	if err != nil {
		return err
	}
	kills := s.hello(pidfd, version, why)
	go s.reap()
	go s.measureDisks()
	go s.reportOOMKills(kills, nil)
	s.listen()
	if os.Getpid() == 1 {
		return nil // the kernel kills the rest and refuses forks meanwhile, see pid_namespaces(7)
	}
	s.shutdown()
	s.workspaces.remove()
	s.cgroups.remove()
	return nil
}

// hello sends the first frame, and returns how many processes the kernel had killed for memory by
// then.
func (s *supervisor) hello(pidfd int, version, why string) (kills uint64) {
	kills = s.oom.kills()
	hello := frame.Hello{
		Version: version, PID: os.Getpid(), Containment: s.cgroups.containment(), Cgroup: s.cgroups.path(),
		OOMKills: kills, HasPidfd: pidfd >= 0,
		Isolation: s.settings.Isolation, IsolationABI: confine.ABI(), IsolationWhy: why,
	}
	f := hello.Encode()
	if pidfd < 0 {
		s.send(f)
		return kills
	}
	s.send(f, pidfd)
	unix.Close(pidfd)
	return kills
}

// leaveAlone reports whether a child is not to be killed: an init, or a process that cannot descend
// from one. The latter is an orphan of another user's process in the namespace, such as a debugging
// container's, which this process may not signal.
func (s *supervisor) leaveAlone(p *proctree.Stat) bool {
	return s.inits[p.PID] != nil || s.confined && unix.Kill(p.PID, 0) == unix.EPERM
}

// confined reports whether no descendant of this process can change its user: without privileges,
// only execve of a set-user-ID program or of one with capabilities could, and no_new_privs forbids
// both.
//
// https://docs.kernel.org/userspace-api/no_new_privs.html
func confined() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && set == 1 && unix.Geteuid() != 0
}

func (s *supervisor) send(b []byte, fds ...int) {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	// An error means that trouped is gone, which listen notices too.
	_ = frame.SendBlocking(s.sock, b, fds...)
}

// listen carries out trouped's requests until the connection closes.
func (s *supervisor) listen() {
	in := frame.NewReceiver(frame.RecvBlocking(s.sock))
	for {
		k, body, err := in.Next()
		if err != nil {
			return
		}
		d := frame.NewDecoder(body)
		switch k {
		case frame.KindWant:
			for range d.Uint() {
				s.startInit()
			}
		case frame.KindForceKill:
			s.forceKill(d.Uint())
		case frame.KindForget:
			name := d.Str()
			s.workspaces.forget(name)
			s.cgroups.forget(name)
		case frame.KindMeasure:
			if name, limit := d.Str(), d.Int(); frame.WorkspaceName(name) {
				s.disks.want(name, limit)
			}
		case frame.KindClone:
			if req, err := frame.DecodeClone(body); err == nil {
				go s.clone(&req)
			}
		}
	}
}

// startInit forks one init and hands it over to trouped. It runs on the main thread, since the
// death of the thread that forks sends the inits their parent-death signal.
func (s *supervisor) startInit() {
	s.holdLimits()
	c, ours, err := s.fork()
	if err == nil {
		s.send(frame.New(frame.KindInit).Uint(c.id).Uint(uint64(c.pid)).Done(), ours...)
		frame.CloseAll(ours)
		return
	}
	s.send(frame.New(frame.KindInitFailed).Str(err.Error()).Done())
}

// nextSettings are those of another init.
func (s *supervisor) nextSettings() frame.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	settings := s.settings
	settings.ID = s.nextID
	return settings
}

// sockets are the ends of the pairs that connect an init.
type sockets struct {
	ours    []int // trouped's: events, requests
	theirs  []int // the init's: events, requests, control
	control int   // the runner's
}

// connect makes the sockets of an init, with the settings already sent.
func connect(settings *frame.Settings) (_ *sockets, err error) {
	c := &sockets{control: -1}
	for i := range 3 {
		our, their, err := frame.Socketpair()
		if err != nil {
			c.close()
			return nil, err
		}
		c.theirs = append(c.theirs, their)
		if i < 2 {
			c.ours = append(c.ours, our)
		} else {
			c.control = our
		}
	}
	if err := frame.SendBlocking(c.control, settings.Encode()); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *sockets) close() {
	frame.CloseAll(c.ours)
	frame.CloseAll(c.theirs)
	if c.control >= 0 {
		unix.Close(c.control)
	}
}

// fork starts an init and returns trouped's ends of its sockets.
func (s *supervisor) fork() (*child, []int, error) {
	settings := s.nextSettings()
	socks, err := connect(&settings)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &child{id: settings.ID, control: socks.control}
	files := []uintptr{uintptr(s.devNull), uintptr(s.devNull), 2}
	for _, fd := range socks.theirs {
		files = append(files, uintptr(fd))
	}
	if s.cgroups != nil {
		files = append(files, uintptr(s.cgroups.fd))
	}
	slack := timerSlack()
	setTimerSlack(max(slack, monitorSlack))
	pid, err := syscall.ForkExec(s.exe, initArgv(slack), &syscall.ProcAttr{
		Env:   initEnv,
		Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			// SIGCONT, not SIGKILL: an init learns of the runner's death from its control socket
			// and kills its tree. One that a command has stopped must resume for that.
			Pdeathsig: unix.SIGCONT,
		},
	})
	setTimerSlack(slack)
	if err != nil {
		socks.close()
		return nil, nil, fmt.Errorf("starting an init: %w", err)
	}
	frame.CloseAll(socks.theirs)
	s.register(c, pid)
	return c, socks.ours, nil
}

// register must be called with mu held.
func (s *supervisor) register(c *child, pid int) {
	c.pid = pid
	s.inits[pid] = c
	s.forked.Broadcast()
}

// forceKill kills an init that does not answer. reap does the rest.
func (s *supervisor) forceKill(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, c := range s.inits {
		if c.id == id {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// reap waits for children until the runner exits.
func (s *supervisor) reap() {
	for {
		var info proctree.Siginfo
		err := proctree.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		switch err {
		case nil:
			s.reaped(&info)
		case unix.ECHILD:
			s.mu.Lock()
			if _, err := proctree.WaitAny(unix.WEXITED | unix.WNOWAIT | unix.WNOHANG); err == unix.ECHILD {
				s.forked.Wait()
			}
			s.mu.Unlock()
		}
	}
}

// reaped handles one child that died or was stopped.
func (s *supervisor) reaped(info *proctree.Siginfo) {
	pid := int(info.PID)
	if info.Code == proctree.CLDStopped {
		// A command may stop its init to avoid being killed.
		s.mu.Lock()
		defer s.mu.Unlock()
		if proctree.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOHANG, nil) == nil {
			unix.Kill(pid, unix.SIGCONT)
		}
		return
	}
	c, err := s.bury(pid)
	if c == nil || err != nil {
		return // an orphan, now reaped, or a failed fork, which syscall.ForkExec has reaped
	}
	c.hangUp()
	s.holdLimits() // the sweep reads /proc
	escaped := s.sweep()
	s.cgroups.removeLeaf(c.id)
	s.send(frame.New(frame.KindSwept).Uint(c.id).Uint(uint64(escaped)).Done())
}

// bury reaps a dead child, and returns it if it was an init. A child that is not known may be a
// clone that is about to be: it must not be reaped before, or the runner would know a pid that has
// become free.
func (s *supervisor) bury(pid int) (*child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inits[pid] == nil {
		s.mu.Unlock()
		s.clones.Lock()
		defer s.clones.Unlock()
		s.mu.Lock()
	}
	c := s.inits[pid]
	err := proctree.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
	if err == nil {
		delete(s.inits, pid)
	}
	return c, err
}

// sweep kills and reaps everything below the runner that is neither an init nor below one, and
// returns how many processes it killed. Only the reaper calls it, and shutdown when no init is
// left, so nothing else reaps meanwhile.
func (s *supervisor) sweep() int {
	s.clones.Lock()
	defer s.clones.Unlock()
	seen := make(map[proctree.ProcID]string)
	s.walk.KillAll(s.mu.Lock, s.mu.Unlock, s.walk.ReapOrphans, time.Sleep, seen)
	return len(seen)
}

// shutdown kills everything.
func (s *supervisor) shutdown() {
	s.mu.Lock()
	for _, c := range s.inits {
		_ = unix.Shutdown(c.control, unix.SHUT_RDWR) // it reads end-of-file, kills its tree and exits
	}
	s.mu.Unlock()
	s.awaitInits(time.Now().Add(frame.ShutdownGrace))
	s.sweep()
}

// awaitInits returns when every init is dead. Past the deadline it kills them.
func (s *supervisor) awaitInits(deadline time.Time) {
	for {
		s.mu.Lock()
		late := time.Now().After(deadline)
		for pid := range s.inits {
			switch {
			case proctree.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == unix.ECHILD:
				delete(s.inits, pid) // whatever has this pid now, it is none of the runner's
			case late:
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		left := len(s.inits)
		s.mu.Unlock()
		if left == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
