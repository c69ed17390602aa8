//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests of this file drive terminals with the programs that people drive theirs with.

// needs skips the test where one of the programs is not installed; continuous integration installs all.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatal(name, " is not installed")
		}
		t.Skip(name, " is not installed")
	}
}

// driver returns a program that drives troupe, which it finds as $TROUPE.
func driver(t *testing.T, s *instance, name string, args ...string) *exec.Cmd {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(bare("TROUPE_TEST_MAIN=1", "TROUPE="+own, "PATH="+os.Getenv("PATH"), "TERM=xterm", "LC_ALL=C.UTF-8"),
		home(t, s.url)...)
	cmd.Dir = t.TempDir()
	return cmd
}

// expects runs a script of expect to its end. In it, `see` waits for a text, and a terminal runs bash
// with the prompt "ready> ", of 33 rows and 101 columns.
func expects(t *testing.T, s *instance, script string) {
	t.Helper()
	needs(t, "expect")
	cmd := driver(t, s, "expect", "-f", "-")
	cmd.Stdin = strings.NewReader(`
		set timeout 15
		set stty_init "rows 33 columns 101"
		proc see {text} {
			expect {
				-ex $text {}
				timeout { send_user "\n\nNOT SEEN: $text\n"; exit 99 }
				eof { send_user "\n\nENDED BEFORE: $text\n"; exit 98 }
			}
		}
		proc run {line text} { send "$line\r"; see "\n$text"; see "ready> " }
		spawn $env(TROUPE) exec -it --env "PS1=ready> " -- bash --norc --noediting -i
		see "ready> "
	` + script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %q", err, out)
	}
}

func TestExpectControlsJobs(t *testing.T) {
	s := launch(t)
	expects(t, s, `
		proc job {} { send "sh -c 'echo be''gun; exec sleep 1000'\r"; see "\nbegun\r\n" }
		job
		send "\x1a";                 see "Stopped"; see "ready> "
		send "bg\r";                 see "sleep 1000' &"; see "ready> "
		run  "jobs" "\[1\]+  Running"
		send "fg\r";                 see "\nsh -c"; see "sleep 1000'\r\n"
		send "\x03";                 see "^C"; see "ready> "
		run  "echo code \$?" "code 130"
		job
		send "\x1c";                 see "Quit"; see "ready> "
		run  "jobs; echo none" "none"
		send "cat\r";                see "cat\r\n"
		send "word\r";               see "word\r\nword\r\n"
		send "\x04";                 see "ready> "
		send "exit 7\r"
		expect eof
		if {[lindex [wait] 3] != 7} { exit 97 }
	`)
}

func TestExpectChangesTheSize(t *testing.T) {
	s := launch(t)
	expects(t, s, `
		run  "stty -a | head -1" "speed 38400 baud; rows 33; columns 101; line = 0;"
		send {bash -c 'trap "echo now \$(stty size)" WINCH; echo wait""ing; while :; do sleep .05; done'}
		send "\r";                   see "\nwaiting\r\n"
		stty rows 20 columns 60 < $spawn_out(slave,name)
		see  "now 20 60"
		send "\x03";                 see "ready> "
		send "\x04"
		expect eof
	`)
}

// TestExpectAnswersPrompts: one that reads from the terminal itself, as sudo and ssh do, shows nothing of
// the answer, and the terminal is left as it was.
func TestExpectAnswersPrompts(t *testing.T) {
	needs(t, "ssh-keygen")
	key := filepath.Join(t.TempDir(), "key")
	makeKey(t, key, "open sesame")
	s := launch(t)
	expects(t, s, `
		send "ssh-keygen -y -f `+key+` < /dev/null | cut -c 1-11\r"
		see  "Enter passphrase: "
		send "open sesame\r"
		expect {
			-ex "sesame" { exit 96 }
			-ex "ssh-ed25519\r\n" {}
			timeout { exit 95 }
		}
		see  "ready> "
		run  "stty -a | grep -ow -e -echo -e echo" "echo"
		send "exit\r"
		expect eof
	`)
}

