package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestPromise17LimitsAreTheServers: whatever a client asks for, it gets no more time, output or
// memory than the server's settings say, and less when it asks for less.
func TestPromise17LimitsAreTheServers(t *testing.T) {
	t.Parallel() // it waits more than it works
	const limit = 1000
	s := launch(t, "--stream-timeout", "1s", "--max-duration", "3s", "--max-output", "1000",
		"--env", "TROUPE_TEST=server", "--workdir", t.TempDir())
	c, _ := session(t, s, "/ws")
	silent, busy := "sleep 1000", "while :; do echo; sleep 0.1; done"
	for name, x := range map[string]struct {
		params wire.ExecuteParams
		reason wire.Reason // tells which limit came first
	}{
		"more silence": {wire.ExecuteParams{Command: silent, Timeout: 1e6, MaxDuration: 1e6}, wire.ReasonStreamTimeout},
		"no wishes":    {wire.ExecuteParams{Command: silent}, wire.ReasonStreamTimeout},
		"more time":    {wire.ExecuteParams{Command: busy, Timeout: 1e6, MaxDuration: 1e6}, wire.ReasonDeadline},
		"less time":    {wire.ExecuteParams{Command: silent, MaxDuration: 0.3}, wire.ReasonDeadline},
		"less silence": {wire.ExecuteParams{Command: silent, Timeout: 0.2, MaxDuration: 0.8}, wire.ReasonStreamTimeout},
	} {
		if r := c.run(x.params); r.done.Reason != x.reason {
			t.Errorf("%s: ended as %s, want %s", name, r.done.Reason, x.reason)
		}
	}
	for wish, most := range map[int64]int64{1 << 40: limit, 0: limit, 100: 100} {
		r := c.run(wire.ExecuteParams{Command: "yes | head -n 100000", OutputLimit: wish})
		if r.done.OutputBytes > most || r.done.OutputBytes < most-10 || r.done.DroppedBytes == 0 {
			t.Errorf("output_limit %d: %d bytes, want %d", wish, r.done.OutputBytes, most)
		}
	}
	r := c.run(wire.ExecuteParams{Argv: []string{"/usr/bin/env"}, Env: map[string]string{"TROUPE_TEST": "client"}})
	got := r.text(wire.Stdout)
	if strings.Count(got, "TROUPE_TEST=") != 1 || !strings.Contains(got, "TROUPE_TEST=client\n") {
		t.Errorf("the variable that client and server set is there as\n%s", got)
	}
}

// TestPromise17OnlyAllowedCommandsRun: with an allow-list no other program runs, whatever its name
// and the working directory, no shell string, and no code that a variable of the client's names.
func TestPromise17OnlyAllowedCommandsRun(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	script := "#!/bin/sh\ntouch " + ran + "\n"
	allowed := filepath.Join(dir, "allowed", "tool")
	evil := filepath.Join(dir, "evil")
	for path, content := range map[string]string{
		allowed:                      "#!/bin/sh\necho the tool: $GREETING \"$@\"\n",
		filepath.Join(evil, "tool"):  script,
		filepath.Join(evil, "other"): script,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := launch(t, "--allow-command", allowed+",/bin/echo", "--env", "PATH="+evil+":/usr/bin:/bin",
		"--allow-env", "GREETING,LC_*")
	c, _ := session(t, s, "/ws")
	env := map[string]string{"GREETING": "hello", "LC_ALL": "C"}
	for _, params := range []wire.ExecuteParams{
		{Command: "touch " + ran},
		{Command: allowed},
		{Command: "tool"},
		{Argv: []string{filepath.Join(evil, "tool")}},
		{Argv: []string{"./tool"}},
		{Argv: []string{"../evil/tool"}},
		{Argv: []string{filepath.Join(dir, "allowed") + "/../evil/tool"}},
		{Argv: []string{allowed + "/../../evil/tool"}},
		{Argv: []string{"/" + allowed}},
		{Argv: []string{"other"}},
		{Argv: []string{filepath.Join(evil, "other")}},
		{Argv: []string{"sh", "-c", "touch " + ran}},
		{Argv: []string{"/bin/sh", "-c", "touch " + ran}},
		{Argv: []string{"/usr/bin/env", "touch", ran}},
		{Argv: []string{"touch", ran}},
	} {
		params.Env, params.Cwd = env, evil
		if err := c.call(wire.MethodExecute, params, nil); err == nil || err.Code != wire.CodeNotAllowed {
			t.Errorf("%q %q: %v, want it to be refused", params.Command, params.Argv, err)
		}
	}
	for _, name := range []string{"LD_PRELOAD", "LD_LIBRARY_PATH", "GCONV_PATH", "ENV", "BASH_ENV", "PATH", "GREETINGS"} {
		params := wire.ExecuteParams{Argv: []string{"tool"}, Env: map[string]string{name: filepath.Join(evil, "other")}}
		err := c.call(wire.MethodExecute, params, nil)
		if err == nil || err.Code != wire.CodeNotAllowed || !strings.Contains(err.Message, name) {
			t.Errorf("%s of the client: %v, want it to be refused", name, err)
		}
	}
	for want, argv := range map[string][]string{
		"the tool: hello a b\n": {"tool", "a", "b"},
		"the tool: hello c\n":   {allowed, "c"},
		"$(touch x) d\n":        {"echo", "$(touch x)", "d"},
	} {
		r := c.run(wire.ExecuteParams{Argv: argv, Env: env, Cwd: evil})
		if got := r.text(wire.Stdout); got != want || r.done.ExitCode != 0 {
			t.Errorf("%q: %q, %+v", argv, got, r.done)
		}
	}
	if _, err := os.Stat(ran); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is not on the list has run: %v", err)
	}
}
