//go:build linux

package mcp_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/clients/mcp"
)

// vi returns the name of a vim, and leaves the test out where there is none.
func vi(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"vim", "vim.tiny"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	t.Skip("vim is not installed")
	return ""
}

// sees reads the screen until it is as it is to be: where the machine is busy, a program may pause in its drawing.
func (a *agent) sees(id any, as func(screen string) bool) (out map[string]any, text string) {
	a.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		out, text = a.call("read_screen", args{"execution": id, "yield_ms": 500})
		if as(out["output"].(string)) {
			return out, text
		}
		if time.Now().After(end) {
			a.t.Fatalf("after 20 s: %s", text)
		}
	}
}

func begins(with string) func(string) bool {
	return func(s string) bool { return strings.HasPrefix(s, with) }
}

func endsIn(with string) func(string) bool {
	return func(s string) bool { return strings.HasSuffix(s, with) }
}

// TestAgentEditsInVim: it sees what a person sees, moves with the cursor keys, whose sequences vim changes, and
// finds the file written.
func TestAgentEditsInVim(t *testing.T) {
	editor := vi(t)
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	file := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(file, []byte("one\ntwo\nthree ä木\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := a.call("exec", args{"argv": []string{editor, "-u", "NONE", file}, "terminal": true})
	id := out["execution"]
	out, text := a.sees(id, begins("one\ntwo\nthree ä木\n~\n~"))
	if out["state"] != "running" || !strings.Contains(text, "screen of 80 by 24, cursor in row 1, column 1") {
		t.Errorf("%v\n%s", out, text)
	}
	a.call("send_keys", args{"execution": id, "keys": []string{"Down", "End", "a", " and a half", "Escape"}})
	a.sees(id, begins("one\ntwo and a half\nthree"))
	a.call("send_keys", args{"execution": id, "keys": []string{":wq", "Enter"}})
	out, text = a.call("wait", args{"execution": id, "yield_ms": 20000})
	if out["state"] != "exited" || out["exit_code"] != 0.0 || !strings.HasPrefix(text, "exit code 0") {
		t.Errorf("%v", out)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "one\ntwo and a half\nthree ä木\n" {
		t.Errorf("%q, %v", b, err)
	}
	if got := a.refused("send_keys", args{"execution": id, "keys": []string{"x"}}); !strings.Contains(got, "has ended") {
		t.Error(got)
	}
}

// TestAgentReadsTop, which draws again and again: a call ends with its time, and shows a whole screen.
func TestAgentReadsTop(t *testing.T) {
	if _, err := exec.LookPath("top"); err != nil {
		t.Skip("top is not installed")
	}
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	out, _ := a.call("exec", args{"command": "exec top -d 0.2", "terminal": true, "yield_ms": 1500})
	began := time.Now()
	id := out["execution"]
	a.call("read_screen", args{"execution": id, "yield_ms": 1000})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a call of 1 s took %s", took)
	}
	a.sees(id, func(s string) bool {
		return strings.Contains(s, "load average") && strings.Contains(s, "PID USER") && !strings.Contains(s, "\x1b")
	})
	a.call("send_keys", args{"execution": id, "keys": []string{"q"}})
	if out, _ = a.call("wait", args{"execution": id, "yield_ms": 20000}); out["state"] != "exited" {
		t.Errorf("%v", out)
	}
}

// TestAgentAnswersAPasswordPrompt, which does not show it, in a shell with job control that it interrupts.
func TestAgentAnswersAPasswordPrompt(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	out, _ := a.call("exec", args{
		"argv": []string{"bash", "--norc", "-i"}, "env": args{"PS1": "ready> "}, "terminal": true, "yield_ms": 5000,
	})
	id := out["execution"]
	a.sees(id, begins("ready>"))
	keys := func(keys ...string) {
		t.Helper()
		a.call("send_keys", args{"execution": id, "keys": keys})
	}
	keys("read -s -p 'Pass''word: ' X; echo; echo got ${#X}", "Enter")
	a.sees(id, endsIn("\nPassword:"))
	keys("horse", "Enter")
	if _, got := a.sees(id, endsIn("got 5\nready>")); strings.Contains(got, "horse") {
		t.Errorf("%s", got)
	}
	keys("echo up; sleep 1000", "Enter")
	a.sees(id, endsIn("\nup"))
	keys("Ctrl-C")
	a.sees(id, endsIn("\nup\n^C\nready>"))
	a.call("write_stdin", args{"execution": id, "text": "echo Enter\r"})
	a.sees(id, endsIn("echo Enter\nEnter\nready>"))
	for _, c := range []struct {
		tool string
		in   args
		want string
	}{
		{"exec", args{"command": "cat", "terminal": true, "keep_stdin": true}, "terminal excludes"},
		{"send_keys", args{"execution": id, "keys": []string{}}, "keys is empty"},
		{"send_keys", args{"execution": id, "keys": []string{"Ctrl-F13"}}, "no key"},
		{"send_keys", args{"execution": "x", "keys": []string{"a"}}, "no execution"},
	} {
		if got := a.refused(c.tool, c.in); !strings.Contains(got, c.want) {
			t.Errorf("%v: %s", c.in, got)
		}
	}
	out, _ = a.call("exec", args{"command": "sleep 100", "yield_ms": 1})
	if got := a.refused("read_screen", args{"execution": out["execution"]}); !strings.Contains(got, "terminal true") {
		t.Error(got)
	}
}

// TestAgentSeesWhatIsNotKept: output that the server has let go of is still on the screen.
func TestAgentSeesWhatIsNotKept(t *testing.T) {
	url := "ws://" + launch(t) + "/ws"
	c, err := troupe.Dial(t.Context(), url, troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		ExecutionID: "x", Scrollback: 64 << 10, Terminal: &wire.Terminal{Cols: 120, Rows: 30},
		Command: `printf 'title\033[2;20r\033[2;1H'; seq -f %0100g 3000; printf '\033[24;1Hthe end'; sleep 1000`,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Discard()
	a := connect(t, url, func(cfg *mcp.Config) {
		cfg.Attach = func(context.Context, mcp.Call, string) (string, error) { return c.Connected().ResumeToken, nil }
	})
	in := args{"session": c.ID(), "execution": "x", "yield_ms": 500}
	for end := time.Now().Add(20 * time.Second); ; {
		out, text := a.call("read_screen", in)
		rows := strings.Split(out["output"].(string), "\n")
		if len(rows) == 24 && rows[23] == "the end" {
			if rows[0] != "title" || out["message"] != nil {
				t.Errorf("%s", text)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s", text)
		}
	}
}
