//go:build linux

package mcp_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	a.call("write_file", args{"path": "dir/sub/hello.txt", "content": "one\ntwo\nthree\n"})
	for in, want := range map[string]string{
		`{}`: "one\ntwo\nthree\n", `{"line":2}`: "two\nthree\n", `{"line":2,"lines":1}`: "two\n", `{"offset":5}`: "wo\nthree\n",
	} {
		arguments := args{"path": "dir/sub/hello.txt"}
		for _, name := range []string{"line", "lines", "offset"} {
			var n int
			if _, after, ok := strings.Cut(in, `"`+name+`":`); ok {
				_, _ = fmt.Sscan(strings.Trim(strings.NewReplacer("}", " ", ",", " ").Replace(after), " "), &n)
				arguments[name] = n
			}
		}
		if f, _ := a.call("read_file", arguments); f["content"] != want {
			t.Errorf("%s: %v", in, f)
		}
	}
	l, text := a.call("list_files", args{"path": "dir", "depth": 2})
	if len(l["entries"].([]any)) != 2 || !strings.Contains(text, "sub/\n") || !strings.Contains(text, "sub/hello.txt  14 bytes") {
		t.Errorf("%v\n%s", l, text)
	}
	for want, c := range map[string]struct {
		tool string
		in   args
	}{
		"nowhere":          {"read_file", args{"path": "nowhere"}},
		"is a directory":   {"read_file", args{"path": "dir"}},
		"a directory":      {"write_file", args{"path": "dir", "content": ""}},
		"no such":          {"list_files", args{"path": "nowhere"}},
		"not a directory":  {"list_files", args{"path": "dir/sub/hello.txt"}},
		"fewer than 9":     {"", nil},
		"give one of them": {"read_file", args{"path": "dir", "line": 1, "offset": 1}},
	} {
		if c.tool == "" {
			continue
		}
		if got := a.refused(c.tool, c.in); !strings.Contains(got, want) {
			t.Errorf("%s %v: %q does not say %q", c.tool, c.in, got, want)
		}
	}
	if f, _ := a.call("read_file", args{"path": "dir/sub/hello.txt", "line": 9}); f["message"] != "the file has fewer than 9 lines" {
		t.Errorf("%v", f)
	}
}

// TestFilesWithStrangeNames: a name is never taken for an option or a command.
func TestFilesWithStrangeNames(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	for _, name := range []string{"-n", "--help", "a b", "$(touch evil)", "`id`", "quo'te\"", "naïve", "-rf/x", "new\nline"} {
		a.call("write_file", args{"path": name, "content": name})
		if f, _ := a.call("read_file", args{"path": name}); f["content"] != name {
			t.Errorf("%q: %v", name, f)
		}
		if f, _ := a.call("read_file", args{"path": name, "offset": 1}); f["content"] != name[1:] {
			t.Errorf("%q from 1: %v", name, f)
		}
	}
	if l, _ := a.call("exec", args{"command": "ls -A"}); strings.Contains(l["output"].(string), "evil\n") ||
		strings.Contains(l["output"].(string), "troupe-") {
		t.Errorf("%v", l)
	}
}

// TestWriteKeepsModeAndLinks: a file is replaced in one step, with the mode it had, also through a link.
func TestWriteKeepsModeAndLinks(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	a.call("exec", args{"command": "echo old > run; chmod 751 run; ln -s run link"})
	a.call("write_file", args{"path": "link", "content": "new"})
	out, _ := a.call("exec", args{"command": "stat -c %a run; cat run; test -L link && echo link; ls"})
	if out["output"] != "751\nnewlink\nlink\nrun\n" {
		t.Errorf("%q", out["output"])
	}
}

func TestReadFileIsBounded(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	a.call("exec", args{"command": "seq 1 100000 > numbers; head -c 50000 /dev/zero | tr '\\0' x > long"})
	line, got := 1.0, 0
	for range 100 {
		f, text := a.call("read_file", args{"path": "numbers", "line": line})
		if len(text) > 16<<10 {
			t.Fatalf("%d bytes", len(text))
		}
		got += len(f["content"].(string))
		if f["next_line"] == nil {
			break
		}
		line = f["next_line"].(float64)
	}
	if got != 588895 {
		t.Errorf("%d bytes read of 588895", got)
	}
	f, _ := a.call("read_file", args{"path": "long"})
	rest, _ := a.call("read_file", args{"path": "long", "offset": f["next_offset"], "max_bytes": 32_000})
	end, _ := a.call("read_file", args{"path": "long", "offset": rest["next_offset"], "max_bytes": 32_000})
	if n := len(f["content"].(string) + rest["content"].(string) + end["content"].(string)); n != 50_000 {
		t.Errorf("%d bytes read of 50000", n)
	}
}

func TestEditFile(t *testing.T) {
	a := connect(t, "ws://"+launch(t)+"/ws", nil)
	const path = "main.go"
	a.call("write_file", args{"path": path, "content": "a := 1\nb := 2\n\ta := 1\n"})
	if got := a.refused("edit_file", args{"path": path, "old": "a := 1", "new": "a := 3"}); !strings.Contains(got, "2 times, at lines 1, 3") {
		t.Errorf("an ambiguous text: %q", got)
	}
	if got := a.refused("edit_file", args{"path": path, "old": "b := 2\n  a := 1", "new": ""}); !strings.Contains(got, "its first line is, at lines 2") {
		t.Errorf("other white space: %q", got)
	}
	if got := a.refused("edit_file", args{"path": path, "old": "c", "new": "d"}); !strings.Contains(got, "not in main.go") {
		t.Errorf("no such text: %q", got)
	}
	a.call("edit_file", args{"path": path, "old": "b := 2\n", "new": "b := 3\n"})
	a.call("edit_file", args{"path": path, "old": "a := 1", "new": "c := 1", "all": true})
	if f, _ := a.call("read_file", args{"path": path}); f["content"] != "c := 1\nb := 3\n\tc := 1\n" {
		t.Errorf("%v", f)
	}
}
