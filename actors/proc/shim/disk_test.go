//go:build linux

package shim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestDiskOver(t *testing.T) {
	write := func(dir, name string, size int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(dir, name), "f", 1<<20)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "usr")); err != nil {
		t.Fatal(err)
	}
	if !diskOver(dir, 2<<20) || diskOver(dir, 3<<20) {
		t.Error("two files of 1 MiB are not that")
	}
	for i := range 8 {
		if err := os.Link(filepath.Join(dir, "a/f"), filepath.Join(dir, "b", strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if diskOver(dir, 3<<20) {
		t.Error("a file of several names counts several times")
	}
	empty := t.TempDir()
	for i := range 100 {
		write(empty, strconv.Itoa(i), 0)
	}
	if !diskOver(empty, 50<<10) {
		t.Error("empty files are free")
	}
}

// Files deeper than any path can name do not escape the measure.
func TestDiskOverInTheDeep(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		name := strings.Repeat("d", 200)
		if err := root.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := root.OpenRoot(name)
		root.Close()
		if root = next; err != nil {
			t.Fatal(err)
		}
	}
	root.Close()
	if !diskOver(dir, 1<<30) {
		t.Error("it says that there is room")
	}
}
