package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// flags returns a set with one setting of each kind that matters here.
func flags() (fs *pflag.FlagSet, line *int, names *[]string) {
	line, names = new(int), &[]string{"default"}
	*line = 8192
	fs = pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.Var(Bytes(line), "max-line", "bytes of a line")
	fs.Var(List(names, "name,...", ","), "names", "names")
	fs.String("command", "", "flag only")
	fs.String("config", "", "the file")
	FlagOnly(fs, "command")
	return fs, line, names
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagOverVariableOverFile(t *testing.T) {
	file := write(t, "max-line: 1KiB\n")
	for _, c := range []struct {
		env    string
		args   []string
		file   string
		want   int
		origin string
	}{
		{want: 8192},
		{file: file, want: 1024, origin: file + ":1: max-line"},
		{env: "2KiB", file: file, want: 2048, origin: "TROUPE_MAX_LINE"},
		// the default, but given
		{env: "2KiB", args: []string{"--max-line=8192"}, file: file, want: 8192, origin: "--max-line"},
	} {
		fs, line, _ := flags()
		if c.env != "" {
			t.Setenv("TROUPE_MAX_LINE", c.env)
		}
		if err := fs.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		from, err := Load(fs, Options{File: c.file})
		if err != nil || *line != c.want || from["max-line"] != c.origin {
			t.Errorf("%+v: %d from %q, %v", c, *line, from["max-line"], err)
		}
	}
}

// TestFlagOnly: neither TROUPE_COMMAND nor a file that someone else wrote may choose
// the command that runs, nor another file.
func TestFlagOnly(t *testing.T) {
	t.Setenv("TROUPE_COMMAND", "rm")
	t.Setenv("TROUPE_CONFIG", "/etc/passwd")
	fs, _, _ := flags()
	if _, err := Load(fs, Options{}); err != nil || fs.Lookup("command").Value.String() != "" ||
		fs.Lookup("config").Value.String() != "" {
		t.Errorf("command %q, config %q, %v", fs.Lookup("command").Value, fs.Lookup("config").Value, err)
	}
	for _, key := range []string{"command", "config"} {
		if _, err := Load(fs, Options{File: write(t, key+": x\n")}); err == nil ||
			!strings.Contains(err.Error(), `unknown key "`+key+`"`) {
			t.Errorf("%s in the file: %v", key, err)
		}
	}
}

func TestEmptyVariable(t *testing.T) {
	t.Setenv("TROUPE_NAMES", "")
	fs, _, names := flags()
	if _, err := Load(fs, Options{IgnoreEmpty: true}); err != nil || strings.Join(*names, " ") != "default" {
		t.Errorf("ignored: %q, %v", *names, err)
	}
	if _, err := Load(fs, Options{}); err != nil || len(*names) != 0 {
		t.Errorf("counts: %q, %v", *names, err)
	}
}

func TestMissingFile(t *testing.T) {
	fs, _, _ := flags()
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Load(fs, Options{File: path}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("asked for: %v", err)
	}
	if _, err := Load(fs, Options{File: path, FileOptional: true}); err != nil {
		t.Errorf("optional: %v", err)
	}
	if _, err := Load(fs, Options{File: t.TempDir(), FileOptional: true}); err == nil {
		t.Error("a directory was taken for a missing file")
	}
	below := filepath.Join(write(t, ""), "none.yaml") // the home directory is a file
	if _, err := Load(fs, Options{File: below, FileOptional: true}); err != nil {
		t.Errorf("optional, below a file: %v", err)
	}
}

// TestKeysOfOtherCommands: commands share a file, so each must accept the others' keys.
func TestKeysOfOtherCommands(t *testing.T) {
	fs, line, _ := flags()
	other := pflag.NewFlagSet("other", pflag.ContinueOnError)
	other.String("cwd", "", "")
	o := Options{File: write(t, "cwd: /tmp\nmax-line: 1\n"), Keys: func() []string { return Keys(fs, other) }}
	if _, err := Load(fs, o); err != nil || *line != 1 {
		t.Errorf("%d, %v", *line, err)
	}
	o.Keys = nil
	if _, err := Load(fs, o); err == nil {
		t.Error("the key of an unknown command was accepted")
	}
}

func TestYAML(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{"names: [a, 'b, c', 0600]\n", "a|b, c|0600", ""},
		{"names: x,y # two\n", "x|y", ""},
		{"names: []\n", "", ""},
		{"names: &n [a]\n", "a", ""},
		{"max-line: &size 12\nnames: [*size]\n", "12", ""},
		{"names: !!str 12\n", "12", ""},
		{"names: |\n  a,\n  b\n", "a|b", ""},
		{"names: [a, [b]]\n", "", ":1: names: must be a list of plain values"},
		{"names: ['']\n", "", ":1: names: an item is empty"},
		{"names: *none\n", "", ":1: "},
		{"\nmax-line: 1\nmax-line: 2\n", "", ":3: max-line: the key appears twice"},
		{"max-line: 1\n---\nmax-line: 2\n", "", "must hold one YAML document, not 2"},
		{"names: a\n\tmax-line: 3\n", "", ":2: not YAML"},
		{"names: |s3cret\n", "", ":1: not YAML"}, // a value may be a token
		{"names: \"s3cret\n", "", ":1: not YAML"},
		{"max-lin: 3\n", "", `:1: unknown key "max-lin", did you mean "max-line"?`},
	} {
		fs, _, names := flags()
		path := write(t, c.text)
		_, err := Load(fs, Options{File: path})
		switch {
		case c.err == "" && (err != nil || strings.Join(*names, "|") != c.want):
			t.Errorf("%q: %q, %v", c.text, *names, err)
		case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), path) || !strings.Contains(err.Error(), c.err) ||
			strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("%q: %v, want %q", c.text, err, c.err)
		}
	}
}

