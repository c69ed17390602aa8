//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// casted returns what the events of an asciicast show. Every line must be whole.
func casted(t *testing.T, cast string) string {
	t.Helper()
	var all strings.Builder
	if cast != "" && !strings.HasSuffix(cast, "\n") {
		t.Errorf("the last line is cut: %q", cast[max(0, len(cast)-80):])
	}
	last := -1.0
	for i, line := range strings.Split(strings.TrimSuffix(cast, "\n"), "\n") {
		var event []any
		if i == 0 {
			var header map[string]any
			if json.Unmarshal([]byte(line), &header) != nil || header["version"] != 2.0 {
				t.Fatalf("the first line is %q", line)
			}
			continue
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil || len(event) != 3 {
			t.Fatalf("line %d is %q", i, line)
		}
		if at, _ := event[0].(float64); at < last {
			t.Errorf("line %d goes back from %.3f: %q", i, last, line)
		} else {
			last = at
		}
		if event[1] != "o" {
			fmt.Fprintf(&all, "<%s>", event[2])
			continue
		}
		fmt.Fprint(&all, event[2])
	}
	return all.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shows waits until a recording has a text.
func shows(t *testing.T, file, text string) {
	t.Helper()
	eventually(t, file+" shows "+text, func() bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), text)
	})
}

// TestShellIsRecordedToItsEnd, with what it had shown before, changes of size, and no password.
func TestShellIsRecordedToItsEnd(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := sit(t, env, "shell", "demo")
	p.types("PS1='ready> '; echo a''b\r")
	p.sees("ab\r\n")
	id := onlySession(t, env)
	file := filepath.Join(t.TempDir(), "demo.cast")
	r := troupeCmd(t, env, "record", id, "-o", file).start()
	shows(t, file, "ab\\r\\n")
	p.resize(100, 40)
	p.types("read -s -p 'Pass''word: ' X\r")
	p.sees("Password: ")
	p.types("horse\r")
	p.types("stty size; exit\r")
	if code := p.gone(); code != 0 {
		t.Errorf("the shell: code %d", code)
	}
	if code := r.exit(); code != 0 || !strings.Contains(r.stderr.String(), file+" has ") {
		t.Errorf("code %d, %s", code, r.stderr)
	}
	text := casted(t, read(t, file))
	for _, want := range []string{"ab\r\n", "<100x40>", "40 100\r\n", "exit\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q: %q", want, text)
		}
	}
	if strings.Contains(text, "horse") {
		t.Errorf("the password is in it: %q", text)
	}
}

// TestRecordingEndsWithCtrlC, and with whatever else ends troupe: the file is whole, and the terminal runs on.
func TestRecordingEndsWithCtrlC(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := sit(t, env, "exec", "-it", "--", "sh", "-c", "while :; do echo tick; sleep .01; done")
	p.sees("tick\r\ntick")
	id := onlySession(t, env)
	dir := t.TempDir()
	for sig, want := range map[syscall.Signal]int{
		syscall.SIGINT: 0, syscall.SIGTERM: 0, syscall.SIGHUP: exitHangup, syscall.SIGKILL: -int(syscall.SIGKILL),
	} {
		file := filepath.Join(dir, sig.String())
		r := troupeCmd(t, env, "record", id, "-o", file).start()
		shows(t, file, "tick")
		r.signal(sig)
		if code := r.exit(); code != want {
			t.Errorf("%v: code %d, want %d; %s", sig, code, want, r.stderr)
		}
		if text := casted(t, read(t, file)); !strings.Contains(text, "tick\r\n") {
			t.Errorf("%v: %q", sig, text)
		}
	}
	code, out, stderr := runTroupe(t, env, "record", id, "--now")
	if text := casted(t, out); code != 0 || !strings.Contains(text, "tick\r\ntick") {
		t.Errorf("--now: code %d, %q, %s", code, text, stderr)
	}
	code, _, stderr = runTroupe(t, env, "record", id, "--now", "-o", filepath.Join(dir, syscall.SIGINT.String()))
	if code != exitTroupe || !strings.Contains(stderr, "exists: remove it") {
		t.Errorf("a file that exists: code %d, %s", code, stderr)
	}
	if code, _, stderr = runTroupe(t, env, "record", id, "no-such", "--now"); code != exitTroupe || stderr == "" {
		t.Errorf("no such execution: code %d, %s", code, stderr)
	}
	p.types("\x03")
	p.gone()
}

// TestRecordingIsResumed after each of many cuts, in the middle of a flood: it has everything once.
func TestRecordingIsResumed(t *testing.T) {
	s := launch(t)
	l := layLine(t, s.listen)
	p := sit(t, home(t, s.url), "exec", "-it", "--", "sh", "-c",
		"for i in $(seq 20000); do echo line $i ä; case $i in *000) sleep .1;; esac; done; echo over; read x")
	env := home(t, "ws://"+l.Addr().String()+"/ws")
	var id string
	eventually(t, "the session", func() bool {
		_, list, _ := runTroupe(t, env, "sessions")
		rows := strings.Split(strings.TrimSpace(list), "\n")
		if len(rows) == 2 {
			id, _, _ = strings.Cut(rows[1], " ")
		}
		return id != ""
	})
	file := filepath.Join(t.TempDir(), "cut.cast")
	r := troupeCmd(t, env, "record", id, "-o", file).start()
	for i := 0; i < 12; i++ {
		time.Sleep(time.Duration(20+rand.Intn(200)) * time.Millisecond)
		l.cut(true)
		l.cut(false)
	}
	p.sees("over")
	shows(t, file, "over")
	p.types("\r")
	p.gone()
	if code := r.exit(); code != 0 {
		t.Errorf("code %d, %s", code, r.stderr)
	}
	var want strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&want, "line %d ä\r\n", i+1)
	}
	want.WriteString("over\r\n\r\n")
	if text := casted(t, read(t, file)); text != "<90x30>"+want.String() && text != want.String() {
		at := 0
		for at < min(len(text), want.Len()) && text[at] == want.String()[at] {
			at++
		}
		t.Errorf("%d bytes, want %d; it differs at %d: %q", len(text), want.Len(), at, text[at:min(len(text), at+80)])
	}
	if !strings.Contains(r.stderr.String(), "broke off") {
		t.Errorf("no cut was in the middle: %s", r.stderr)
	}
}