func TestExpectEditsAndPages(t *testing.T) {
	needs(t, "vim", "less")
	s := launch(t)
	dir := t.TempDir()
	note, long := filepath.Join(dir, "note"), filepath.Join(dir, "long")
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "line %d\n", i+1)
	}
	if err := os.WriteFile(long, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	expects(t, s, `
		send "vim -u NONE -i NONE -N `+note+`\r"; see "\[New\]"
		send "ihello from vim\x1b";  see "hello from vim"
		send ":wq\r";                see "written"; see "ready> "
		send "less `+long+`\r";      see "line 32\r\n"
		send "G";                    see "line 1000"
		send "/line 77\r";           see "Pattern not found"
		send "\r?line 77\r";         see "line 77"
		send "q";                    see "ready> "
		send "exit\r"
		expect eof
	`)
	if b, err := os.ReadFile(note); string(b) != "hello from vim\n" {
		t.Errorf("vim has written %q, %v", b, err)
	}
}

// TestScriptTypesAnyByte: bytes beyond ASCII arrive as they are, those of UTF-8 and others.
func TestScriptTypesAnyByte(t *testing.T) {
	needs(t, "script")
	s := launch(t)
	cmd := driver(t, s, "script", "-qefc", `"$TROUPE" exec -it -- sh -c 'stty -a | tr " ;" "\n\n" | grep -x -e cs8 -e -istrip -e iutf8
		echo up; head -n 1 | od -An -tx1; exit 5'`, "typescript")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &output{grew: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "up", func() bool { return strings.Contains(out.String(), "up\r\n") })
	if _, err := in.Write([]byte("caf\xe9 \xc3\xa9\r")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bytes", func() bool { return strings.Contains(out.String(), "63 61 66 e9 20 c3 a9 0a") })
	in.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Error(err)
	}
	record, err := os.ReadFile(filepath.Join(cmd.Dir, "typescript"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cs8\r\n", "-istrip\r\n", "iutf8\r\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if !bytes.Contains(record, []byte("\n 63 61 66 e9 20 c3 a9 0a\r\n")) {
		t.Errorf("the typescript is %q", record)
	}
}

// tmux is a tmux server with one window, in which troupe runs.
type tmux struct {
	t   *testing.T
	s   *instance
	dir string
}

// inTmux runs troupe with args in a window of 100 by 30.
func inTmux(t *testing.T, s *instance, args string) *tmux {
	t.Helper()
	needs(t, "tmux")
	w := &tmux{t, s, t.TempDir()}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", w.socket(), "kill-server").Run() }) // it may be gone with troupe
	w.do("new-session", "-d", "-x", "100", "-y", "30", `exec "$TROUPE" `+args)
	return w
}

func (w *tmux) socket() string { return filepath.Join(w.dir, "socket") }

func (w *tmux) do(args ...string) string {
	w.t.Helper()
	args = append([]string{"-S", w.socket(), "-f", "/dev/null"}, args...)
	out, err := driver(w.t, w.s, "tmux", args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (w *tmux) screen() string { return w.do("capture-pane", "-p") }

func (w *tmux) sees(text string) {
	w.t.Helper()
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the window shows\n%s", w.screen())
		}
	}()
	eventually(w.t, fmt.Sprintf("%q", text), func() bool { return strings.Contains(w.screen(), text) })
}

// TestTmuxShowsAFullScreen: vim fills the window, again when its size changes, and gives it back.
func TestTmuxShowsAFullScreen(t *testing.T) {
	needs(t, "vim")
	w := inTmux(t, launch(t), `exec -it --env "PS1=ready> " -- bash --norc -i`)
	w.sees("ready>")
	w.do("send-keys", "echo be''fore", "Enter")
	w.sees("before")
	w.do("send-keys", "vim -u NONE -i NONE -N", "Enter")
	full := func(rows int) {
		t.Helper()
		eventually(t, fmt.Sprintf("vim with %d rows", rows), func() bool {
			return strings.Count("\n"+w.screen(), "\n~") == rows-2 && !strings.Contains(w.screen(), "before")
		})
	}
	full(30)
	w.do("resize-window", "-x", "80", "-y", "20")
	full(20)
	w.do("send-keys", ":q", "Enter")
	w.sees("before")
	w.do("send-keys", "stty size", "Enter")
	w.sees("20 80")
}

// TestTmuxPastesAMegabyte in brackets, which arrives whole.
func TestTmuxPastesAMegabyte(t *testing.T) {
	const begin, end = "\x1b[200~", "\x1b[201~"
	paste := strings.Repeat("Zeile für Zeile, über und über\r", 1<<20/32)
	script := fmt.Sprintf(`stty raw -echo; printf '\033[?2004hup\r\n'; head -c %d | sha256sum; printf 'over\r\n'; sleep 100`,
		len(begin)+len(paste)+len(end))
	w := inTmux(t, launch(t), `exec -it -c "`+strings.ReplaceAll(script, `\`, `\\`)+`"`)
	w.sees("up")
	file := filepath.Join(w.dir, "paste")
	if err := os.WriteFile(file, []byte(paste), 0o600); err != nil {
		t.Fatal(err)
	}
	w.do("load-buffer", file)
	w.do("paste-buffer", "-p", "-r")
	w.sees("over")
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(begin+paste+end))); !strings.Contains(w.screen(), want) {
		t.Errorf("the digest is not %s:\n%s", want, w.screen())
	}
}

// TestCanceledTerminalIsHungUp: what runs in it can say goodbye, if the SIGTERM that follows does not kill it.
func TestCanceledTerminalIsHungUp(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	file := filepath.Join(t.TempDir(), "goodbye")
	p := sit(t, env, "exec", "-it", "-c", `trap 'echo goodbye > `+file+`; exit 9' HUP; trap '' TERM; echo up; while :; do sleep .05; done`)
	p.sees("up")
	id := strings.TrimSuffix(filepath.Base(records(t, env)[0]), ".json")
	if code, _, stderr := runTroupe(t, env, "cancel", id); code != 0 {
		t.Errorf("cancel: %d, %q", code, stderr)
	}
	if code := p.gone(); code != 9 {
		t.Errorf("code %d", code)
	}
	if b, err := os.ReadFile(file); string(b) != "goodbye\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestSSHInsideATerminal: the terminal of `ssh -t` has the size of that around it, follows it, and gets
// its keys.
func TestSSHInsideATerminal(t *testing.T) {
	needs(t, "ssh", "ssh-keygen")
	ssh := startSSHD(t)
	s := launch(t)
	p := sit(t, home(t, s.url), "exec", "-it", "-c", "exec "+ssh+` -t 127.0.0.1 'PS1="ready> " exec bash --norc -i'`)
	p.sees("ready> ")
	p.types("stty size\r")
	p.sees("30 90\r\n")
	p.resize(70, 25)
	p.types("until [ \"$(stty size)\" = '25 70' ]; do sleep .05; done; echo re''sized\r")
	p.sees("resized\r\n")
	p.types("sleep 1000\r")
	p.sees("sleep 1000\r\n")
	p.types("\x03")
	p.sees("^C")
	p.types("exit 7\r")
	if code := p.gone(); code != 7 {
		t.Errorf("code %d", code)
	}
}

func makeKey(t *testing.T, file, passphrase string) {
	t.Helper()
	args := []string{"-q", "-t", "ed25519", "-N", passphrase, "-f", file}
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}

// startSSHD starts an sshd on loopback, and returns the command line of an ssh that it lets in.
func startSSHD(t *testing.T) (ssh string) {
	t.Helper()
	sshd, err := exec.LookPath("/usr/sbin/sshd") // it must be started by its whole path
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if os.Getuid() == 0 {
		_ = os.Mkdir("/run/sshd", 0o755) // where its unprivileged half lives
	}
	dir := t.TempDir()
	makeKey(t, filepath.Join(dir, "host"), "")
	makeKey(t, filepath.Join(dir, "user"), "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close() // sshd does not take port 0
	config := fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %[2]s/host\nPidFile none\nAuthorizedKeysFile %[2]s/user.pub\n"+
		"PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nUseDNS no\n", port, dir)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said output
	cmd := exec.CommandContext(t.Context(), sshd, "-D", "-e", "-f", filepath.Join(dir, "config"))
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "sshd listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return fmt.Sprintf("ssh -F none -q -i %s/user -p %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "+
		"-o BatchMode=yes", dir, port)
}
