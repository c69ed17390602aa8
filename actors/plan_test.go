package actors

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// planner returns an engine that can plan and nothing else.
func planner(t *testing.T, allowed ...string) *Engine {
	t.Helper()
	allow, err := newAllowList(allowed, []string{"LANG", "LC_*", "A"})
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{limits: DefaultLimits(), workdir: "/work", allow: allow}
}

// planned returns the plan of a request that must be granted.
func planned(t *testing.T, e *Engine, params wire.ExecuteParams) *plan {
	t.Helper()
	if len(params.Argv) == 0 {
		params.Command = "true"
	}
	p, err := e.plan(&params)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPlanHoldsTimesToTheLimits: a client may ask for less time than the server grants, never for
// more.
func TestPlanHoldsTimesToTheLimits(t *testing.T) {
	const none = 0
	for name, c := range map[string]struct {
		wish        float64 // seconds
		limit, want time.Duration
	}{
		"no wish":                         {none, time.Minute, time.Minute},
		"a shorter one":                   {1.5, time.Minute, 1500 * time.Millisecond},
		"the limit itself":                {60, time.Minute, time.Minute},
		"a longer one":                    {61, time.Minute, time.Minute},
		"a much longer one":               {1e6, time.Minute, time.Minute},
		"a wish where nothing is limited": {1e6, none, 1e6 * time.Second},
		"no wish and no limit":            {none, none, none},
		"less than a nanosecond":          {1e-10, time.Minute, 1},
		"more than a Duration can hold":   {1e300, time.Minute, time.Minute},
		"such a one and no limit":         {1e300, none, math.MaxInt64},
	} {
		e := planner(t)
		e.limits.StreamTimeout, e.limits.MaxDuration = c.limit, c.limit
		p := planned(t, e, wire.ExecuteParams{Timeout: c.wish, MaxDuration: c.wish})
		if p.streamTimeout != c.want {
			t.Errorf("timeout, %s: %v, want %v", name, p.streamTimeout, c.want)
		}
		if p.maxDuration != c.want {
			t.Errorf("max_duration, %s: %v, want %v", name, p.maxDuration, c.want)
		}
	}
}

// TestPlanTellsTheTimesApart: the limit of one time is not that of the other.
func TestPlanTellsTheTimesApart(t *testing.T) {
	e := planner(t)
	e.limits.StreamTimeout, e.limits.MaxDuration = time.Minute, time.Hour
	for _, params := range []wire.ExecuteParams{{}, {Timeout: 1e6, MaxDuration: 1e6}} {
		if p := planned(t, e, params); p.streamTimeout != time.Minute || p.maxDuration != time.Hour {
			t.Errorf("%+v: timeout %v, max_duration %v", params, p.streamTimeout, p.maxDuration)
		}
	}
	p := planned(t, e, wire.ExecuteParams{Timeout: 2, MaxDuration: 3})
	if p.streamTimeout != 2*time.Second || p.maxDuration != 3*time.Second {
		t.Errorf("timeout %v, max_duration %v", p.streamTimeout, p.maxDuration)
	}
}

func TestPlanHoldsOutputToTheLimit(t *testing.T) {
	e := planner(t)
	e.limits.MaxOutput = 1000
	for wish, want := range map[int64]int64{0: 1000, 1: 1, 999: 999, 1000: 1000, 1001: 1000, 1 << 40: 1000} {
		if p := planned(t, e, wire.ExecuteParams{OutputLimit: wish}); p.outputLimit != want {
			t.Errorf("output_limit %d: %d, want %d", wish, p.outputLimit, want)
		}
	}
}

// TestPlanTakesTheServersOwnLimits: some limits are no client's choice.
func TestPlanTakesTheServersOwnLimits(t *testing.T) {
	e := planner(t)
	e.limits.MaxLine, e.limits.MaxMemory = 100, 1<<20
	if p := planned(t, e, wire.ExecuteParams{}); p.maxLine != 100 || p.spec.MaxMemory != 1<<20 {
		t.Errorf("lines of %d bytes, %d bytes of memory", p.maxLine, p.spec.MaxMemory)
	}
}

func TestPlanTakesTheClientsChoices(t *testing.T) {
	e := planner(t)
	p := planned(t, e, wire.ExecuteParams{})
	if p.id != "" || p.encoding != "" || !p.lines || p.cancelOnLimit || p.keep || p.spec.Stdin {
		t.Errorf("the defaults are %+v", p)
	}
	p = planned(t, e, wire.ExecuteParams{
		ExecutionID: "x1", Encoding: wire.EncodingBase64, Framing: wire.FramingRaw,
		OnOutputLimit: wire.LimitCancel, OnExit: wire.ExitKeep, Stdin: true,
	})
	if p.id != "x1" || p.encoding != wire.EncodingBase64 || p.lines || !p.cancelOnLimit || !p.keep || !p.spec.Stdin {
		t.Errorf("the choices became %+v", p)
	}
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if p := planned(t, e, wire.ExecuteParams{Traceparent: parent}); p.parent.IsValid() {
		t.Error("a trace is followed though the server traces nothing")
	}
}

func TestPlanRunsInTheWorkdirUnlessToldOtherwise(t *testing.T) {
	e := planner(t)
	for cwd, want := range map[string]string{
		"": "/work", ".": "/work", "sub": "/work/sub", "sub/../x": "/work/x", "/tmp": "/tmp", "/": "/",
	} {
		if got := planned(t, e, wire.ExecuteParams{Cwd: cwd}).spec.Dir; got != want {
			t.Errorf("cwd %q: %q, want %q", cwd, got, want)
		}
	}
}

// TestPlanReplacesVariables: a variable that is there twice means one thing to a shell and another
// to a C library.
func TestPlanReplacesVariables(t *testing.T) {
	e := planner(t)
	e.env = []string{"PATH=/bin", "A=server", "AB=server", "E="}
	server := slices.Clone(e.env)
	for name, c := range map[string]struct {
		client map[string]string
		want   []string
	}{
		"none":                {nil, []string{"A=server", "AB=server", "E=", "PATH=/bin"}},
		"one of the server's": {map[string]string{"A": "client"}, []string{"A=client", "AB=server", "E=", "PATH=/bin"}},
		"all of the server's": {
			map[string]string{"A": "1", "AB": "2", "E": "3", "PATH": "4"},
			[]string{"A=1", "AB=2", "E=3", "PATH=4"},
		},
		"one of its own": {
			map[string]string{"C": "x=y"},
			[]string{"A=server", "AB=server", "C=x=y", "E=", "PATH=/bin"},
		},
		"emptied": {map[string]string{"PATH": ""}, []string{"A=server", "AB=server", "E=", "PATH="}},
		"case tells two apart": {
			map[string]string{"a": "client"},
			[]string{"A=server", "AB=server", "E=", "PATH=/bin", "a=client"},
		},
	} {
		got := planned(t, e, wire.ExecuteParams{Env: c.client}).spec.Env
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if !slices.Equal(e.env, server) {
			t.Fatalf("%s: the server's own became %q", name, e.env)
		}
	}
}

// TestPlanRunsWhatWasAskedFor: without an allow-list everything may run, a shell string through
// /bin/sh.
func TestPlanRunsWhatWasAskedFor(t *testing.T) {
	e := planner(t)
	for name, c := range map[string]struct {
		params wire.ExecuteParams
		want   []string
	}{
		"a shell string":        {wire.ExecuteParams{Command: "ls | wc -l"}, []string{"/bin/sh", "-c", "ls | wc -l"}},
		"argv":                  {wire.ExecuteParams{Argv: []string{"ls", "-l", "a b"}}, []string{"ls", "-l", "a b"}},
		"argv that is a path":   {wire.ExecuteParams{Argv: []string{"/tmp/ls"}}, []string{"/tmp/ls"}},
		"argv of a single word": {wire.ExecuteParams{Argv: []string{"ls -l"}}, []string{"ls -l"}},
	} {
		p, err := e.plan(&c.params)
		if err != nil || !slices.Equal(p.spec.Argv, c.want) {
			t.Errorf("%s: %+v, %v, want %q", name, p, err, c.want)
		}
	}
}

// TestAllowListHoldsPrograms: with an allow-list nothing else runs, under no spelling. An entry is
// a file, so neither PATH nor another file of the same name can stand in for it.
func TestAllowListHoldsPrograms(t *testing.T) {
	e := planner(t, "/bin/ls", "/usr/bin/git", "/opt/bin/git")
	const refused = ""
	for argv0, want := range map[string]string{
		"ls":             "/bin/ls",
		"/bin/ls":        "/bin/ls",
		"git":            "/usr/bin/git", // the first of that name
		"/usr/bin/git":   "/usr/bin/git",
		"/opt/bin/git":   "/opt/bin/git",
		"/tmp/ls":        refused,
		"/usr/bin/ls":    refused,
		"./ls":           refused,
		"bin/ls":         refused,
		"../bin/ls":      refused,
		"//bin/ls":       refused,
		"/bin/./ls":      refused,
		"/bin/../bin/ls": refused,
		"/bin/ls/":       refused,
		"/bin/ls ":       refused,
		"LS":             refused,
		"l":              refused,
		"ls -l":          refused,
		"sh":             refused,
		"/bin/sh":        refused,
		"/bin":           refused,
		"/":              refused,
		"":               refused,
	} {
		p, err := e.plan(&wire.ExecuteParams{Argv: []string{argv0, "-l", "/tmp"}})
		switch {
		case want == refused:
			if err == nil || err.Code != wire.CodeNotAllowed {
				t.Errorf("%q was not refused: %+v, %v", argv0, p, err)
			} else if !strings.Contains(err.Message, "allow-list") {
				t.Errorf("%q was refused with %q", argv0, err.Message)
			}
		case err != nil:
			t.Errorf("%q was refused: %v", argv0, err)
		case !slices.Equal(p.spec.Argv, []string{want, "-l", "/tmp"}):
			t.Errorf("%q runs %q, want %s", argv0, p.spec.Argv, want)
		}
	}
}

// TestAllowListHoldsTheEnvironment: variables make an allowed program run other code, so a client
// sets those that the operator lists and no others. Without an allow-list it sets all.
func TestAllowListHoldsTheEnvironment(t *testing.T) {
	restricted, open := planner(t, "/bin/ls"), planner(t)
	for name, allowed := range map[string]bool{
		"LANG": true, "LC_ALL": true, "LC_": true, "A": true,
		// The dynamic loader and the C library.
		"LD_PRELOAD": false, "LD_AUDIT": false, "LD_LIBRARY_PATH": false, "GCONV_PATH": false, "LOCPATH": false,
		"GLIBC_TUNABLES": false, "MALLOC_CHECK_": false, "NLSPATH": false, "RESOLV_HOST_CONF": false,
		// Shells, interpreters and programs that run others.
		"BASH_ENV": false, "ENV": false, "IFS": false, "PS4": false, "SHELLOPTS": false, "BASH_FUNC_ls%%": false,
		"PATH": false, "HOME": false, "SHELL": false, "PYTHONPATH": false, "PYTHONSTARTUP": false, "PERL5OPT": false,
		"RUBYOPT": false, "NODE_OPTIONS": false, "JAVA_TOOL_OPTIONS": false, "GIT_SSH_COMMAND": false,
		"GIT_CONFIG_COUNT": false, "PAGER": false, "LESSOPEN": false, "EDITOR": false, "TAR_OPTIONS": false,
		"RSYNC_RSH": false, "MAKEFLAGS": false, "XDG_CONFIG_HOME": false, "TMPDIR": false, "http_proxy": false,
		// What only resembles a listed one.
		"a": false, "AB": false, " A": false, "A ": false, "LANGUAGE": false, "LC": false, "lc_ALL": false, "XLC_ALL": false,
		"*": false, "LC*": false,
	} {
		params := &wire.ExecuteParams{Argv: []string{"/bin/ls"}, Env: map[string]string{"LC_TIME": "C", name: "/tmp/x"}}
		p, err := restricted.plan(params)
		switch {
		case allowed && (err != nil || !slices.Contains(p.spec.Env, name+"=/tmp/x")):
			t.Errorf("%s was refused: %+v, %v", name, p, err)
		case !allowed && (err == nil || err.Code != wire.CodeNotAllowed ||
			!strings.Contains(err.Message, strconv.Quote(name)) || !strings.Contains(err.Message, "--allow-env")):
			t.Errorf("%s: %+v, %v, want a refusal that names the variable and the flag", name, p, err)
		}
		if p, err := open.plan(params); err != nil || !slices.Contains(p.spec.Env, name+"=/tmp/x") {
			t.Errorf("without an allow-list, %s was refused: %+v, %v", name, p, err)
		}
	}
	restricted.env = []string{"LD_LIBRARY_PATH=/opt/lib"} // --env, which the client cannot reach
	p, err := restricted.plan(&wire.ExecuteParams{Argv: []string{"ls"}})
	if err != nil || !slices.Equal(p.spec.Env, restricted.env) {
		t.Errorf("the server's own variables became %+v, %v", p, err)
	}
}

// TestAllowListLetsNoVariablePassByDefault: an operator who lists only programs has listed no
// variable.
func TestAllowListLetsNoVariablePassByDefault(t *testing.T) {
	allow, err := newAllowList([]string{"/bin/ls"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{limits: DefaultLimits(), workdir: "/work", allow: allow}
	for _, name := range []string{"LANG", "A", "", "*"} {
		_, err := e.plan(&wire.ExecuteParams{Argv: []string{"ls"}, Env: map[string]string{name: ""}})
		if err == nil || err.Code != wire.CodeNotAllowed {
			t.Errorf("%q: %v, want it to be refused", name, err)
		}
	}
}

// TestAllowListRefusalsAreBounded: what is refused may be as long as a message, what is said about it
// may not.
func TestAllowListRefusalsAreBounded(t *testing.T) {
	e, long := planner(t, "/bin/ls"), strings.Repeat("x", 1<<20)
	for _, params := range []wire.ExecuteParams{
		{Argv: []string{long}}, {Argv: []string{"ls"}, Env: map[string]string{long: ""}},
	} {
		_, err := e.plan(&params)
		if err == nil || len(err.Message) > 1000 || !strings.Contains(err.Message, long[:100]) {
			t.Errorf("%.300v", err)
		}
	}
}

// TestAllowListTakesVariables: an entry says which variables it means.
func TestAllowListTakesVariables(t *testing.T) {
	for entry, ok := range map[string]bool{
		"LANG": true, "a": true, "_": true, "LC_*": true, "MY_APP_*": true, "npm_config_a": true, "A.B-C": true,
		"": false, "*": false, "_*": false, "L*": false, "LC*": false, "*_A": false, "A_*_B": false, "A_**": false,
		"A=b": false, "A B": false, " A": false, "A\n": false, "A\x00": false,
		"LD_*": false, "LD_PRELOAD": false, "LD_LIBRARY_PATH": false, "LD_A_*": false,
	} {
		if err := CheckAllowEnv(entry); (err == nil) != ok {
			t.Errorf("%q: %v", entry, err)
		}
		if _, err := newAllowList([]string{"/bin/ls"}, []string{"A", entry}); (err == nil) != ok {
			t.Errorf("%q in a list: %v", entry, err)
		}
	}
}

// TestAllowListRefusesShellStrings: a shell runs anything, so a string for it is refused even where
// /bin/sh may run.
func TestAllowListRefusesShellStrings(t *testing.T) {
	e := planner(t, "/bin/ls", "/bin/sh")
	for _, command := range []string{"ls", "/bin/ls", "/bin/sh", ""} {
		p, err := e.plan(&wire.ExecuteParams{Command: command})
		if err == nil || err.Code != wire.CodeNotAllowed || !strings.Contains(err.Message, "send argv") {
			t.Errorf("the shell string %q: %+v, %v", command, p, err)
		}
	}
	p, err := e.plan(&wire.ExecuteParams{Command: "ls", Argv: []string{"ls"}})
	if err != nil || !slices.Equal(p.spec.Argv, []string{"/bin/ls"}) {
		t.Errorf("argv beside a string: %+v, %v", p, err)
	}
}

// TestAllowListTakesAbsolutePaths: an entry that does not name one program says less than its
// author thinks.
func TestAllowListTakesAbsolutePaths(t *testing.T) {
	for _, entry := range []string{"", "ls", "./ls", "bin/ls", "/", "//bin/ls", "/bin/", "/bin/../ls", "/bin/./ls"} {
		if _, err := newAllowList([]string{"/bin/ls", entry}, nil); err == nil {
			t.Errorf("%q was taken", entry)
		}
	}
}
