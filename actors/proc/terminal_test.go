//go:build linux

package proc

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/confine"
)

// inTerminal starts a program in a terminal of 80 by 24.
func inTerminal(t testing.TB, r *Runner, session int, argv ...string) *command {
	t.Helper()
	marker := newMarker()
	spec := Spec{
		Argv: argv, Env: append(environ(), "PS1=ready> ", "TERM=xterm", "MARKER="+marker), Terminal: &Size{80, 24},
	}
	if session > 0 {
		spec.Workspace = workspace(session)
	}
	return runSpec(t, r, marker, spec)
}

// shell starts an interactive bash.
func shell(t testing.TB, r *Runner, session int) *command {
	t.Helper()
	c := inTerminal(t, r, session, "/bin/bash", "--norc", "--noediting", "-i")
	c.waitOutput("ready> ")
	return c
}

// types sends keys to a terminal.
func (c *command) types(keys string) {
	c.t.Helper()
	if _, err := c.stdio.Stdin.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// asks types a command line and waits for a prompt behind what it prints. It returns what that is.
func (c *command) asks(line string) string {
	c.t.Helper()
	before := len(c.stdout())
	c.types(line + "\n")
	prompts := 0
	eventually(c.t, "a prompt after "+line, func() bool {
		prompts = strings.Count(c.stdout()[before:], "ready> ")
		return prompts > 0
	})
	out := strings.TrimSuffix(c.stdout()[before:], "ready> ")
	_, out, _ = strings.Cut(out, "\r\n") // the echo
	return strings.ReplaceAll(strings.TrimSpace(out), "\r\n", "\n")
}

func TestTerminalIsTheCommandsOwn(t *testing.T) {
	r := open(t)
	c := shell(t, r, 0)
	for line, want := range map[string]string{
		"test -t 0 -a -t 1 -a -t 2 && echo yes":              "yes",
		"stty size":                                          "24 80",
		"echo to stderr >&2":                                 "to stderr",
		"echo typed >/dev/tty":                               "typed",
		"stty -a | grep -o ' iutf8'":                         "iutf8",
		"ps -o sid=,tpgid= -p $$ | awk '{print $1 == '$$'}'": "1",
		"ls -l /proc/self/fd | grep -c -e ptmx -e socket":    "0",
	} {
		if got := c.asks(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	c.types("exit 7\n")
	if x := waitEvent[Exited](c); x.Code != 7 {
		t.Errorf("%+v", x)
	}
	c.waitDead()
}

// TestTerminalHasJobControl: Ctrl-C, Ctrl-Z and Ctrl-\ are for the foreground job, and the shell lives.
func TestTerminalHasJobControl(t *testing.T) {
	c := shell(t, open(t), 0)
	c.types("sleep 1000\n")
	eventually(t, "sleep", func() bool { return strings.Contains(strings.Join(commands(c), " "), "sleep") })
	c.types("\x03")
	c.waitOutput("^C")
	if got := c.asks("echo $?"); !strings.HasSuffix(got, "130") {
		t.Errorf("after Ctrl-C: %q", got)
	}
	c.types("sleep 1001\n")
	eventually(t, "sleep", func() bool { return strings.Contains(strings.Join(commands(c), " "), "sleep") })
	c.types("\x1a")
	c.waitOutput("Stopped")
	if got := c.asks("jobs"); !strings.Contains(got, "sleep 1001") {
		t.Errorf("jobs: %q", got)
	}
	before := strings.Count(c.stdout(), "sleep 1001")
	c.types("fg\n")
	eventually(t, "fg", func() bool { return strings.Count(c.stdout(), "sleep 1001") > before })
	c.types("\x1c")
	c.waitOutput("Quit")
	c.types("\x04")
	if x := waitEvent[Exited](c); x.Signal != 0 {
		t.Errorf("after Ctrl-D: %+v", x)
	}
	c.waitDead()
}

// commands are the names of what runs below the shell.
func commands(c *command) (names []string) {
	pid := waitEvent[Started](c).PID
	for _, s := range below(pid) {
		names = append(names, s.Comm())
	}
	return names
}

func TestTerminalIsResized(t *testing.T) {
	c := shell(t, open(t), 0)
	c.asks("trap 'echo winch; stty size' WINCH")
	if err := c.stdio.Stdout.Resize(Size{100, 30}); err != nil {
		t.Fatal(err)
	}
	c.types("\n")
	c.waitOutput("30 100")
	if !strings.Contains(c.stdout(), "winch\r\n") {
		t.Errorf("no SIGWINCH: %q", c.stdout())
	}
}

// TestTerminateEndsAnInteractiveShell: bash ignores SIGTERM on a terminal, and ends at SIGHUP.
func TestTerminateEndsAnInteractiveShell(t *testing.T) {
	c := shell(t, open(t), 0)
	c.types("sleep 1002\n")
	c.tree.Terminate()
	if x := waitEvent[Exited](c); x.Signal != syscall.SIGHUP && x.Code != 128+int(syscall.SIGHUP) {
		t.Errorf("%+v", x)
	}
	c.tree.Sweep()
	c.waitDead()
}

// TestTerminalIsNoShelter: what ignores SIGHUP and SIGTERM dies by Kill, as without a terminal.
func TestTerminalIsNoShelter(t *testing.T) {
	c := inTerminal(t, open(t), 0, "/bin/bash", "-c", "trap '' HUP TERM; echo up; setsid sleep 1003 & while :; do sleep 1; done")
	c.waitOutput("up")
	c.tree.Terminate()
	time.Sleep(10 * time.Millisecond)
	c.tree.Kill()
	c.waitDead()
}

// TestPausedTerminalGoesOn: Pause and Resume are for the whole tree, whatever its process groups.
func TestPausedTerminalGoesOn(t *testing.T) {
	c := shell(t, open(t), 0)
	c.types("while :; do echo tick; sleep .01; done\n")
	c.waitOutput("tick\r\ntick")
	c.tree.Pause()
	waitEvent[Paused](c)
	time.Sleep(50 * time.Millisecond)
	before := c.stdout()
	time.Sleep(100 * time.Millisecond)
	if after := c.stdout(); after != before {
		t.Errorf("%d bytes while paused", len(after)-len(before))
	}
	c.tree.Resume()
	eventually(t, "more ticks", func() bool { return len(c.stdout()) > len(before) })
	c.types("\x03")
}

// TestClosedInputEndsAWrite: a program that does not read leaves no writer behind.
func TestClosedInputEndsAWrite(t *testing.T) {
	c := inTerminal(t, open(t), 0, "/bin/bash", "-c", "stty raw -echo; echo up; sleep 1004")
	c.waitOutput("up")
	done := make(chan error, 1)
	go func() {
		_, err := c.stdio.Stdin.WriteString(strings.Repeat("x", 1<<20))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a terminal took 1 MB that nobody read: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.stdio.Stdin.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("all was written")
		}
	case <-time.After(testTimeout):
		t.Error("the write goes on")
	}
}

// TestPasteArrivesWhole: a program in raw mode gets 1 MB of any bytes, in order.
func TestPasteArrivesWhole(t *testing.T) {
	c := inTerminal(t, open(t), 0, "/bin/bash", "-c", "stty raw -echo; echo up; head -c 1048576 | sha256sum; sleep 1005")
	c.waitOutput("up")
	paste := make([]byte, 1<<20)
	for i := range paste {
		paste[i] = byte(i * 7 >> 3)
	}
	go c.stdio.Stdin.Write(paste)
	c.waitOutput(fmt.Sprintf("%x", sha256.Sum256(paste)))
}

// TestTerminalsInADomain: a session's commands have their terminal, also in a clone, and job control.
func TestTerminalsInADomain(t *testing.T) {
	if err := confine.Available(); err != nil {
		t.Skip(err)
	}
	r := openIsolated(t)
	first, second := shell(t, r, 1), shell(t, r, 1)
	for _, c := range []*command{first, second} {
		if got := c.asks("stty size </dev/tty; echo $TROUPE_ISOLATION"); got != "24 80\nsession" {
			t.Errorf("%q", got)
		}
		c.types("sleep 1006\n")
		c.types("\x03")
		c.waitOutput("^C")
	}
}
