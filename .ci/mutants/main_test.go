package main

import (
	"errors"
	"strings"
	"testing"
)

const source = `package p

func first() bool {
	if a {
		return true
	}
	return false
}

func second() bool {
	return true
}
`

func TestMutate(t *testing.T) {
	for name, c := range map[string]struct {
		record, want, err string
	}{
		"a unique line":              {record: "- if a {\n+ if !a {", want: "\tif a {|if !a {"},
		"lines one after the other":  {record: "- if a {\n- return true\n- }", want: "\tif a {\n\t\treturn true\n\t}\n|"},
		"a line that is not there":   {record: "- if b {\n+ if a {", err: "occurs 0 times"},
		"a line that is there twice": {record: "- return true\n+ return false", err: "occurs 2 times"},
		"after a line": {
			record: "@ func second() bool {\n- return true\n+ return false",
			want:   "\treturn true\n}\n|return false\n}\n",
		},
		"in that function only":    {record: "@ func second() bool {\n- if a {\n+ if !a {", err: "occurs 0 times"},
		"after a line that is not": {record: "@ func third() {\n- if a {\n+ if !a {", err: "occurs 0 times"},
	} {
		mutants, err := parse("x", "# name\np.go\n"+c.record+"\ngo test ./p")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := mutants[0].mutate(source)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", name, err, c.err)
			}
			continue
		}
		old, replacement, _ := strings.Cut(c.want, "|")
		at := strings.LastIndex(source, old)
		if want := source[:at] + replacement + source[at+len(old):]; err != nil || got != want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}

func TestParse(t *testing.T) {
	mutants, err := parse("x", `# About this list.

# one
# Why it matters.
a.go
- x
+ y
A=1 go test ./a -run 'B|C'

# two
- y
timeout: red 5s
`)
	if err != nil || len(mutants) != 2 {
		t.Fatal(mutants, err)
	}
	if m := mutants[1]; m.file != "a.go" || m.command != mutants[0].command || m.hangs.Seconds() != 5 || m.new != nil {
		t.Errorf("%+v", m)
	}
	if words, _ := split(mutants[0].command); strings.Join(words, ",") != "A=1,go,test,./a,-run,B|C" {
		t.Errorf("%q", words)
	}
	for _, bad := range []string{
		"a.go\n- x\n+ y\ngo test ./a",
		"# n\n- x\n+ y\ngo test ./a",
		"# n\na_test.go\n- x\n+ y\ngo test ./a",
		"# n\na.go\n+ y\ngo test ./a",
		"# n\na.go\n- x\n+ x\ngo test ./a",
		"# n\na.go\n- x\n+ y",
		"# n\na.go\n- x\n+ y\ngo test",
		"# n\na.go\n- x\n+ y\ngo test ./a -run 'B",
		"# n\na.go\n- x\n+ y\ntimeout: green\ngo test ./a",
		"# n\na.go\n- x\n+ y\ngo test ./a\n\n# n\n- y",
	} {
		if _, err := parse("x", bad); err == nil {
			t.Errorf("no error for:\n%s", bad)
		}
	}
}

func TestJudge(t *testing.T) {
	failed := errors.New("exit status 1")
	for _, c := range []struct {
		out   string
		err   error
		hangs bool
		want  verdict
	}{
		{"ok  \tp\t0.1s\n", nil, false, survived},
		{"--- FAIL: TestA (0.00s)\nFAIL\nFAIL\tp\t0.1s\n", failed, false, red},
		{"panic: x\n\nFAIL\tp\t0.1s\n", failed, false, red},
		{"p.go:1:1: undefined: x\nFAIL\tp [build failed]\nFAIL\n", failed, false, broken},
		{"go: no such tool\n", failed, false, broken},
		{"panic: test timed out after 5s\nFAIL\tp\t5.0s\n", failed, false, timedOut},
		{"panic: test timed out after 5s\nFAIL\tp\t5.0s\n", failed, true, red},
	} {
		if got := judge(c.out, c.err, c.hangs); got != c.want {
			t.Errorf("%q: %s, want %s", c.out, got, c.want)
		}
	}
}
