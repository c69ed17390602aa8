//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignalIgnoredAtStartStaysIgnored: nohup(1) ignores SIGHUP, and a shell without job control
// ignores SIGINT and SIGQUIT for what it starts in the background (hertz#441).
func TestSignalIgnoredAtStartStaysIgnored(t *testing.T) {
	s := launch(t)
	for _, tc := range []struct {
		name, script string
		sig          syscall.Signal
		code         int
		stdout       string
	}{
		{"nohup", `trap "" HUP; exec "$TROUPE" exec -- `, syscall.SIGHUP, 7, "up\ndone\n"},
		{"background, SIGINT", `"$TROUPE" exec -- `, syscall.SIGINT, 7, "up\ndone\n"},
		{"background, SIGQUIT", `"$TROUPE" exec -- `, syscall.SIGQUIT, 7, "up\ndone\n"},
		{"not ignored", `exec "$TROUPE" exec -- `, syscall.SIGHUP, 129, "up\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gate := filepath.Join(t.TempDir(), "gate")
			command := `sh -c 'echo up; until [ -e "$1" ]; do sleep 0.02; done; echo done; exit 7' sh ` + gate
			script := tc.script + command
			if strings.HasPrefix(tc.name, "background") {
				script += ` & trap : INT QUIT; wait $!; wait $!` // the trap ends the first wait
			}
			p := shellCmd(t, home(t, s.url), script).start()
			p.stdout.await(t, "up\n")
			p.signal(tc.sig)
			if tc.code == 7 {
				time.Sleep(100 * time.Millisecond) // a signal that was not ignored ends it in this time
				if err := os.WriteFile(gate, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			code := p.exit()
			if code != tc.code || p.stdout.String() != tc.stdout || p.stderr.String() != "" {
				t.Errorf("code %d, stdout %q, stderr %q", code, p.stdout, p.stderr)
			}
		})
	}
}

// TestQuitReachesTheCommand: Ctrl-\ in a terminal reaches the command, not troupe (moby#23170).
func TestQuitReachesTheCommand(t *testing.T) {
	s := launch(t)
	t.Run("it dies", func(t *testing.T) {
		p := troupeCmd(t, home(t, s.url), "exec", "--", "sh", "-c", "echo up; ulimit -c 0; sleep 60").start()
		p.stdout.await(t, "up\n")
		p.signal(syscall.SIGQUIT)
		if code := p.exit(); code != 131 || p.stderr.String() != "troupe: passing SIGQUIT on to the command\n" {
			t.Errorf("code %d, stderr %q", code, p.stderr)
		}
	})
	t.Run("it handles it", func(t *testing.T) {
		p := troupeCmd(t, home(t, s.url), "exec", "--quiet", "--", "sh", "-c",
			`trap 'echo dump; n=$((n + 1))' QUIT; echo up; until [ "$n" = 2 ]; do (trap "" QUIT; exec sleep 0.02); done; exit 4`,
		).start()
		p.stdout.await(t, "up\n")
		p.signal(syscall.SIGQUIT)
		p.stdout.await(t, "dump\n")
		p.signal(syscall.SIGQUIT)
		if code := p.exit(); code != 4 || p.stdout.String() != "up\ndump\ndump\n" || p.stderr.String() != "" {
			t.Errorf("code %d, stdout %q, stderr %q", code, p.stdout, p.stderr)
		}
	})
}

// TestSignalsBeforeTheCommandEndTroupe: with the exit code of their number, and without goroutines.
func TestSignalsBeforeTheCommandEndTroupe(t *testing.T) {
	silent := listenSilently(t)
	record := `{"url":"ws://` + silent + `/ws","session_id":"pod.1","resume_token":"t"}`
	for _, args := range [][]string{{"exec", "--", "true"}, {"attach", "pod.1"}, {"sessions", "--local"}, {"cancel", "pod.1"}} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
			env := home(t, silent)
			dir := strings.TrimPrefix(env[0], "HOME=") + "/.local/state/troupe/sessions"
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/pod.1.json", []byte(record), 0o600); err != nil {
				t.Fatal(err)
			}
			accepted := silentAccepts.Load()
			p := troupeCmd(t, env, args...).start()
			eventually(t, "troupe has connected", func() bool { return silentAccepts.Load() > accepted })
			p.signal(sig)
			code := p.exit()
			if code != 128+int(sig) || p.stderr.String() != "troupe: interrupted\n" {
				t.Errorf("%v, %v: code %d, stderr %q", args, sig, code, p.stderr)
			}
		}
	}
}

// TestStopAndContinueLosesNothing: Ctrl-Z, a pause that is longer than the server's patience, fg.
func TestStopAndContinueLosesNothing(t *testing.T) {
	s := launch(t, "--ping-interval", "100ms")
	p := troupeCmd(t, home(t, s.url), "exec", "--", "sh", "-c",
		`i=0; while [ $i -lt 100 ]; do i=$((i + 1)); echo $i; sleep 0.01; done; exit 5`).start()
	p.stdout.await(t, "10\n")
	p.signal(syscall.SIGSTOP)
	time.Sleep(700 * time.Millisecond)
	p.signal(syscall.SIGCONT)
	code := p.exit()
	if lines := strings.Fields(p.stdout.String()); code != 5 || len(lines) != 100 || lines[99] != "100" {
		t.Errorf("code %d, %d lines, stderr %q", code, len(lines), p.stderr)
	}
}

// TestSignalsWhileTheServerIsAway: the first is kept for the server, a second leaves at once.
func TestSignalsWhileTheServerIsAway(t *testing.T) {
	for _, tc := range []struct {
		sigs []syscall.Signal
		code int
	}{
		{[]syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 143},
		{[]syscall.Signal{syscall.SIGINT, syscall.SIGINT}, 130},
		{[]syscall.Signal{syscall.SIGQUIT}, 131},
	} {
		s := launch(t)
		p := troupeCmd(t, home(t, s.url), "exec", "--", "sh", "-c", "echo up; sleep 60").start()
		p.stdout.await(t, "up\n")
		s.kill()
		p.stderr.await(t, "connection lost")
		p.signal(tc.sigs[0])
		if len(tc.sigs) > 1 {
			p.stderr.await(t, "not connected: cancelling when the connection is back")
			p.signal(tc.sigs[1])
		}
		if code := p.exit(); code != tc.code || !strings.Contains(p.stderr.String(), "troupe: detached; ") {
			t.Errorf("%v: code %d, stderr %q", tc.sigs, code, p.stderr)
		}
	}
}
