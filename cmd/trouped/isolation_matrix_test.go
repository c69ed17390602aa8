package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// attackBinary builds testdata/attack once for all tests of the package.
var attackBinary = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(buildDir, "attack")
	cmd := exec.Command("go", "build", "-o", binary, "./testdata/attack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the attack: %w\n%s", err, out)
	}
	return binary, nil
})

func attackProgram(t *testing.T) string {
	t.Helper()
	binary, err := attackBinary()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// line is a row of testdata/attacks.txt: what comes of an attempt without and with isolation. An
// outcome is "open", the name of an error of the kernel, or another word of the attack's.
type line struct{ name, none, session string }

// expectations reads testdata/attacks.txt.
func expectations(t *testing.T) (lines []line) {
	t.Helper()
	text, err := os.ReadFile("testdata/attacks.txt")
	if err != nil {
		t.Fatal(err)
	}
	for row := range strings.Lines(string(text)) {
		if strings.HasPrefix(row, "#") || strings.TrimSpace(row) == "" {
			continue
		}
		columns := strings.Split(strings.TrimSpace(row), "|")
		if len(columns) != 3 {
			t.Fatalf("testdata/attacks.txt: %q has not three columns", row)
		}
		for i := range columns {
			columns[i] = strings.TrimSpace(columns[i])
		}
		lines = append(lines, line{columns[0], columns[1], columns[2]})
	}
	return lines
}

// outcomes reads what the attack printed.
func outcomes(t *testing.T, text string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for row := range strings.Lines(text) {
		name, outcome, ok := strings.Cut(strings.TrimSuffix(row, "\n"), "\t")
		if _, twice := all[name]; !ok || twice {
			t.Fatalf("the attack printed %q", row)
		}
		all[name] = outcome
	}
	return all
}

// attackWithoutPod has the attack do everything to a process that nothing protects, as root, in
// namespaces of its own.
func attackWithoutPod(t *testing.T) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--mount-proc", "--net", "--ipc", "--uts",
		"--fork", "--kill-child", "/bin/sh", "-c", `ip link set lo up && exec "$0" control`, attackProgram(t))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("the attack without a pod: %v %s", err, &complaint)
	}
	return outcomes(t, out.String())
}

// newVictim starts the victim in a session of its own. It returns the session, and what the attacker
// is told.
func (p *pod) newVictim(env map[string]string) (c *troupe.Client, v map[string]any) {
	p.t.Helper()
	c = p.session("bob")
	e, err := c.Execute(p.t.Context(), wire.ExecuteParams{
		Argv: []string{"/opt/attack", "victim"}, Env: env, Stdin: true,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { _, _ = e.Copy(p.t.Context(), w, w); _ = w.Close() }()
	text, err := bufio.NewReader(r).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(text), &v)
	}
	if err != nil {
		p.t.Fatalf("the victim: %v: %s", err, text)
	}
	for key, value := range map[string]any{
		"Runner": 1, "Root": "/workspace", "Data": podData, "Tokens": podTokens, "Socket": podSocket,
		"Lock": "/troupe/run/runner.lock", "Binary": "/troupe/bin/troupe-runner", "Admin": podAdmin, "Server": podServer,
	} {
		v[key] = value
	}
	return c, v
}

// attack runs the attack in a session of alice, which it has to itself.
func (p *pod) attack(victim map[string]any, args ...string) (out string, done *wire.Completed) {
	p.t.Helper()
	told, err := json.Marshal(victim)
	if err != nil {
		p.t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	done, err = p.session("alice").Run(patiently(p.t), wire.ExecuteParams{
		Argv: append(append([]string{"/opt/attack"}, args...), string(told)),
	}, &stdout, &stderr)
	if err != nil {
		p.t.Fatal(err)
	}
	if stderr.Len() > 0 {
		p.t.Errorf("the attack says: %s", &stderr)
	}
	return stdout.String(), done
}

// attackInPod has a command of one session attack one of another session.
func attackInPod(t *testing.T, level string) map[string]string {
	t.Helper()
	p := newPod(t, []string{attackProgram(t)}, "--isolation="+level)
	_, victim := p.newVictim(nil)
	out, done := p.attack(victim, "all")
	if done.ExitCode != 0 {
		t.Fatalf("the attack ended with %+v: %s", done, out)
	}
	return outcomes(t, out)
}

// TestAttackMatrix: a command of one session tries everything of testdata/attacks.txt on a command
// of another session, on the runner and on trouped, in the chart's pod. Each attempt fails in the way
// that the table says, or is open and docs/isolation.md lists it. Each succeeds where nothing
// protects the victim, or its failure would show nothing.
func TestAttackMatrix(t *testing.T) {
	needsPods(t)
	if err := confine.Available(); err != nil {
		t.Skip(err)
	}
	table := expectations(t)
	control := attackWithoutPod(t)
	none, session := attackInPod(t, "none"), attackInPod(t, "session")
	t.Logf("%-55s  %-12s  %-12s", "", "none", "session")
	for _, want := range table {
		t.Logf("%-55s  %-12s  %-12s", want.name, none[want.name], session[want.name])
		switch got := control[want.name]; got {
		case "open":
		case "ENOENT", "ENOSYS", "EOPNOTSUPP":
			t.Logf("%s: not on this kernel: %s", want.name, got)
			continue
		default:
			t.Errorf("%s: %q where nothing protects the victim", want.name, got)
		}
		for _, level := range []struct{ name, want, got string }{
			{"none", want.none, none[want.name]}, {"session", want.session, session[want.name]},
		} {
			if level.got != level.want {
				t.Errorf("%s: %q with --isolation %s, want %q", want.name, level.got, level.name, level.want)
			}
		}
	}
	for name := range control {
		if !slices.ContainsFunc(table, func(l line) bool { return l.name == name }) {
			t.Errorf("testdata/attacks.txt lacks %s (%s | %s)", name, none[name], session[name])
		}
	}
}

// TestOpenAttacksAreListed: docs/isolation.md lists the attempts that succeed in spite of isolation, and
// no others. In backquotes, {a,b} stands for a and for b.
func TestOpenAttacksAreListed(t *testing.T) {
	_, list, _ := strings.Cut(page(t, "docs/isolation.md"), "\n| point | attempts |\n")
	list, _, _ = strings.Cut(list, "\n\n")
	listed := make(map[string]bool)
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
		for _, name := range alternatives(m[1]) {
			listed[name] = true
		}
	}
	for _, l := range expectations(t) {
		if open := l.session == "open"; open != listed[l.name] {
			t.Errorf("%s: open is %t, listed in docs/isolation.md is %t", l.name, open, listed[l.name])
		}
		delete(listed, l.name)
	}
	for name := range listed {
		t.Errorf("docs/isolation.md lists %s, which is no attempt", name)
	}
}

