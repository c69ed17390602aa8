//go:build linux

package shim

import (
	"os"
	"path/filepath"
	"testing"
)

// The workspaces of a killed runner are removed, those of a living one are not.
func TestLeftWorkspacesAreRemoved(t *testing.T) {
	root := t.TempDir()
	dead, other := filepath.Join(root, "r-dead"), filepath.Join(root, "other")
	for _, dir := range []string{dead, other} {
		if err := os.MkdirAll(filepath.Join(dir, "w/home"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	first, err := newInstance(root)
	if err != nil {
		t.Fatal(err)
	}
	second, err := newInstance(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{first, second, other} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Error("the leftover is there:", err)
	}
}
