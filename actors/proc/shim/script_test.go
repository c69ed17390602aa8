//go:build linux

package shim

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// scripts show what a shell may do differently when it does not get its script as an argument.
var scripts = map[string]string{
	"$0 and $-":             `echo "$0 $-" "$#"`,
	"exit code":             "exit 7",
	"last exit code":        "true\nfalse",
	"line numbers":          "echo $LINENO\n\necho $LINENO",
	"unknown command":       "\nfoo-bar-baz x; echo $?",
	"syntax error":          "echo before\nif then\necho after",
	"syntax error first":    "(",
	"unset variable":        "set -u; echo before\necho $nothing; echo after",
	"set -e":                "set -e; echo a; false; echo b",
	"set -e in a function":  "set -e; f() { false; echo no; }\nif f; then :; fi; f; echo b",
	"trap EXIT":             "trap 'echo bye $?' EXIT; echo hi; exit 4",
	"trap TERM":             "trap 'echo term; exit 5' TERM; kill $$; sleep 1; echo no",
	"killed":                "kill -KILL $$; echo no",
	"child killed":          "sh -c 'kill -KILL $$'; echo $?",
	"read from stdin":       "read a; echo \"<$a>\"; cat",
	"stdin of a child":      "cat; true",
	"here document":         "cat <<END\na $((1+1))\nEND\necho b",
	"quoted here document":  "cat <<'END'\na $x `y` \"\nEND",
	"background":            "sleep 0.01 & wait $!; echo $?",
	"subshell":              "(echo a; exit 3); echo $?; x=$(echo b); echo $x",
	"exec":                  "exec sh -c 'echo \"$0\" $1' zero one",
	"exec redirects":        "exec 3>&1 >/dev/null; echo no; echo yes >&3",
	"shift and set":         "set -- a b; shift; echo $1 $#",
	"quotes":                `echo 'a"b' "c'd" e\"f \\ \$x "\\"`,
	"not ASCII":             "echo 'Á € 😀 \x81\x82\x88\xff'",
	"control characters":    "printf '%s' 'a\tb\x01\x02\x7f'",
	"comment first":         "# nothing\necho a",
	"comment last":          "echo a # nothing",
	"empty":                 "",
	"blank":                 "  \n ",
	"starts with newlines":  "\n\n\necho $LINENO",
	"continued lines":       "echo a \\\n b; echo c",
	"return":                "return 3; echo no",
	"alias":                 "alias ll='echo aliased'\nll",
	"case and loop":         "for i in 1 2; do case $i in 1) continue;; *) break;; esac; done; echo $i",
	"own variable":          "echo ${TROUPE_COMMAND-unset}; env | grep -c TROUPE_COMMAND",
	"environment":           "echo $GIVEN; env | grep GIVEN",
	"long":                  "echo '" + strings.Repeat("x", 100_000) + "'",
	"glob characters":       "echo '*' [ ] '?'",
	"ends with a backslash": `echo a\`,
	"semicolon first":       ";echo a",
	"ampersand first":       "& echo a",
}

// A script that is hidden runs as one that is an argument does, in every shell that is here. Only
// messages may name eval.
func TestHiddenScriptRunsLikeAnArgument(t *testing.T) {
	shells := [][]string{{"dash"}, {"bash"}, {"bash", "--posix"}, {"busybox", "ash"}, {"sh"}}
	for _, shell := range shells {
		if _, err := exec.LookPath(shell[0]); err != nil {
			t.Log("not here:", shell[0])
			continue
		}
		for name, script := range scripts {
			plain := runScript(t, shell, script, false)
			hidden := runScript(t, shell, script, true)
			if plain != hidden {
				t.Errorf("%s: %s: as an argument\n%+v\nhidden\n%+v", shell, name, plain, hidden)
			}
		}
	}
}

type scriptResult struct {
	out, errors string
	status      syscall.WaitStatus
}

func runScript(t *testing.T, shell []string, script string, hide bool) scriptResult {
	t.Helper()
	c := &command{Start: &frame.Start{
		Argv: append(slices.Clone(shell), "-c", script),
		Env:  []string{"PATH=/usr/bin:/bin", "GIVEN=given", "TROUPE_COMMAND=mine"},
	}}
	if !hide {
		c.Env = c.Env[:2]
	} else {
		c.hideScript()
	}
	var out, errors bytes.Buffer
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Stdin = c.Env, strings.NewReader("first line\nsecond line\n")
	cmd.Stdout, cmd.Stderr = &out, &errors
	_ = cmd.Run() // status says more
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return scriptResult{out.String(), where.ReplaceAllString(errors.String(), ""), status}
}

// where is how shells name what they are in, and a pid.
var where = regexp.MustCompile(`eval: |-c: |line \d+: |unset TROUPE_COMMAND; |\b\d+ Killed`)

// A script that is the call of a program stays an argument, since it shows nothing that the program's
// own arguments do not. Every other one is hidden.
func TestScriptThatCallsAProgram(t *testing.T) {
	calls := map[string]bool{
		"/bin/true": true, "ls -l --color=never /tmp": true, " sleep 1 ": true, "./prog a,b x=1 user@host:p": true,
		"": false, " ": false, "echo secret": false, "printf secret": false, "no-such-program secret": false,
		"A=secret ls": false, "ls\nls": false, "ls;ls": false, "ls 'a b'": false, "ls $x": false, "ls `x`": false,
		"ls ~": false, "ls *": false, "ls #x": false, "ls >x": false, "ls|ls": false, "ls&": false, "!ls": false,
		"{ ls": false, "export secret": false, "ls \"x\"": false, `ls \x`: false, "ls é": false, "ls\tx": false,
		"ls (x)":    false,
		"if secret": false, "cd secret": false, "ls [x]": false, "ls x^y": false, "ls ?": false, "ls %1": true,
	}
	for script, want := range calls {
		c := &command{Start: &frame.Start{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}}
		c.hideScript()
		if stays := c.Argv[2] == script; stays != want {
			t.Errorf("%q: is an argument: %v, want %v", script, stays, want)
		}
	}
}
