//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// roomOf starts a session that stays, and returns its id.
func roomOf(t *testing.T, env []string) string {
	t.Helper()
	code, out, errs := runTroupe(t, env, "exec", "--detach", "--", "sleep", "1000")
	session, _, _ := strings.Cut(strings.TrimSpace(out), " ")
	if code != 0 || session == "" {
		t.Fatalf("%d %q %q", code, out, errs)
	}
	return session
}

func TestCopyGoesBothWays(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	session := roomOf(t, env)
	here := t.TempDir()
	tree := filepath.Join(here, "tree")
	for name, content := range map[string]string{
		"a": "1", "sub/b": strings.Repeat("2", 300<<10), "sub/caf\xe9": "3", "sub/deep/c": "", "zeros": strings.Repeat("\x00", 1<<20) + "end",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../a", filepath.Join(tree, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	cp := func(from, to string) {
		t.Helper()
		if code, out, errs := runTroupe(t, env, "cp", from, to); code != 0 || out != "" || errs != "" {
			t.Fatalf("cp %s %s: %d %q %q", from, to, code, out, errs)
		}
	}
	cp(tree, session+":")
	cp(session+":tree", filepath.Join(here, "back"))
	if out, err := exec.Command("diff", "-r", "--no-dereference", tree, filepath.Join(here, "back")).CombinedOutput(); err != nil {
		t.Errorf("the tree came back as another: %s", out)
	}
	cp(filepath.Join(tree, "zeros"), session+":tree/sub/")
	cp(session+":tree/sub/zeros", filepath.Join(here, "z"))
	a, err := os.Stat(filepath.Join(tree, "zeros"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(filepath.Join(here, "z"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
		t.Errorf("%v %v %d became %v %v %d", a.Mode(), a.ModTime(), a.Size(), b.Mode(), b.ModTime(), b.Size())
	}
	p := troupeCmd(t, env, "cp", "-", session+":in")
	p.cmd.Stdin = strings.NewReader("from a pipe")
	if code := p.start().exit(); code != 0 {
		t.Fatalf("cp -: %d", code)
	}
	if code, out, errs := runTroupe(t, env, "cp", session+":in", "-"); code != 0 || out != "from a pipe" {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

func TestCopyRefusesInWords(t *testing.T) {
	s := launch(t)
	env := home(t, s.url)
	session := roomOf(t, env)
	here := t.TempDir()
	file := filepath.Join(here, "f")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{file, file + "2", "name the session"},
		{session + ":a", session + ":b", "between a session and this machine"},
		{session + ":none", here, "no such file"},
		{filepath.Join(here, "none"), session + ":", "no such file"},
		{file, session + ":no/", "no directory no/"},
		{file, session + ":no/f", "no such file"},
		{file, session + ":../f", "../f: the path leads out of the session's directory"},
		{session + ":/etc/passwd", here, "outside of the session's directory"},
		{file, "vm.none:", "no such session"},
		{"-", session + ":", "has no name"},
	} {
		code, out, errs := runTroupe(t, env, "cp", c.from, c.to)
		if code != 125 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("cp %s %s: %d %q %q, want %q", c.from, c.to, code, out, errs, c.want)
		}
	}
}

// What a session sends is not trusted.
func TestHostileArchiveStaysInTheTarget(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"parent":         {{Name: "../x", Typeflag: tar.TypeReg}},
		"absolute":       {{Name: "/tmp/troupe-cp-x", Typeflag: tar.TypeReg}},
		"through a link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/x", Typeflag: tar.TypeReg}},
		"hard link":      {{Name: "l", Typeflag: tar.TypeLink, Linkname: "../out"}},
		"over a link":    {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../out"}, {Name: "l", Typeflag: tar.TypeReg, Size: 1}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Mode, h.ModTime = 0o644, time.Unix(1, 0)
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(make([]byte, h.Size))
		}
		w.Close()
		top := t.TempDir()
		if err := os.WriteFile(filepath.Join(top, "out"), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(top, "to"), 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(top, "to"))
		if err != nil {
			t.Fatal(err)
		}
		err = unpackTree(root, &b)
		root.Close()
		if err == nil && name != "over a link" {
			t.Errorf("%s was unpacked", name)
		}
		entries, _ := os.ReadDir(top)
		if content, _ := os.ReadFile(filepath.Join(top, "out")); len(entries) != 2 || string(content) != "mine" {
			t.Errorf("%s: %v, %q", name, entries, content)
		}
	}
}
