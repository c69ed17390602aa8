//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a new pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestTerminalThatGoesAwayIsAHangup: its writes fail, too, and may do so before SIGHUP comes. Neither
// may cancel the command. Under nohup, only the write fails.
func TestTerminalThatGoesAwayIsAHangup(t *testing.T) {
	s := launch(t)
	for name, script := range map[string]string{
		"SIGHUP":         `exec "$TROUPE" exec -c 'echo up; while :; do echo x; done'`,
		"SIGHUP, silent": `exec "$TROUPE" exec -c 'echo up; sleep 60'`,
		"of writes":      `trap "" HUP; exec "$TROUPE" exec -c 'echo up; while :; do echo x; sleep 0.01; done'`,
		"of stderr":      `trap "" HUP; exec "$TROUPE" exec -c 'echo up; while :; do echo x >&2; sleep 0.01; done'`,
	} {
		t.Run(name, func(t *testing.T) {
			env := home(t, s.url)
			master, slave := openTerminal(t)
			p := shellCmd(t, env, script)
			p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
			p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			p.start()
			slave.Close()
			if n, err := master.Read(make([]byte, 64)); n == 0 || err != nil {
				t.Fatal(n, err)
			}
			master.Close()
			if code := p.exit(); code != 129 || len(records(t, env)) != 1 {
				t.Fatalf("code %d, records %v", code, records(t, env))
			}
			id := strings.TrimSuffix(filepath.Base(records(t, env)[0]), ".json")
			if code, stdout, stderr := runTroupe(t, env, "sessions", "--local"); code != 0 || !strings.Contains(stdout, "running") {
				t.Errorf("sessions: %d, %q, %q", code, stdout, stderr)
			}
			if code, _, stderr := runTroupe(t, env, "cancel", "--end", id); code != 0 {
				t.Errorf("cancel: %d, %q", code, stderr)
			}
		})
	}
}
