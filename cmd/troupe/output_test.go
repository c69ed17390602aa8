//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// full returns /dev/full, on which every write fails with ENOSPC.
func full(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// An error of stdout or stderr is named, ends with 125 and cancels the command; only a closed pipe is
// silent. moby#5618 and others took every error for a reader that had enough.
func TestFullDiskUnderTheOutputIsNamed(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	if code, _, _ := runTroupe(t, env, "exec", "-d", "--", "sleep", "30"); code != 0 {
		t.Fatal("no session to list")
	}
	for name, tc := range map[string]struct {
		args   []string
		stderr bool // is full too
	}{
		"output":         {args: []string{"exec", "--", "sh", "-c", "echo hi; exec sleep 30"}},
		"json":           {args: []string{"exec", "--json", "--", "sh", "-c", "echo hi; exec sleep 30"}},
		"stderr":         {args: []string{"exec", "--", "sh", "-c", "echo hi >&2; exec sleep 30"}, stderr: true},
		"detached":       {args: []string{"exec", "-d", "--", "sleep", "30"}},
		"sessions":       {args: []string{"sessions", "--local"}},
		"sessions, json": {args: []string{"sessions", "--local", "-o", "json"}},
		"version":        {args: []string{"version"}},
		"help":           {args: []string{"--help"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := troupeCmd(t, env, tc.args...)
			p.cmd.Stdout = full(t)
			if tc.stderr {
				p.cmd.Stderr = full(t)
			}
			began := time.Now()
			code := p.start().exit()
			want := "troupe: writing stdout: no space left on device"
			if code != 125 || !tc.stderr && !strings.HasPrefix(p.stderr.String(), want) {
				t.Errorf("code %d, stderr %q", code, p.stderr)
			}
			if d := time.Since(began); d > 20*time.Second {
				t.Errorf("the command ran on for %s", d)
			}
		})
	}
	if _, list, _ := runTroupe(t, env, "sessions", "--local"); strings.Count(list, "running") != 1 {
		t.Errorf("besides the session of before, some were left:\n%s", list)
	}
	p := shellCmd(t, env, `"$TROUPE" exec -- yes | head -n 1; echo "${PIPESTATUS:-}"`).start()
	if code := p.exit(); code != 0 || !strings.HasPrefix(p.stdout.String(), "y\n") || p.stderr.String() != "" {
		t.Errorf("a closed pipe: code %d, %q, %q", code, p.stdout, p.stderr)
	}
}

// JSON cannot carry bytes that are not UTF-8. Replaced, they would name another file (coreutils#11397).
func TestArgumentsThatAreNotUTF8AreRefused(t *testing.T) {
	s := launch(t)
	env := append(home(t, s.url), "BAD=a\xffb")
	for want, args := range map[string][]string{
		"the name of the command": {"exec", "--", "a\xffb"},
		"argument 2 of the command is not UTF-8 and cannot be sent: \"a\\xffb\"": {"exec", "--", "printf", "%s", "a\xffb"},
		"--command":            {"exec", "-c", "echo a\xffb"},
		"--cwd":                {"exec", "-C", "/a\xffb", "--", "pwd"},
		"--execution-id":       {"exec", "--execution-id", "a\xffb", "--", "pwd"},
		"--env number 2":       {"exec", "-e", "A=1", "-e", "B=a\xffb", "--", "env"},
		"the value of BAD":     {"exec", "-e", "BAD", "--", "env"},
		"argument 2 of attach": {"attach", "x", "a\xffb"},
		"argument 1 of cancel": {"cancel", "a\xffb"},
	} {
		code, stdout, stderr := runTroupe(t, env, args...)
		if code != 125 || stdout != "" || !strings.HasPrefix(stderr, "troupe: "+want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// Input that is piped to a detached command arrives, whole, before troupe leaves (moby#12401).
func TestDetachedCommandGetsItsInput(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	file := filepath.Join(t.TempDir(), "f")
	p := troupeCmd(t, env, "exec", "-d", "--", "sh", "-c", `cat >"$0.new"; mv "$0.new" "$0"`, file)
	p.cmd.Stdin = bytes.NewReader(data)
	if code := p.start().exit(); code != 0 {
		t.Fatalf("code %d, %q", code, p.stderr)
	}
	eventually(t, "the command wrote its input", func() bool { _, err := os.Stat(file); return err == nil })
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}

	// An interrupt while input is awaited leaves nothing behind.
	p = troupeCmd(t, env, "exec", "-d", "--", "cat", "-")
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p.start()
	eventually(t, "the session is open", func() bool {
		_, list, _ := runTroupe(t, env, "sessions", "--local")
		return strings.Contains(list, " cat -")
	})
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 130 || p.stdout.String() != "" {
		t.Errorf("interrupted: code %d, %q", code, p.stdout)
	}
	if _, list, _ := runTroupe(t, env, "sessions", "--local"); strings.Contains(list, " cat -") {
		t.Errorf("the session was left:\n%s", list)
	}
}

// attach shows what kept processes write, also once they have ended, and follows them to the end
// (hermes-agent#50317).
func TestAttachShowsWhatKeptProcessesWrite(t *testing.T) {
	s := launch(t)
	const script = `(sleep %; echo late; sleep %; echo last) & echo hi; exit 6`
	for _, pause := range []string{"0.3", "1"} {
		for _, delay := range []time.Duration{0, 2 * time.Second} {
			env := home(t, s.url)
			command := []string{"sh", "-c", strings.ReplaceAll(script, "%", pause)}
			code, stdout, _ := runTroupe(t, env, append([]string{"exec", "--on-exit=keep", "--"}, command...)...)
			if code != 6 || stdout != "hi\n" {
				t.Fatalf("exec: code %d, %q", code, stdout)
			}
			time.Sleep(delay) // the kept processes are at different places
			code, stdout, stderr := runTroupe(t, env, "attach", onlySession(t, env))
			if code != 6 || stdout != "late\nlast\n" {
				t.Errorf("pause %s, delay %s: attach: code %d, %q, %q", pause, delay, code, stdout, stderr)
			}
			if _, list, _ := runTroupe(t, env, "sessions", "--local"); list != "" {
				t.Errorf("the session was left:\n%s", list)
			}
		}
	}
}

// Ctrl-C leaves kept processes alone, and a later attach goes on.
func TestAttachLeavesKeptProcesses(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	// With a limit the server keeps what exec has read, for --from-start.
	runTroupe(t, env, "exec", "--on-exit=keep", "--output-limit=1MiB", "--",
		"sh", "-c", `(echo one; sleep 2; echo two) & exit 0`)
	id := onlySession(t, env)
	p := troupeCmd(t, env, "attach", "--from-start", id).start()
	p.stdout.await(t, "one\n")
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 130 || !strings.Contains(p.stderr.String(), "keeps running") {
		t.Errorf("code %d, %q", code, p.stderr)
	}
	if code, stdout, stderr := runTroupe(t, env, "attach", id); code != 0 || stdout != "two\n" {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

// onlySession returns the id of the one session that is remembered.
func onlySession(t *testing.T, env []string) string {
	t.Helper()
	_, list, stderr := runTroupe(t, env, "sessions", "--local")
	rows := strings.Split(strings.TrimSpace(list), "\n")
	if len(rows) != 2 {
		t.Fatalf("sessions: %q, %q", list, stderr)
	}
	id, _, _ := strings.Cut(rows[1], " ")
	return id
}

// A follower that ends first takes nothing from the one that opened the session (tmate#1).
func TestAttachDoesNotEndTheSessionOfAnother(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := troupeCmd(t, env, "exec", "--output-limit", "10MiB", "--", "sh", "-c", "seq 1000000; exit 3")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = write
	p.start()
	write.Close()
	var id string
	eventually(t, "the session is remembered", func() bool {
		_, list, _ := runTroupe(t, env, "sessions", "--local")
		rows := strings.Split(strings.TrimSpace(list), "\n")
		if len(rows) == 2 {
			id, _, _ = strings.Cut(rows[1], " ")
		}
		return id != ""
	})
	code, stdout, stderr := runTroupe(t, env, "attach", id, "--from-start")
	if n := strings.Count(stdout, "\n"); code != 3 || n != 1e6 {
		t.Errorf("attach: code %d, %d lines, %q", code, n, stderr)
	}
	if code, _, stderr := runTroupe(t, env, "attach", id, "--from-start"); code != 3 {
		t.Errorf("attach, again: code %d, %q", code, stderr)
	}
	got, err := io.ReadAll(read)
	if code := p.exit(); code != 3 || err != nil || bytes.Count(got, []byte("\n")) != 1e6 {
		t.Errorf("exec: code %d, %d lines, %v, %q", code, bytes.Count(got, []byte("\n")), err, p.stderr)
	}
}

// A pipe or file gets everything or an exit code other than 0, unless the user allowed dropping.
func TestDroppedOutputIsNoSuccess(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	command := []string{"--", "head", "-c", "300000", "/dev/zero"}
	for name, tc := range map[string]struct {
		flags []string
		code  int
		whole bool
	}{
		"whole":        {nil, 0, true},
		"limit":        {[]string{"--output-limit", "64KiB"}, 122, false},
		"limit, drop":  {[]string{"--output-limit", "64KiB", "--on-output-limit", "drop"}, 0, false},
		"drop":         {[]string{"--on-output-limit", "drop"}, 0, true},
		"limit, json":  {[]string{"--output-limit", "64KiB", "--json"}, 122, false},
		"large enough": {[]string{"--output-limit", "1MiB"}, 0, true},
	} {
		code, stdout, stderr := runTroupe(t, env, append(append([]string{"exec"}, tc.flags...), command...)...)
		if code != tc.code || tc.whole && len(stdout) != 300_000 || strings.Contains(stderr, "incomplete") == tc.whole {
			t.Errorf("%s: code %d, %d bytes, %q", name, code, len(stdout), stderr)
		}
	}
}

// With a limit the server is asked to keep the first output, since it refuses one with unread.
func TestRetentionFollowsTheFlags(t *testing.T) {
	for _, tc := range []struct {
		flags    execFlags
		terminal bool
		want     wire.Retain
	}{
		{execFlags{}, false, wire.RetainUnread},
		{execFlags{}, true, ""},
		{execFlags{detach: true}, false, ""},
		{execFlags{outputLimit: 1}, false, ""},
		{execFlags{onOutputLimit: wire.LimitDrop}, false, ""},
	} {
		if got := tc.flags.retain(tc.terminal); got != tc.want {
			t.Errorf("%+v on a terminal %t: %q, want %q", tc.flags, tc.terminal, got, tc.want)
		}
	}
}
