package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartPause is between the end of a service and its next start: long enough
// not to burn a core on one that cannot start, short enough for a test that
// kills one and waits for it.
const restartPause = 500 * time.Millisecond

// children starts and reaps processes. As the first process of its namespace
// an init inherits orphans (every containerd-shim is one) and has to reap them
// too, so one loop waits for all and exec.Cmd cannot be used: its Wait would lose
// the race.
type children struct {
	mu    sync.Mutex
	waits map[int]chan unix.WaitStatus
}

// reap starts the loop.
func (c *children) reap() {
	c.waits = make(map[int]chan unix.WaitStatus)
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			c.reapDead()
		}
	}()
}

func (c *children) reapDead() {
	for {
		// Under the lock, so that a child which dies before spawn has entered it
		// in the map is not taken for an orphan.
		c.mu.Lock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		wait := c.waits[pid]
		delete(c.waits, pid)
		c.mu.Unlock()
		if wait != nil {
			wait <- status
		}
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 {
			return
		}
	}
}

// spawn starts a program with its output in a log file. The channel gets its
// status once.
func (c *children) spawn(log string, argv ...string) (<-chan unix.WaitStatus, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	done := make(chan unix.WaitStatus, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	c.waits[pid] = done
	return done, nil
}

// command runs a program to its end.
func (c *children) command(log string, argv ...string) error {
	done, err := c.spawn(log, argv...)
	if err != nil {
		return err
	}
	if status := <-done; status != 0 {
		return fmt.Errorf("%s ended with %s; see %s", strings.Join(argv, " "), describe(status), log)
	}
	return nil
}

// serve keeps a program running for as long as the node runs.
func (c *children) serve(log string, argv ...string) error {
	done, err := c.spawn(log, argv...)
	if err != nil {
		return err
	}
	go func() {
		for {
			if done != nil {
				c.note(log, "%s ended with %s, starting it again", argv[0], describe(<-done))
			}
			time.Sleep(restartPause)
			if done, err = c.spawn(log, argv...); err != nil {
				c.note(log, "%v", err)
			}
		}
	}()
	return nil
}

func (c *children) note(log, format string, args ...any) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "*** "+format+"\n", args...)
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}
