//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/gateway"
)

func TestExecExitsAsTheCommandDid(t *testing.T) {
	f := start(t, nil)
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string // what it contains
	}{
		{"success", []string{"print", "out\n", "err\n", "0"}, 0, "out\n", "err\n"},
		{"failure", []string{"print", "a\x01é", "", "7"}, 7, "a\x01é", ""},
		{"not found", []string{"missing"}, 127, "", "troupe: missing: command not found\n"},
		{"signaled", []string{"ends", "signaled", "-9"}, 137, "", ""},
		{"stream timeout", []string{"ends", "stream_timeout", "-15"}, 124, "", "stream_timeout: because"},
		{"deadline", []string{"ends", "deadline", "-15"}, 124, "", "deadline"},
		{"output limit", []string{"ends", "output_limit", "-15"}, 123, "", "output_limit"},
		{"out of memory", []string{"ends", "out_of_memory", "-9"}, 137, "", "out_of_memory"},
		{"too many processes", []string{"ends", "process_limit", "-9"}, 137, "", "process_limit"},
		{"too many files", []string{"ends", "disk_limit", "0"}, 125, "", "disk_limit"},
		{"runner lost", []string{"ends", "runner_lost", "-9"}, 125, "", "runner_lost"},
		{"cancelled elsewhere", []string{"ends", "canceled", "0"}, 130, "", ""},
		{
			"losses",
			[]string{"lossy"},
			122, "",
			"incomplete: 100 bytes in 3 lines were dropped (no space left), 2 lines were cut by 50 bytes\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := f.run(append([]string{"exec", "--"}, tc.args...)...)
			if r.code != tc.code || r.stdout.String() != tc.stdout || !strings.Contains(r.stderr.String(), tc.stderr) {
				t.Errorf("code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
			}
			if strings.Count(r.stderr.String(), "\n") > 1 {
				t.Errorf("more than a line on stderr: %q", r.stderr)
			}
		})
	}
	if n := f.engine.open(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if left, _, _ := (&store{dir: f.state + "/sessions"}).list(); len(left) != 0 {
		t.Errorf("remembered: %v", left)
	}
}

