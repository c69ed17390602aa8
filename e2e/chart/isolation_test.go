package chart

import (
	"slices"
	"testing"
)

// TestIsolationIsPassedToTheRunner: mode and require decide together what the
// runner does on a node that cannot separate sessions. Protects from: a chart
// that asks for walls and goes on without them.
func TestIsolationIsPassedToTheRunner(t *testing.T) {
	for _, c := range []struct{ values, want, asked string }{
		{"", "auto", "auto"},
		{"isolation: {mode: auto, require: false}", "auto", "auto"},
		{"isolation: {mode: auto, require: true}", "session", "session"},
		{"isolation: {mode: session}", "session", "session"},
		{"isolation: {mode: session, require: true}", "session", "session"},
		{"isolation: {mode: session, require: false}", "auto", "session"}, // and TroupeIsolationMissing fires
		{"isolation: {mode: none}", "none", "none"},
		{"isolation: {mode: none, require: false}", "none", "none"},
	} {
		r, err := render(loadChart(t), parse(t, c.values))
		if err != nil {
			t.Fatal(err)
		}
		runner, _ := container(t, r, "runner")
		if !slices.Contains(runner.Args, "--isolation="+c.want) {
			t.Errorf("%s: the runner is started with %q, want --isolation=%s", c.values, runner.Args, c.want)
		}
		if got := setting(t, r.config(t), "isolation"); got != c.asked {
			t.Errorf("%s: trouped is told %s, want %s", c.values, got, c.asked)
		}
	}
}

// TestMountsAreReadable: what an operator mounts for commands, sessions can
// read, wherever it is. Protects from: a volume below /workspace or /troupe that
// is there and that no command can open.
func TestMountsAreReadable(t *testing.T) {
	runner, _ := container(t, renderNamed(t, "isolation"), "runner")
	for _, want := range []string{
		"--workspace=/workspace", "--workspace-seed=/troupe/seed", "--isolation-write=/var/cache/builds",
		"--isolation-read=/var/cache/builds,/workspace/data,/troupe/seed,/opt/tools",
		"--isolation-shared-tmp", "--isolation-sysvipc", "--isolation-proc=none",
	} {
		if !slices.Contains(runner.Args, want) {
			t.Errorf("the runner is started with %q, without %s", runner.Args, want)
		}
	}
}
