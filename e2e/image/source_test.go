package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

// TestKeyFollowsWhatIsBuilt: a change of anything that the build reads changes
// the key; a change of a test, a document or another program does not.
func TestKeyFollowsWhatIsBuilt(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ignore, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	write(".dockerignore", string(ignore))
	write("Dockerfile", "FROM x")
	write("go.mod", "module x")
	write("cmd/trouped/main.go", "package main")
	b := &builder{root: root, tag: "t", version: "v"}
	key := func() string {
		t.Helper()
		k, err := b.key(t.Context(), baseImage{key: "k"})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	last := key()
	for _, name := range []string{
		"README.md", "cmd/trouped/main_test.go", "cmd/trouped/testdata/x", "docs/x", "charts/x",
		"e2e/x.go", "bin/trouped", ".git/HEAD",
	} {
		write(name, "x")
		if key() != last {
			t.Errorf("%s changes the key", name)
		}
	}
	for _, name := range []string{
		"go.mod", "cmd/trouped/main.go", "cmd/trouped/new.go", "k8s/new.go", "k8s/rules.json",
		"Dockerfile", ".dockerignore",
	} {
		text, _ := os.ReadFile(filepath.Join(root, name))
		write(name, string(text)+"\n")
		if now := key(); now == last {
			t.Errorf("%s does not change the key", name)
		} else {
			last = now
		}
	}
	for what, change := range map[string]func(){"version": func() { b.version += "x" }, "tag": func() { b.tag += "x" }} {
		change()
		if now := key(); now == last {
			t.Errorf("the %s does not change the key", what)
		} else {
			last = now
		}
	}
}

// TestIgnorePatternsAreUnderstood: a pattern that this package would read
// otherwise than a builder is refused, not guessed at.
func TestIgnorePatternsAreUnderstood(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".dockerignore")
	for _, bad := range []string{"!docs", "docs/model", "*.md", "**/a/b"} {
		if err := os.WriteFile(path, []byte("# comment\n\n"+bad+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readIgnore(path); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestImagesGoWhereAClusterLooks protects from: images of the tree as it is that a
// cluster which starts with them does not find, since its cache is elsewhere.
func TestImagesGoWhereAClusterLooks(t *testing.T) {
	t.Setenv("TROUPE_CLUSTER", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	c, err := cluster.Open(cluster.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if dir, err := defaultDir(); err != nil || dir != filepath.Join(c.Dir(), "images") {
		t.Errorf("images go to %s, %v; the cluster is in %s", dir, err, c.Dir())
	}
}