// TestRestartsAreToldInWords: no alarm at the end of a drain that let the command
// finish, and no library's text when the connection is really lost.
func TestRestartsAreToldInWords(t *testing.T) {
	f := start(t, nil)
	// The fake server's word of the drain may come after the command's end: then it is not passed on.
	r := f.run("exec", "--", "drained")
	if alarm := strings.TrimPrefix(r.stderr.String(),
		"troupe: the server is stopping, running commands have 5m0s\n"); r.code != 0 || alarm != "" {
		t.Errorf("drained: code %d, stderr %q", r.code, r.stderr)
	}
	if left, _, _ := (&store{dir: f.state + "/sessions"}).list(); len(left) != 0 {
		t.Errorf("the drained session is remembered: %v", left)
	}
	r = f.run("exec", "--", "broken")
	said, resumed, _ := strings.Cut(r.stderr.String(), "\n")
	if r.code != 0 || r.stdout.String() != "whole\n" ||
		said != "troupe: connection lost: the server is restarting; resuming" ||
		!strings.HasPrefix(resumed, "troupe: resumed after ") {
		t.Errorf("lost: code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func TestLossesAreToldInWords(t *testing.T) {
	for want, err := range map[string]error{
		"it broke":                          errors.New("failed to get reader: received header with unexpected rsv bits set"),
		"it was reset":                      &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
		"it timed out":                      &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded},
		"nothing was heard from the server": fmt.Errorf("%w for 45s", troupe.ErrKeepaliveTimeout),
	} {
		if got := whyLost(err); got != want {
			t.Errorf("%v is reported as %q, want %q", err, got, want)
		}
	}
}

func TestExecFlagsReachTheServer(t *testing.T) {
	f := start(t, nil)
	t.Setenv("A", "from here")
	if r := f.run("exec", "-C", "/work", "-e", "A", "--", "env"); r.stdout.String() != "/work from here" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	t.Setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	ff := execFlags{command: "true", onExit: "keep", lines: true, env: []string{"B=c=d"}}
	p, err := ff.params(nil, false)
	if err != nil || p.Framing != wire.FramingLines || p.Encoding != wire.EncodingUTF8 || p.OnExit != wire.ExitKeep ||
		p.Env["B"] != "c=d" || p.Stdin || p.Traceparent != os.Getenv("TRACEPARENT") {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestStdinIsPassed(t *testing.T) {
	f := start(t, nil)
	f.stdin = strings.Repeat("0123456789\x00\xff\n", 20_000)
	if r := f.run("exec", "--", "cat"); r.code != 0 || r.stdout.String() != f.stdin {
		t.Errorf("code %d, %d bytes of %d, %s", r.code, len(r.stdout.String()), len(f.stdin), r.stderr)
	}
	if r := f.run("exec", "--no-stdin", "--", "print", "x"); r.stdout.String() != "x" {
		t.Errorf("stdout %q, %s", r.stdout, r.stderr)
	}
}

func TestInterruptsCancelKillAndLeave(t *testing.T) {
	for _, tc := range []struct {
		name, until string
		signals     []os.Signal
		code        int
		heard       string
	}{
		{"cancel", "CANCEL", []os.Signal{os.Interrupt}, 143, "hanging\nCANCEL\n"},
		{"term", "CANCEL", []os.Signal{syscall.SIGTERM}, 143, "hanging\nCANCEL\n"},
		{"kill", "KILL", []os.Signal{os.Interrupt, os.Interrupt}, 143, "hanging\nCANCEL\nKILL\n"},
		{"hangup", "never", []os.Signal{syscall.SIGHUP}, 129, "hanging\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := start(t, nil)
			r := f.begin("exec", "--", "hang", tc.until)
			r.stdout.await(t, "hanging")
			for i, sig := range tc.signals {
				f.signals <- sig
				if sig != syscall.SIGHUP {
					r.stdout.await(t, []string{"CANCEL", "KILL"}[i])
				}
			}
			<-r.done
			if r.code != tc.code || r.stdout.String() != tc.heard {
				t.Errorf("code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
			}
			if tc.code == 129 {
				f.engine.endSession("pod.0")
			}
		})
	}
}

func TestJSONPrintsNotifications(t *testing.T) {
	f := start(t, nil)
	r := f.run("exec", "--json", "--", "print", "out", "err", "3")
	lines := strings.Split(strings.TrimSpace(r.stdout.String()), "\n")
	if r.code != 3 || len(lines) != 3 {
		t.Fatalf("code %d, %q", r.code, lines)
	}
	var last struct {
		Method string         `json:"method"`
		Params wire.Completed `json:"params"`
	}
	if err := json.Unmarshal([]byte(lines[2]), &last); err != nil || last.Method != wire.MethodCompleted ||
		last.Params.ExitCode != 3 {
		t.Errorf("%s: %v", lines[2], err)
	}
	if !strings.Contains(lines[1], `"type":"stderr","data":"err"`) {
		t.Errorf("line %s", lines[1])
	}
}

// detach, sessions, cancel and attach from other shells.
func TestDetachedSession(t *testing.T) {
	f := start(t, nil)
	r := f.run("exec", "--detach", "--execution-id", "job", "--", "hang", "CANCEL")
	if r.code != 0 || r.stdout.String() != "pod.0 job\n" {
		t.Fatalf("code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	info, err := os.Stat(f.state + "/sessions/pod.0.json")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v", info, err)
	}
	if r := f.run("sessions", "--local"); !strings.Contains(r.stdout.String(), "running") ||
		!strings.Contains(r.stdout.String(), "hang CANCEL") {
		t.Errorf("sessions: %q, %q", r.stdout, r.stderr)
	}

	// An interrupted attach leaves the command alone, and can be continued later.
	first := f.begin("attach", "pod")
	first.stdout.await(t, "hanging")
	f.signals <- os.Interrupt
	<-first.done
	if first.code != 130 || !strings.Contains(first.stderr.String(), "keeps running") {
		t.Errorf("attach: code %d, %q", first.code, first.stderr)
	}
	if r := f.run("cancel", "pod.0"); r.code != 0 {
		t.Errorf("cancel: %d, %q", r.code, r.stderr)
	}
	if r := f.run("attach", "pod.0"); r.code != 143 || r.stdout.String() != "CANCEL\n" {
		t.Errorf("attach: code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	if r := f.run("attach", "pod.0"); r.code != 125 || !strings.Contains(r.stderr.String(), "no such session") {
		t.Errorf("attach to what is gone: code %d, %q", r.code, r.stderr)
	}
}

func TestCancelEndEndsTheSession(t *testing.T) {
	f := start(t, nil)
	f.run("exec", "--detach", "--", "hang", "KILL")
	if r := f.run("cancel", "--end", "pod.0"); r.code != 0 || f.engine.open() != 0 {
		t.Errorf("code %d, %q, %d sessions", r.code, r.stderr, f.engine.open())
	}
	if r := f.run("sessions", "--local"); r.stdout.String() != "" {
		t.Errorf("sessions: %q", r.stdout)
	}
}

func TestGoneSessionIsForgotten(t *testing.T) {
	f := start(t, nil)
	f.run("exec", "--detach", "--", "hang", "KILL")
	f.engine.endSession("pod.0")
	if r := f.run("sessions", "--local"); !strings.Contains(r.stdout.String(), "gone") {
		t.Errorf("sessions: %q", r.stdout)
	}
	if r := f.run("sessions", "--local"); r.stdout.String() != "" {
		t.Errorf("sessions, again: %q", r.stdout)
	}
}

func TestKeptProcessesKeepTheSession(t *testing.T) {
	f := start(t, nil)
	r := f.run("exec", "--on-exit=keep", "--", "print", "up")
	if r.code != 0 || !strings.Contains(r.stderr.String(), "keep running in session pod.0 for 5m0s") ||
		f.engine.open() != 1 {
		t.Errorf("code %d, %q", r.code, r.stderr)
	}
	f.engine.endSession("pod.0")
}

type oneToken struct{}

func (oneToken) Authenticate(_ context.Context, token string) (string, error) {
	switch token {
	case "foreign":
		return "", fmt.Errorf("%w: system:serviceaccount:default:somebody may not create sessions.troupe.dev in the namespace default", gateway.ErrForbidden)
	case "right":
	default:
		return "", gateway.ErrBadToken
	}
	return "me", nil
}

func TestRefusals(t *testing.T) {
	t.Run("not reachable", func(t *testing.T) {
		f := start(t, nil)
		f.url = "127.0.0.1:1"
		if r := f.run("exec", "true"); r.code != 125 || !strings.HasPrefix(r.stderr.String(),
			"troupe: cannot reach ws://127.0.0.1:1/ws:") {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
	})
	t.Run("full", func(t *testing.T) {
		f := start(t, nil)
		f.engine.refuse = wire.Errorf(wire.CodeSessionLimit, "all 100 sessions are taken")
		if r := f.run("exec", "true"); r.code != 125 || !strings.Contains(r.stderr.String(), "all 100 sessions are taken") {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
	})
	t.Run("token", func(t *testing.T) {
		var _ gateway.Authenticator = oneToken{}
		f := start(t, oneToken{})
		if r := f.run("exec", "--", "print", "x"); r.code != 125 ||
			!strings.Contains(r.stderr.String(), "(401 the bearer token is not valid): set TROUPE_TOKEN") {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
		t.Setenv("TROUPE_TOKEN", "foreign") // whoever reads this has to see what to grant
		if r := f.run("exec", "--", "print", "x"); r.code != 125 ||
			!strings.HasSuffix(r.stderr.String(), "sessions.troupe.dev in the namespace default)\n") {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
		t.Setenv("TROUPE_TOKEN", "right")
		if r := f.run("exec", "--", "print", "x"); r.code != 0 {
			t.Errorf("code %d, %q", r.code, r.stderr)
		}
	})
	t.Run("usage", func(t *testing.T) {
		f := start(t, nil)
		for _, args := range [][]string{
			{"exec"},
			{"exec", "-c", "x", "y"},
			{"exec", "--bogus", "x"},
			{"exec", "-i", "-n", "x"},
			{"attach"},
			{"attach", "../x"},
		} {
			r := f.run(args...)
			if r.code != 125 || strings.Count(r.stderr.String(), "\n") != 1 || r.stdout.String() != "" {
				t.Errorf("%v: code %d, %q, %q", args, r.code, r.stdout, r.stderr)
			}
		}
	})
}
