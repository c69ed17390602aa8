//go:build linux

package shim

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// supervisor is the runner process: it makes inits, hands trouped the other
// end of each one's socket, and stays their parent. What shows up among its
// children without being an init has lost its init, and is killed.
type supervisor struct {
	sock     int    // control connection to trouped, blocking
	exe      string // what to execute as an init
	devNull  int
	lifeline [2]int // inits hold the read end; nobody writes
	cgroups  *hierarchy
	memory   *memoryEvents
	confined bool // see there
	sendMu   sync.Mutex

	// mu is held while inits are forked and children are reaped or signalled.
	mu     sync.Mutex
	inits  map[int]*child // by pid
	forked *sync.Cond     // there is a child to wait for
	nextID uint64
	walk   *proctree.Walker
}

// child is an init, seen from the runner.
type child struct {
	id   uint64
	pid  int
	leaf string // name of its cgroup; "": none
}

// serve runs a runner on a connected socket until that closes. Everything it
// started is dead and reaped when it returns; as first process of a PID
// namespace, when it exits. pidfd, unless it is -1, is a pidfd of this process
// for trouped, which is in another namespace and cannot make one.
func serve(sock, pidfd int, version, cgroup string) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	resetSignals()
	s := &supervisor{sock: sock, inits: make(map[int]*child), memory: findMemoryEvents()}
	s.forked = sync.NewCond(&s.mu)
	s.confined = confined()
	s.walk = proctree.NewWalker(os.Getpid(), s.isNotLost)
	var err error
	if s.exe, err = initExecutable(); err != nil {
		return err
	}
	if s.devNull, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("open /dev/null", err)
	}
	if err := unix.Pipe2(s.lifeline[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	s.cgroups, err = openHierarchy(cgroup)
	if err != nil {
		return err
	}
	kills := s.hello(pidfd, version)
	go s.reap()
	go s.watchKills(kills, nil)
	s.listen()
	if os.Getpid() == 1 {
		return nil // the kernel ends the rest, and lets nothing be forked meanwhile
	}
	s.end()
	s.cgroups.remove()
	return nil
}

// hello is the first thing that is said to trouped.
// It returns how many processes the kernel had killed for memory by then.
func (s *supervisor) hello(pidfd int, version string) (kills uint64) {
	kills = s.memory.kills()
	hello := frame.Hello{
		Version: version, PID: os.Getpid(), Containment: s.cgroups.containment(), Cgroup: s.cgroups.path(),
		OOMKills: kills, HasPidfd: pidfd >= 0,
	}
	f := hello.Encode()
	if pidfd < 0 {
		s.tell(f)
		return kills
	}
	s.tell(f, pidfd)
	unix.Close(pidfd)
	return kills
}

// isNotLost says which children are left alone: inits, and what cannot come
// from one. The latter are orphans of another user's processes in the namespace,
// such as a debugging container's, which no signal of ours would reach.
func (s *supervisor) isNotLost(p *proctree.Stat) bool {
	return s.inits[p.PID] != nil || s.confined && unix.Kill(p.PID, 0) == unix.EPERM
}

// confined reports whether nothing that descends from this process can become
// another user's.
func confined() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && set == 1 && unix.Geteuid() != 0
}

func (s *supervisor) tell(b []byte, fds ...int) {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	// An error means that trouped is gone, which listen hears too.
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
		case frame.KindForce:
			s.force(d.Uint())
		}
	}
}

// startInit forks one init and hands it over. It runs on the main thread,
// whose death is the inits' parent-death signal.
func (s *supervisor) startInit() {
	c, ours, err := s.fork()
	if err == nil {
		s.tell(frame.New(frame.KindInit).Uint(c.id).Uint(uint64(c.pid)).Done(), ours...)
		frame.CloseAll(ours)
		return
	}
	s.tell(frame.New(frame.KindInitFailed).Str(err.Error()).Done())
}

// fork starts an init and returns trouped's ends of its sockets.
func (s *supervisor) fork() (_ *child, ours []int, err error) {
	var theirs []int
	defer func() {
		frame.CloseAll(theirs)
		if err != nil {
			frame.CloseAll(ours)
		}
	}()
	for range 2 { // events, requests
		our, their, err := frame.Socketpair()
		if err != nil {
			return nil, ours, err
		}
		ours, theirs = append(ours, our), append(theirs, their)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	c := &child{id: s.nextID}
	files := []uintptr{
		uintptr(s.devNull), uintptr(s.devNull), 2,
		uintptr(theirs[0]), uintptr(theirs[1]), uintptr(s.lifeline[0]),
	}
	if dir, name, ok := s.cgroups.newLeaf(c.id); ok {
		defer unix.Close(dir)
		files, c.leaf = append(files, uintptr(dir)), name
	}
	slack := timerSlack()
	setTimerSlack(max(slack, monitorSlack))
	pid, err := syscall.ForkExec(s.exe, []string{"troupe-runner", initArg, strconv.Itoa(slack)}, &syscall.ProcAttr{
		Env:   initEnv,
		Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			// Not a kill: an init that learns of the runner's death by its
			// lifeline kills its tree first. But one that was stopped must run
			// to learn it.
			Pdeathsig: unix.SIGCONT,
		},
	})
	setTimerSlack(slack)
	if err != nil {
		s.cgroups.removeLeaf(c.leaf)
		return nil, ours, fmt.Errorf("starting an init: %w", err)
	}
	c.pid = pid
	s.inits[pid] = c
	s.forked.Broadcast()
	return c, ours, nil
}

// force kills an init that does not answer; reap does the rest.
func (s *supervisor) force(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, c := range s.inits {
		if c.id == id {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// reap waits for children for as long as the runner lives.
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
	s.mu.Lock()
	c := s.inits[pid]
	if info.Code == proctree.CLDStopped {
		// A command may stop its init to escape being killed.
		if proctree.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOHANG, nil) == nil {
			unix.Kill(pid, unix.SIGCONT)
		}
		s.mu.Unlock()
		return
	}
	err := proctree.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
	if c == nil || err != nil {
		s.mu.Unlock()
		return // an orphan, now reaped; or a failed fork that was reaped where it failed
	}
	delete(s.inits, pid)
	s.mu.Unlock()

	escaped := s.sweep()
	s.cgroups.removeLeaf(c.leaf)
	s.tell(frame.New(frame.KindSwept).Uint(c.id).Uint(uint64(escaped)).Done())
}

// sweep kills and reaps everything below the runner that is not an init or
// below one, and returns how many processes that were. It is called by the
// reaper only, so nothing else reaps meanwhile.
func (s *supervisor) sweep() int {
	seen := make(map[proctree.ProcID]string)
	s.walk.KillAll(s.mu.Lock, s.mu.Unlock, s.walk.ReapOrphans, time.Sleep, seen)
	return len(seen)
}

// end kills everything.
func (s *supervisor) end() {
	unix.Close(s.lifeline[1])
	deadline := time.Now().Add(frame.ShutdownGrace)
	for {
		s.mu.Lock()
		left := len(s.inits)
		if time.Now().After(deadline) {
			for pid := range s.inits {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		s.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.sweep()
}