func TestExplainNamesTheSource(t *testing.T) {
	from := Origins{"a": "--a", "b": "TROUPE_B", "c": "x.yaml:3: c"}
	got := from.Explain(errors.Join(errors.New("--a is wrong"), errors.Join(errors.New("--b is wrong"),
		errors.New("--c: wrong")), errors.New("--d, too")))
	want := "--a is wrong; --b is wrong (from TROUPE_B); --c: wrong (from x.yaml:3: c); --d, too"
	if got == nil || got.Error() != want {
		t.Errorf("got %v", got)
	}
	if from.Explain(nil) != nil || from.Explain(errors.Join(nil, nil)) != nil {
		t.Error("nothing was explained")
	}
}

// TestRemoved: a setting that no longer exists is refused wherever it is given.
func TestRemoved(t *testing.T) {
	removed := Removed{"old": "it was removed; it is always 8"}
	const want = "it was removed; it is always 8"
	fs, _, _ := flags()
	if err := removed.Flag(fs.Parse([]string{"--old=3"})); err == nil || err.Error() != "--old: "+want {
		t.Errorf("flag: %v", err)
	}
	if err := removed.Flag(fs.Parse([]string{"--other"})); err == nil || strings.Contains(err.Error(), "removed") {
		t.Errorf("another flag: %v", err)
	}
	path := write(t, "old: 3\n")
	if _, err := Load(fs, Options{File: path, Removed: removed}); err == nil || err.Error() != path+":1: old: "+want {
		t.Errorf("file: %v", err)
	}
	t.Setenv("TROUPE_OLD", "3")
	if _, err := Load(fs, Options{Removed: removed}); err == nil || err.Error() != "TROUPE_OLD: "+want {
		t.Errorf("variable: %v", err)
	}
}

func TestChoice(t *testing.T) {
	given, none := "a", ""
	if err := Choice(&given, "a", "b").Set("b"); err != nil || given != "b" {
		t.Errorf("%q, %v", given, err)
	}
	if err := Choice(&given, "a", "b").Set(""); err == nil {
		t.Error("nothing is no choice")
	}
	if err := Choice(&none, "a", "b").Set(""); err != nil {
		t.Errorf("nothing was the default: %v", err)
	}
	if err := Choice(&given, "a", "b").Set("c"); err == nil || err.Error() != `"c" is not one of a, b` {
		t.Errorf("%v", err)
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", 90 * time.Second: "90s", 7200 * time.Second: "2h",
		time.Millisecond: "1ms",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
