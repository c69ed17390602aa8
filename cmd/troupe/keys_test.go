//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// TestEscapesAreTakenFromKeys at the beginning of lines, however the keys come.
func TestEscapesAreTakenFromKeys(t *testing.T) {
	for keys, want := range map[string]struct {
		keys        string
		help, leave bool
	}{
		"ls ~/x\r": {keys: "ls ~/x\r"}, "~~x\r": {keys: "~x\r"}, "a~.b": {keys: "a~.b"}, "~xy": {keys: "~xy"},
		"~/\r~~/": {keys: "~/\r~/"}, "\r~?x": {keys: "\rx", help: true}, "a\r~.lost": {keys: "a\r", leave: true},
	} {
		for size := 1; size <= len(keys); size++ {
			var got, notes strings.Builder
			k, left := newKeys(&app{stderr: &notes}, nil), false
			for rest := keys; rest != "" && !left; {
				n := min(size, len(rest))
				var p []byte
				p, left = k.filter([]byte(rest[:n]))
				got.Write(p)
				rest = rest[n:]
			}
			if helped := strings.Contains(notes.String(), "~~ sends ~"); got.String() != want.keys || left != want.leave ||
				helped != want.help {
				t.Errorf("%q in parts of %d: %q, helped %v, left %v", keys, size, got.String(), helped, left)
			}
		}
	}
}

// TestKeysBeforeLeavingArrive although they came with "~." at once, as a paste does.
func TestKeysBeforeLeavingArrive(t *testing.T) {
	s := launch(t)
	p := sit(t, home(t, s.url), "exec", "-it", "--env", "PS1=ready> ", "--", "bash", "--norc", "-i")
	p.sees("ready> ")
	file := filepath.Join(t.TempDir(), "typed")
	p.types("echo typed > " + file + "\r~.")
	if code := p.gone(); code != 0 {
		t.Errorf("leaving: code %d", code)
	}
	eventually(t, "the command ran", func() bool { b, _ := os.ReadFile(file); return string(b) == "typed\n" })
	if strings.Contains(p.screen(), "may not have arrived") {
		t.Errorf("a warning: %q", p.screen())
	}
}

// TestRefusedKeysAreNoted, and the terminal can be left: here the server has forgotten a writer for others.
func TestRefusedKeysAreNoted(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	p := sit(t, env, "exec", "-it", "--env", "PS1=ready> ", "--", "bash", "--norc", "-i")
	p.sees("ready> ")
	p.types("echo one''two\r")
	p.sees("onetwo")
	r, err := readRecord(records(t, env)[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 32 {
		c, err := troupe.Attach(t.Context(), s.url, r.ID, r.ResumeToken, map[string]int64{r.Execution: 0}, troupe.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Executions()[r.Execution].Input(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		c.Detach()
	}
	p.types("y")
	p.sees("what was typed last has not arrived: ")
	p.sees("to leave, type ~. at the beginning of a line")
	p.types("y")
	p.types("\r~.")
	p.sees("troupe attach ")
	if code := p.gone(); code != 0 {
		t.Errorf("leaving: code %d", code)
	}
	if n := strings.Count(p.screen(), "has not arrived"); n != 1 {
		t.Errorf("%d notes", n)
	}
}

// TestAttachedTerminalHasASmallWindow: also of a terminal that another machine has started, no more output
// than that lies between Ctrl-C and its answer.
func TestAttachedTerminalHasASmallWindow(t *testing.T) {
	s := launch(t)
	p := sit(t, home(t, s.url), "shell", "build")
	p.types("PS1='ready> '; echo u''p\r")
	p.sees("up\r\n")
	p.types("~.")
	p.gone()
	p = sit(t, home(t, s.url), "shell", "build")
	p.sees("up\r\n")
	p.types("yes\r")
	p.sees("y\r\ny\r\ny\r\n")
	p.mu.Lock() // nothing more is read
	before := p.seen.Len()
	time.Sleep(time.Second) // until all that may be under way is
	p.types("\x03")
	p.mu.Unlock()
	var came int
	eventually(t, "a prompt", func() bool {
		came = strings.Index(p.screen()[before:], "ready> ")
		return came >= 0
	})
	if came > 4*terminalWindow {
		t.Errorf("%d bytes came before the prompt", came)
	}
	p.types("exit\r")
	p.gone()
}
