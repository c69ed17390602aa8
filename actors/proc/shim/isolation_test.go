//go:build linux

package shim

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// The workspaces of a killed runner are removed, those of a living one are not.
func TestLeftWorkspacesAreRemoved(t *testing.T) {
	root := t.TempDir()
	first := newWorkspaces(t, root)
	in := func(name string) string { return filepath.Join(root, name) }
	living := first.path() + strings.Repeat("w", 26)
	kept := []string{living, first.dir, in("other"), in("s-unknown-w"), in("s-dead")}
	left := []string{in("r-dead-secret"), in("s-dead-w"), in("s-dead-new-w")}
	for _, dir := range slices.Concat(kept, left) {
		if err := os.MkdirAll(filepath.Join(dir, "home/x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	kept = append(kept, newWorkspaces(t, root).dir)
	for deadline := time.Now().Add(testTimeout); slices.ContainsFunc(left, exists) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	for _, dir := range kept {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range left {
		if exists(dir) {
			t.Error("the leftover is there:", dir)
		}
	}
	third := &workspaces{root: root, more: make(chan struct{}, 1)}
	if left, err := third.open(); err != nil || len(left) > 0 {
		t.Errorf("%v are to be removed, %v", left, err)
	}
	frame.CloseAll([]int{third.trash, third.fd, third.rootFD})
}

// newWorkspaces opens a runner's directory that lasts as long as the test.
func newWorkspaces(t *testing.T, root string) *workspaces {
	t.Helper()
	w := &workspaces{root: root, more: make(chan struct{}, 1)}
	left, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.empty(left)
	}()
	t.Cleanup(func() {
		close(w.more)
		<-done
		unix.Close(w.trash)
		unix.Close(w.fd)
		unix.Close(w.rootFD)
	})
	return w
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Whatever a command leaves is removed, and nothing outside: many files, deep nesting, closed
// directories, links and special files.
func TestHostileWorkspaceIsRemoved(t *testing.T) {
	w := newWorkspaces(t, t.TempDir())
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("w", 26)
	dir := w.path() + name
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o700))
	many := filepath.Join(dir, "many")
	must(os.Mkdir(many, 0o700))
	for i := range 20_000 {
		fd, err := unix.Open(filepath.Join(many, strconv.Itoa(i)+"\n\xff"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0)
		must(err)
		unix.Close(fd)
	}
	deep, err := openDirectory(unix.AT_FDCWD, dir)
	must(err)
	for range 3000 { // its path is longer than PATH_MAX
		must(unix.Mkdirat(deep, "d", 0o700))
		next, err := openDirectory(deep, "d")
		must(err)
		unix.Close(deep)
		deep = next
	}
	unix.Close(deep)
	must(os.MkdirAll(filepath.Join(dir, "closed/inner/more"), 0o700))
	must(os.Chmod(filepath.Join(dir, "closed/inner"), 0))
	must(os.Chmod(filepath.Join(dir, "closed"), 0))
	must(os.Symlink(filepath.Dir(outside), filepath.Join(dir, "link")))
	must(os.Symlink(outside, filepath.Join(dir, "file")))
	must(os.Link(outside, filepath.Join(dir, "hard")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	w.forget(name)
	if exists(dir) {
		t.Error("it is still to be seen")
	}
	trash := filepath.Join(w.dir, trashName)
	for deadline := time.Now().Add(testTimeout); ; time.Sleep(5 * time.Millisecond) {
		left, err := os.ReadDir(trash)
		must(err)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d entries are left, such as %q", len(left), left[0].Name())
		}
	}
	if !exists(outside) {
		t.Error("a file outside was removed")
	}
}

// A session that ran nothing has no workspace, and a name that is none is not followed.
func TestForgetIgnoresOtherNames(t *testing.T) {
	root := t.TempDir()
	w := newWorkspaces(t, root)
	if err := os.Mkdir(filepath.Join(root, w.session+"x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "x", "../x", trashName, strings.Repeat("v", 26)} {
		w.forget(name)
	}
	if !exists(filepath.Join(root, w.session+"x")) {
		t.Error("a directory that is no workspace was moved")
	}
	if !exists(filepath.Join(w.dir, trashName)) {
		t.Error("the trash is gone")
	}
}