// alternatives writes out the first {a,b} of a text, and then the others.
func alternatives(text string) (all []string) {
	before, rest, ok := strings.Cut(text, "{")
	if !ok {
		return []string{text}
	}
	choices, after, _ := strings.Cut(rest, "}")
	for choice := range strings.SplitSeq(choices, ",") {
		all = append(all, alternatives(before+choice+after)...)
	}
	return all
}

// kill is what comes of an attempt to end somebody else's work.
type kill struct {
	name          string
	none, session fate
}

// fate is the outcome for the attacker, and whether the victim is dead.
type fate struct {
	outcome string
	dead    bool
}

var kills = []kill{
	{"kill: SIGKILL", fate{"open", true}, fate{"EPERM", false}},
	{"kill: SIGKILL to the group", fate{"open", true}, fate{"EPERM", false}},
	{"kill: SIGKILL to the init", fate{"open", true}, fate{"EPERM", false}},
	// With isolation it reaches its own session's. Without, the attacker's init, too: it may be dead before it says so.
	{"kill: SIGKILL to all", fate{"", true}, fate{"open", false}},
	{"kill: SIGKILL to each thread", fate{"open", true}, fate{"EPERM", false}},
	{"kill: SIGKILL to each thread of the init", fate{"open", true}, fate{"EPERM", false}},
	{"kill: through a pidfd", fate{"open", true}, fate{"EPERM", false}},
	{"kill: PTRACE_O_EXITKILL", fate{"open", true}, fate{"EPERM", false}},
	{"kill: RLIMIT_CPU", fate{"EPERM", false}, fate{"EPERM", false}},
	{"kill: RLIMIT_NOFILE of the runner", fate{"EPERM", false}, fate{"EPERM", false}},
	{"kill: RLIMIT_CPU of the runner", fate{"EPERM", false}, fate{"EPERM", false}},
}

// TestKillMatrix: with isolation no command ends what another session runs, nor the runner. Each
// attempt has a victim of its own, whose life counts, not what the attacker is told.
func TestKillMatrix(t *testing.T) {
	needsPods(t)
	if err := confine.Available(); err != nil {
		t.Skip(err)
	}
	for _, level := range []string{"none", "session"} {
		p := newPod(t, []string{attackProgram(t)}, "--isolation="+level)
		for _, k := range kills {
			want := k.none
			if level == "session" {
				want = k.session
			}
			victims, v := p.newVictim(map[string]string{"VICTIM_BUSY": "yes"})
			out, _ := p.attack(v, "one", k.name)
			if got := outcomes(t, out)[k.name]; got != want.outcome && want.outcome != "" {
				t.Errorf("%s with --isolation %s: %q, want %q", k.name, level, got, want.outcome)
			}
			eventually(t, func() error {
				// A command of the same session, which a runner that lives has to start.
				done, err := victims.Run(bounded(t), wire.ExecuteParams{
					Command: fmt.Sprintf("grep -q '^State:.[^Z]' /proc/%v/status", v["PID"]),
				}, io.Discard, io.Discard)
				if err != nil {
					return err
				}
				if dead := done.ExitCode != 0; dead != want.dead {
					return fmt.Errorf("%s with --isolation %s: the victim is dead: %t, want %t", k.name, level, dead, want.dead)
				}
				return nil
			})
			_ = victims.Close()
		}
	}
}
