//go:build linux

package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExitStatus(t *testing.T) {
	r := open(t)
	for _, tc := range []struct {
		script string
		code   int
		signal syscall.Signal
	}{
		{"exit 0", 0, 0},
		{"exit 7", 7, 0},
		{"exit 255", 255, 0},
		{"kill -TERM $$", -15, syscall.SIGTERM},
		{"kill -KILL $$", -9, syscall.SIGKILL},
		{"ulimit -c 0; kill -ABRT $$", -6, syscall.SIGABRT},
		// The number is the same with and without a core dump.
		{"ulimit -c unlimited; cd $(mktemp -d) && kill -SEGV $$", -11, syscall.SIGSEGV},
		{"kill -40 $$", -40, syscall.Signal(40)},
		{"kill -64 $$", -64, syscall.Signal(64)},
	} {
		c := run(t, r, tc.script)
		e := waitEvent[Exited](c)
		d := c.waitDead()
		if e.Code != tc.code || e.Signal != tc.signal || !e.NoSurvivors || d.Lost {
			t.Errorf("%s: %+v %+v", tc.script, e, d)
		}
	}
}

// TestADeadTreeHoldsNothing: a session keeps the trees of its last hundred commands, and through
// events each would keep the actor that received them.
func TestADeadTreeHoldsNothing(t *testing.T) {
	r := open(t)
	for name, c := range map[string]*command{
		"ended":       run(t, r, "exit 0"),
		"not started": runSpec(t, r, newMarker(), Spec{Argv: []string{"/nonexistent"}}),
	} {
		<-c.tree.Dead()
		if c.tree.events != nil || c.tree.request != nil || c.tree.pending != nil || c.tree.init != nil {
			t.Errorf("%s: %+v", name, c.tree)
		}
	}
}

func TestOutputIsWhole(t *testing.T) {
	r := open(t)
	for range soak(10, 200) {
		c := run(t, r, "echo out; echo err >&2; seq 1 20000")
		waitEvent[Exited](c)
		c.waitDead()
		c.read.Wait()
		if lines := strings.Count(c.out.String(), "\n"); lines != 20001 || c.errOut.String() != "err\n" {
			t.Fatalf("%d lines, stderr %q", lines, c.errOut.String())
		}
	}
}

func TestStdin(t *testing.T) {
	r := open(t)
	c := runSpec(t, r, newMarker(), Spec{Argv: []string{"/bin/cat"}, Stdin: true})
	big := strings.Repeat("x", 1<<20)
	stdin := c.stdio.Stdin
	go func() {
		io.WriteString(stdin, big)
		stdin.Close()
	}()
	waitEvent[Exited](c)
	c.waitDead()
	c.read.Wait()
	if c.out.Len() != len(big) {
		t.Errorf("%d bytes", c.out.Len())
	}

	c = run(t, r, `cat; echo $(readlink /proc/self/fd/0)`)
	waitEvent[Exited](c)
	c.waitDead()
	c.read.Wait()
	if c.out.String() != "/dev/null\n" {
		t.Errorf("without stdin: %q", c.out.String())
	}
}

