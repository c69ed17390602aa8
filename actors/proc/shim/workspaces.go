//go:build linux

package shim

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Workspaces
//
// A runner has a directory of its own, ROOT/r-NUMBER, in which each session that has run a command
// has one, with home and tmp. The inits make these; the runner removes them. It holds a lock on its
// directory for as long as it lives, so that another runner can tell one that is in use from one
// that a killed runner left.

// instancePrefix begins the name of a runner's directory.
const instancePrefix = "r-"

// workspaces are the directories of one runner. A nil workspaces has none.
type workspaces struct {
	dir   string
	fd    int           // of dir, with the lock
	trash int           // directory of what is to be removed
	more  chan struct{} // capacity 1: something is in trash
}

// openWorkspaces makes this runner's directory in root, and begins to remove what runners left that
// are gone.
func openWorkspaces(root string) (*workspaces, error) {
	w := &workspaces{more: make(chan struct{}, 1)}
	left, err := w.open(root)
	if err != nil {
		return nil, fmt.Errorf("--workspace: %w", err)
	}
	go w.empty(left)
	return w, nil
}

// open makes and locks the directory, and locks and returns those that no runner holds. The lock on
// root keeps another runner from taking one that is not locked yet for a leftover.
func (w *workspaces) open(root string) (left []string, err error) {
	all, err := openDirectory(unix.AT_FDCWD, root)
	if err != nil {
		return nil, err
	}
	defer unix.Close(all)
	if err := unix.Flock(all, unix.LOCK_EX); err != nil {
		return nil, os.NewSyscallError("flock", err)
	}
	if left, err = filepath.Glob(filepath.Join(root, instancePrefix+"*")); err != nil {
		return nil, err
	}
	left = slices.DeleteFunc(left, func(dir string) bool {
		fd, err := openDirectory(unix.AT_FDCWD, dir)
		if err != nil {
			return true
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return false // the lock is kept until this process ends
		}
		unix.Close(fd)
		return true
	})
	if w.dir, err = os.MkdirTemp(root, instancePrefix); err != nil {
		return nil, err
	}
	if w.fd, err = openDirectory(unix.AT_FDCWD, w.dir); err != nil {
		return nil, err
	}
	if err := unix.Flock(w.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, os.NewSyscallError("flock", err)
	}
	if err := unix.Mkdirat(w.fd, trashName, 0o700); err != nil {
		return nil, os.NewSyscallError("mkdir", err)
	}
	w.trash, err = openDirectory(w.fd, trashName)
	return left, err
}

func randomName() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// path is the directory of the sessions' workspaces; "": there is none.
func (w *workspaces) path() string {
	if w == nil {
		return ""
	}
	return w.dir
}

// forget removes the workspace of a session in the background. The session sees it disappear at
// once.
func (w *workspaces) forget(name string) {
	if w == nil || !frame.WorkspaceName(name) {
		return
	}
	// The name was never used before: it is random. A session that ran nothing has no workspace.
	if unix.Renameat(w.fd, name, w.trash, name) == nil {
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

// empty removes what other runners left, and then what is put into trash, until the process ends.
func (w *workspaces) empty(left []string) {
	for _, dir := range left {
		w.report(removeAll(dir, w.trash))
	}
	w.report(emptyTrash(w.trash)) // what the leftovers were taken apart into
	for range w.more {
		w.report(emptyTrash(w.trash))
	}
}

func (w *workspaces) report(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "troupe-runner: removing a workspace:", err)
	}
}

// removeAll removes a directory. Its own directories go to trash first.
func removeAll(dir string, trash int) error {
	fd, err := openDirectory(unix.AT_FDCWD, dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(removeContents(fd, trash), os.Remove(dir))
}

// remove removes everything, when no command lives.
func (w *workspaces) remove() {
	if w == nil {
		return
	}
	w.report(errors.Join(removeContents(w.fd, -1), os.Remove(w.dir)))
}
