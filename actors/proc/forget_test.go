//go:build linux

package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/troupe-dev/troupe/actors/proc/confine"
)

// Once a command has started, nothing of it is left in trouped, in the runner and in the init but
// trouped's ends of its pipes: no other descriptor, no argument, no variable. Then these go as well.
func TestStartedCommandIsForgotten(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root sees the descriptors of the runner and its inits")
	}
	levels := []string{IsolationNone}
	if confine.Available() == nil {
		levels = append(levels, IsolationSession)
	}
	for _, level := range levels {
		root := t.TempDir()
		r := open(t, func(c *Config) { c.Isolation = Isolation{Level: level, Workspace: root} })
		// The second one runs in a clone, if sessions are separated.
		for i := range 2 {
			t.Run(fmt.Sprintf("%s %d", level, i), func(t *testing.T) {
				c, spec := startSecret(t, r)
				waitEvent[Started](c)
				forgotten(t, r, c, spec)
			})
		}
	}
}

// startSecret starts a command that waits, and returns what holds its arguments and variables.
func startSecret(t *testing.T, r *Runner) (c *command, spec [2]weak.Pointer[string]) {
	marker := newMarker()
	argv := []string{"/bin/bash", "-c", "exec -a " + marker + " sleep 100", "argument-hunter2"}
	env := append(environ(), "SECRET=variable-hunter2")
	spec = [2]weak.Pointer[string]{weak.Make(&argv[0]), weak.Make(&env[0])}
	return runSpec(t, r, marker, Spec{Argv: argv, Env: env, Stdin: true, Workspace: workspace(1)}), spec
}

func forgotten(t *testing.T, r *Runner, c *command, spec [2]weak.Pointer[string]) {
	t.Helper()
	c.tree.mu.Lock()
	holder := c.tree.init.pid
	if c.tree.request != nil || c.tree.remote != nil || c.tree.pending != nil {
		t.Error("the tree keeps its request, or the command's ends of the pipes")
	}
	c.tree.mu.Unlock()
	eventually(t, "the end of the arguments", func() bool {
		runtime.GC()
		return spec[0].Value() == nil && spec[1].Value() == nil
	})
	pid := waitEvent[Started](c).PID
	for fd := range 3 {
		pipe, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil || !strings.HasPrefix(pipe, "pipe:") {
			t.Fatal(pipe, err)
		}
		eventually(t, "the init closes its descriptors", func() bool { return links(holder, pipe) == 0 })
		if n := links(r.Status().PID, pipe); n != 0 {
			t.Errorf("the runner has %d descriptors of the command's %d", n, fd)
		}
		if n := links(os.Getpid(), pipe); n != 1 {
			t.Errorf("trouped has %d descriptors of the command's %d, want its own end", n, fd)
		}
	}
	for _, of := range []int{holder, r.Status().PID} {
		variables, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", of))
		if err != nil || bytes.Contains(variables, []byte("hunter2")) {
			t.Errorf("%q, %v", variables, err)
		}
	}
}

// links counts the descriptors of a process that lead to a file.
func links(pid int, file string) (n int) {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == file {
			n++
		}
	}
	return n
}

// Executions leave no descriptor behind, in none of the processes, however they end.
func TestDescriptorsDoNotGrow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root sees the descriptors of the runner and its inits")
	}
	r := open(t, func(c *Config) { c.WarmInits = 2 })
	count := func() (n int) {
		for _, pid := range []int{os.Getpid(), r.Status().PID} {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			n += len(fds)
		}
		return n
	}
	round := func() {
		for _, argv := range [][]string{
			{"/bin/true"}, {"/nonexistent"}, {"/bin/sh", "-c", "kill -9 $$"}, {"/bin/sh", "-c", "sleep 100 & exit"}, {"a\x00b"},
		} {
			tree := r.NewTree("owner", "x")
			stdio, err := tree.Start(Spec{Argv: argv, Stdin: true}, func(e Event) {
				if _, ok := e.(Exited); ok {
					tree.Sweep()
				}
			})
			if err != nil {
				continue // the last one
			}
			await(t, tree.Dead(), "death")
			stdio.close()
		}
	}
	round()
	eventually(t, "idle inits", func() bool { return idle(r) >= 2 })
	before := count()
	for range soak(40, 200) {
		round()
	}
	eventually(t, fmt.Sprintf("no more than %d descriptors", before+4), func() bool { return count() <= before+4 })
}