// The command sees blocking pipes, its own environment and directory, no descriptor of ours, no
// blocked or ignored signal, and a session of its own.
func TestCommandStartsClean(t *testing.T) {
	r := open(t)
	dir := t.TempDir()
	output := func(argv ...string) string {
		c := runSpec(t, r, newMarker(), Spec{Argv: argv, Env: []string{"A=1", "PATH=/usr/bin:/bin"}, Dir: dir, Stdin: true})
		waitEvent[Exited](c)
		c.waitDead()
		c.read.Wait()
		return c.out.String()
	}
	for range soak(5, 100) {
		if env := output("env"); env != "A=1\nPATH=/usr/bin:/bin\n" {
			t.Errorf("environment %q", env)
		}
		if cwd := output("readlink", "/proc/self/cwd"); cwd != dir+"\n" {
			t.Errorf("directory %q", cwd)
		}
		if fds := output("ls", "/proc/self/fd"); fds != "0\n1\n2\n3\n" { // 3 is ls's own
			t.Errorf("descriptors %q", fds)
		}
		status := output("cat", "/proc/self/status")
		for _, want := range []string{"SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n"} {
			if !strings.Contains(status, want) {
				t.Errorf("no %q in:\n%s", want, status)
			}
		}
		var pid, ppid, pgrp, session int
		var state byte
		stat := output("cat", "/proc/self/stat")
		_, err := fmt.Sscanf(stat, "%d (cat) %c %d %d %d", &pid, &state, &ppid, &pgrp, &session)
		if err != nil || pgrp != pid || session != pid {
			t.Errorf("%q, %v", stat, err)
		}
		for _, fd := range []string{"0", "1", "2"} {
			info := output("cat", "/proc/self/fdinfo/"+fd)
			var flags int
			fmt.Sscanf(line(info, "flags:\t"), "%o", &flags)
			if info == "" || flags&syscall.O_NONBLOCK != 0 {
				t.Errorf("descriptor %s is non-blocking: %o", fd, flags)
			}
		}
	}
}

// line is the rest of the line of s that begins with prefix.
func line(s, prefix string) string {
	for _, l := range strings.Split(s, "\n") {
		if v, ok := strings.CutPrefix(l, prefix); ok {
			return v
		}
	}
	return ""
}

func TestStartFailures(t *testing.T) {
	r := open(t)
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, mode)
		return path
	}
	plain := file("plain", "x", 0o644)
	garbage := file("garbage", "\x7fnot elf", 0o755)
	script := file("script", "#!/no/such/interpreter\n", 0o755)
	for _, tc := range []struct {
		name  string
		spec  Spec
		errno syscall.Errno
		code  int
		text  string
	}{
		{"not in PATH", Spec{Argv: []string{"nosuch"}}, syscall.ENOENT, 127, "troupe: nosuch: command not found"},
		{"empty name", Spec{Argv: []string{""}}, syscall.ENOENT, 127, "command not found"},
		{"no such file", Spec{Argv: []string{"/no/such"}}, syscall.ENOENT, 127, "/no/such: No such file or directory"},
		{"not executable", Spec{Argv: []string{plain}}, syscall.EACCES, 126, "Permission denied"},
		{
			"not executable in PATH",
			Spec{Argv: []string{"plain"}, Env: []string{"PATH=" + dir}},
			syscall.EACCES, 126, "Permission denied",
		},
		{"a directory", Spec{Argv: []string{dir}}, syscall.EACCES, 126, "Is a directory"},
		{"no program", Spec{Argv: []string{garbage}}, syscall.ENOEXEC, 126, "cannot execute"},
		{"no interpreter", Spec{Argv: []string{script}}, syscall.ENOENT, 127, "required file not found"},
		{"no directory", Spec{Argv: []string{"true"}, Dir: "/no/such"}, syscall.ENOTDIR, 126, "/no/such: No such directory"},
		{"directory is a file", Spec{Argv: []string{"true"}, Dir: plain}, syscall.ENOTDIR, 126, "Not a directory"},
		{
			"too long",
			Spec{Argv: []string{"true", strings.Repeat("x", 200<<10)}},
			syscall.E2BIG, 126, "Argument list too long",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := runSpec(t, r, newMarker(), tc.spec)
			f := waitEvent[StartFailed](c)
			c.waitDead()
			var se *StartError
			if !errors.As(f.Err, &se) || se.Errno != tc.errno || se.ExitCode() != tc.code ||
				!strings.Contains(se.Error(), tc.text) {
				t.Errorf("%v (%+v)", f.Err, se)
			}
			c.read.Wait() // the pipes end
		})
	}
	t.Run("refused at once", func(t *testing.T) {
		for _, spec := range []Spec{{}, {Argv: []string{"a\x00b"}}, {Argv: []string{"a", strings.Repeat("x", 9<<20)}}} {
			tree := r.NewTree("o", "refused")
			if _, err := tree.Start(spec, nil); err == nil {
				t.Error("started")
			}
			await(t, tree.Dead(), "death")
		}
	})
	t.Run("the init is still good", func(t *testing.T) {
		for range 5 {
			c := run(t, r, "exit 2")
			if e := waitEvent[Exited](c); e.Code != 2 {
				t.Errorf("%+v", e)
			}
			c.waitDead()
		}
	})
}