// TestRecordingToAFullDiskIsWhole: the file ends with a whole line, the error says what is wrong; a reader that goes
// away is silent.
func TestRecordingToAFullDiskIsWhole(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := sit(t, env, "exec", "-it", "--", "sh", "-c", "while :; do echo tick; sleep .01; done")
	p.sees("tick")
	id := onlySession(t, env)
	file := filepath.Join(t.TempDir(), "full.cast")
	// A limit of 4 blocks of 512 bytes takes the place of a disk (setrlimit(2)).
	r := shellCmd(t, env, `ulimit -f 4; exec "$TROUPE" record `+id+" -o "+file).start()
	if code := r.exit(); code != exitTroupe || !strings.Contains(r.stderr.String(), "writing "+file) {
		t.Errorf("code %d, %s", code, r.stderr)
	}
	if text := casted(t, read(t, file)); !strings.Contains(text, "tick\r\ntick") {
		t.Errorf("%q", text)
	}
	r = troupeCmd(t, env, "record", id)
	r.cmd.Stdout = full(t)
	if code := r.start().exit(); code != exitTroupe || !strings.Contains(r.stderr.String(), "writing stdout") {
		t.Errorf("/dev/full: code %d, %s", code, r.stderr)
	}
	r = shellCmd(t, env, `{ "$TROUPE" record `+id+`; echo $? >&2; } | head -n 3`).start()
	if r.exit(); strings.TrimSpace(r.stderr.String()) != fmt.Sprint(exitPipe) {
		t.Errorf("a reader that goes away: %s", r.stderr)
	}
	p.types("\x03")
	p.gone()
}

// TestRecordingOverADrain has what the terminal showed until the server ended it.
func TestRecordingOverADrain(t *testing.T) {
	s := launch(t, "--drain-timeout", "2s", "--cancel-grace", "1s")
	env := home(t, s.url)
	p := sit(t, env, "exec", "-it", "--", "sh", "-c", "echo up; sleep 1; echo later; exec sleep 1000")
	p.sees("up")
	file := filepath.Join(t.TempDir(), "drain.cast")
	r := troupeCmd(t, env, "record", onlySession(t, env), "-o", file).start()
	shows(t, file, "up")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.sees("later")
	p.gone()
	eventually(t, "the end of the server", func() bool {
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	})
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT) // it has ended, or looks for the server
	code := r.exit()
	if text := casted(t, read(t, file)); code != 0 || !strings.Contains(text, "up\r\nlater\r\n") {
		t.Errorf("code %d, %q, %s", code, text, r.stderr)
	}
}

// TestContinuedRecordingHasAllOnce: wherever the lines break off, and however else they are cut when they come again.
func TestContinuedRecordingHasAllOnce(t *testing.T) {
	random := rand.New(rand.NewSource(3))
	for range 300 {
		var story []castEvent // one rune each
		for at, i := 0, 0; i < 40; i++ {
			at += random.Intn(2)
			e := castEvent{fmt.Sprintf("%d.000", at), "o", string([]rune("aä木😀\n\"")[random.Intn(6)])}
			if random.Intn(6) == 0 {
				e.code, e.data = "r", fmt.Sprintf("%dx24", 80+random.Intn(3))
			}
			story = append(story, e)
		}
		r := &recorder{}
		var got, want strings.Builder
		for done := false; !done; {
			r.again()
			lines := []string{`{"version":2}` + "\n"}
			for i := 0; i < len(story); { // the server joins what came at one time as it likes
				e := story[i]
				if i++; r.last != "" && len(e.time) <= len(r.last) && e.time < r.last || len(e.time) < len(r.last) {
					continue
				}
				for e.code == "o" && i < len(story) && story[i].code == "o" && story[i].time == e.time && random.Intn(3) > 0 {
					e.data += story[i].data
					i++
				}
				lines = append(lines, string(e.line()))
			}
			stop := random.Intn(2*len(lines)) + 1
			done = stop >= len(lines)
			for _, line := range lines[:min(stop, len(lines))] {
				out, err := r.continued([]byte(line))
				if err != nil {
					t.Fatal(err)
				}
				got.Write(out)
			}
		}
		for _, e := range story {
			want.WriteString(e.code + e.data)
		}
		var all strings.Builder
		for i, line := range strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n") {
			if i == 0 {
				continue
			}
			e, err := parseCastEvent([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if e.code != "o" {
				all.WriteString(e.code + e.data)
				continue
			}
			for _, r := range e.data {
				all.WriteString("o" + string(r))
			}
		}
		if all.String() != want.String() {
			t.Fatalf("%q, want %q", all.String(), want.String())
		}
	}
}
