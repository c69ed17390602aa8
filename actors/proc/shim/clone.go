//go:build linux

package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Clones: an init starts another one in the domain of its session. CLONE_PARENT makes it a child of
// the runner, like every init. First the side of the init, then that of the runner.

// nextClone reads a request of the runner. It returns false when the runner is gone.
func (p *initProcess) nextClone() (*job, bool) {
	k, body, err := p.control.Next()
	if err != nil {
		return nil, false
	}
	if k != frame.KindClone {
		return nil, true
	}
	req, err := frame.DecodeClone(body)
	if err != nil {
		return nil, false
	}
	fds, err := p.control.Take(req.Descriptors)
	if err != nil {
		return nil, false
	}
	p.mu.Lock()
	busy := p.current != nil
	p.mu.Unlock()
	if busy && p.room.name != req.Workspace {
		frame.CloseAll(fds)
		p.answerClone(&req, 0, errors.New("the init serves another session"))
		return nil, true
	}
	return &job{workspace: req.Workspace, clone: &req, fds: fds}, true
}

// clone starts an init in the domain of this thread, which may have to enter it first: the runner's
// request may overtake trouped's start.
func (p *initProcess) clone(j *job) {
	defer frame.CloseAll(j.fds)
	err := p.enter(j.workspace)
	pid := 0
	if err == nil {
		pid, err = p.forkClone(j.fds)
	}
	p.answerClone(j.clone, pid, err)
}

func (p *initProcess) forkClone(fds []int) (int, error) {
	setTimerSlack(max(p.slack, monitorSlack))
	defer setTimerSlack(p.slack)
	files := []uintptr{0, 1, 2}
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	pid, err := syscall.ForkExec("/proc/self/exe", initArgv(p.slack), &syscall.ProcAttr{
		Env:   initEnv,
		Files: files,
		// Bound to the runner's thread, which is the parent, and for the same reason as in
		// supervisor.fork.
		Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGCONT, Cloneflags: unix.CLONE_PARENT},
	})
	if err != nil {
		return 0, os.NewSyscallError("starting a clone", err)
	}
	return pid, nil
}

func (p *initProcess) answerClone(req *frame.Clone, pid int, err error) {
	answer := frame.New(frame.KindCloned).Uint(req.Request).Uint(uint64(pid))
	if err != nil {
		answer = frame.New(frame.KindCloneFailed).Uint(req.Request).Str(err.Error())
	}
	// An error means that the runner is gone, which the loop notices too.
	_ = frame.SendBlocking(initControl, answer.Done())
}

func initArgv(slack int) []string {
	return []string{"troupe-runner", initArg, strconv.Itoa(slack)}
}

// cloneTimeout is how long an init may take to start a clone, which takes it a millisecond or two.
// It answers later only while it kills or pauses a tree, or waits for a CPU. Until then no sweep can
// begin.
const cloneTimeout = time.Second

// maxCloning is how many clones are made at a time. Each occupies a thread of the runner.
const maxCloning = 16

// clone has an init start another one in its domain, and hands that over to trouped.
func (s *supervisor) clone(req *frame.Clone) {
	s.cloning <- struct{}{}
	defer func() { <-s.cloning }()
	c, ours, err := s.cloneInit(req)
	if err != nil {
		s.send(frame.New(frame.KindCloneFailed).Uint(req.Request).Str(err.Error()).Done())
		return
	}
	s.send(frame.New(frame.KindCloned).Uint(req.Request).Uint(c.id).Uint(uint64(c.pid)).Done(), ours...)
	frame.CloseAll(ours)
}

func (s *supervisor) cloneInit(req *frame.Clone) (*child, []int, error) {
	if s.settings.HideProc {
		return nil, nil, errors.New("/proc is hidden: an init inside of the domain could not find what it must kill")
	}
	parent := s.byID(req.Init)
	if parent == nil {
		return nil, nil, errors.New("the init is dead")
	}
	settings := s.nextSettings()
	settings.Bound = req.Workspace
	socks, err := connect(&settings)
	if err != nil {
		return nil, nil, err
	}
	leaf := s.cgroups.leafOf(req, settings.ID)
	defer leaf.close()
	s.clones.RLock()
	defer s.clones.RUnlock()
	pid, err := parent.askClone(req.Workspace, slices.Concat(socks.theirs, leaf.descriptors()))
	if err != nil {
		socks.close() // one that comes too late reads end-of-file, and exits
		s.cgroups.removeLeaf(settings.ID)
		return nil, nil, err
	}
	frame.CloseAll(socks.theirs)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &child{id: settings.ID, control: socks.control}
	s.register(c, pid)
	return c, socks.ours, nil
}

func (s *supervisor) byID(id uint64) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.inits {
		if c.id == id {
			return c
		}
	}
	return nil
}

// askClone asks the init for a clone with these descriptors, and returns its pid.
func (c *child) askClone(workspace string, fds []int) (int, error) {
	c.cloneMu.Lock()
	defer c.cloneMu.Unlock()
	if c.control < 0 {
		return 0, errors.New("the init is dead")
	}
	if c.answers == nil {
		timeout := unix.NsecToTimeval(int64(cloneTimeout))
		if err := unix.SetsockoptTimeval(c.control, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return 0, os.NewSyscallError("setsockopt", err)
		}
		c.answers = frame.NewReceiver(frame.RecvBlocking(c.control))
	}
	if c.heard != c.asked {
		// It was late. What it answers now is only good for noticing that it is back; until then
		// nothing more is queued for it.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.control), Events: unix.POLLIN}}, 0); n <= 0 || err != nil {
			return 0, errors.New("the init is busy")
		}
		if _, _, err := c.answers.Next(); err != nil {
			return 0, err
		}
		c.heard = c.asked
	}
	c.asked++
	ask := frame.Clone{Request: c.asked, Workspace: workspace, Descriptors: len(fds)}
	if err := frame.SendBlocking(c.control, ask.Encode(), fds...); err != nil {
		return 0, err
	}
	k, body, err := c.answers.Next()
	if err != nil {
		return 0, fmt.Errorf("the init does not answer: %w", err)
	}
	c.heard = c.asked
	d := frame.NewDecoder(body)
	d.Uint() // the number of the request: only one is open at a time
	if k == frame.KindCloned {
		return int(d.Uint()), d.Err()
	}
	return 0, errors.New(d.Str())
}

// hangUp closes the socket to a dead init. Nobody waits for its answer: the other end is closed.
func (c *child) hangUp() {
	c.cloneMu.Lock()
	defer c.cloneMu.Unlock()
	unix.Close(c.control)
	c.control = -1
}