// 1 MiB of arguments and environment is more than a socket takes at once.
func TestLargeArguments(t *testing.T) {
	r := open(t)
	argv := []string{"/bin/bash", "-c", `echo $# ${#BIG}; env | wc -c`, "x"}
	env := environ()
	for range 512 {
		argv = append(argv, strings.Repeat("a", 1023))
	}
	env = append(env, "BIG="+strings.Repeat("b", 100_000))
	for i := range 4 {
		env = append(env, fmt.Sprintf("MORE%d=%s", i, strings.Repeat("c", 100_000)))
	}
	for range soak(5, 50) {
		c := runSpec(t, r, newMarker(), Spec{Argv: argv, Env: env})
		waitEvent[Started](c)
		waitEvent[Exited](c)
		c.waitDead()
		c.read.Wait()
		if !strings.HasPrefix(c.out.String(), "512 100000\n") {
			t.Fatalf("%q %q", c.out.String(), c.errOut.String())
		}
	}
}

func TestRelativeLookups(t *testing.T) {
	r := open(t)
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "bin"), 0o755)
	os.WriteFile(filepath.Join(dir, "bin", "here"), []byte("#!/bin/sh\necho here\n"), 0o755)
	for _, spec := range []Spec{
		{Argv: []string{"bin/here"}, Dir: dir},
		{Argv: []string{"here"}, Dir: dir, Env: []string{"PATH=bin"}},
		{Argv: []string{"here"}, Dir: filepath.Join(dir, "bin"), Env: []string{"PATH=/none:"}},
	} {
		c := runSpec(t, r, newMarker(), spec)
		if e := waitEvent[Exited](c); e.Code != 0 {
			t.Errorf("%+v %q", e, c.errOut.String())
		}
		c.waitDead()
		c.read.Wait()
		if c.out.String() != "here\n" {
			t.Errorf("%q", c.out.String())
		}
	}
}

func TestUsage(t *testing.T) {
	r := open(t)
	c := run(t, r, `bash -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; true`)
	waitEvent[Exited](c)
	d := c.waitDead()
	if d.Usage.User < 20*time.Millisecond || d.Usage.MaxRSS < 1<<20 {
		t.Errorf("%+v", d.Usage)
	}
	c = run(t, r, `true`)
	waitEvent[Exited](c)
	if next := c.waitDead(); next.Usage.User >= d.Usage.User {
		t.Errorf("usage is carried over: %+v after %+v", next.Usage, d.Usage)
	}
}

func TestPipePendingAndDeadline(t *testing.T) {
	r := open(t)
	tree := r.NewTree("o", "pending")
	stdio, err := tree.Start(Spec{Argv: []string{"/bin/echo", "12345"}}, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	defer stdio.close()
	await(t, tree.Dead(), "death")
	if n, err := stdio.Stdout.Pending(); n != 6 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	b := make([]byte, 10)
	if n, _ := stdio.Stdout.Read(b); n != 6 {
		t.Errorf("%d", n)
	}
	if n, err := stdio.Stdout.Read(b); n != 0 || err != io.EOF {
		t.Errorf("%d %v", n, err)
	}
}

// The command does not get the timer slack that quietens an init's monitor thread.
func TestTimerSlackIsInherited(t *testing.T) {
	r := open(t)
	want, err := os.ReadFile("/proc/self/timerslack_ns")
	if err != nil {
		t.Fatal(err)
	}
	c := run(t, r, "cat /proc/$$/timerslack_ns")
	waitEvent[Exited](c)
	c.waitDead()
	c.read.Wait()
	if c.out.String() != string(want) {
		t.Errorf("%q, want %q, stderr %q", c.out.String(), want, c.errOut.String())
	}
}
