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
	"strings"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Workspaces
//
// Each session that has run a command has a directory ROOT/s-RUNNER-NAME, with home and tmp in it.
// The inits make these; the runner removes them. The runner has a directory ROOT/r-RUNNER-SECRET,
// which holds what it is removing. It has a lock on that for as long as it lives, so that another
// runner can tell directories that are in use from those that a killed runner left.
//
// Sessions know the path of their own directory only. Whoever owns a directory can take its
// permissions away, and all sessions have the same user. So no directory whose path they know is
// shared, unless it is ROOT, which another user owns in the chart's pods.

// What the names of directories begin with.
const (
	instancePrefix = "r-"
	sessionPrefix  = "s-"
)

// tagLength is the length of RUNNER.
const tagLength = 8

// workspaces are the directories of one runner. A nil workspaces has none.
type workspaces struct {
	root    string
	dir     string
	session string        // what the names of its sessions' directories begin with
	rootFD  int           // of root
	fd      int           // of dir, with the lock
	trash   int           // directory of what is to be removed
	more    chan struct{} // capacity 1: something is in trash
}

// openWorkspaces makes this runner's directory in root, and begins to remove what runners left that
// are gone.
func openWorkspaces(root string) (*workspaces, error) {
	w := &workspaces{root: root, more: make(chan struct{}, 1)}
	left, err := w.open()
	if err != nil {
		return nil, fmt.Errorf("--workspace: %w", err)
	}
	go w.empty(left)
	return w, nil
}

// open makes and locks the directory, and locks and returns those that no runner holds. The lock on
// root keeps another runner from taking one that is not locked yet for a leftover.
func (w *workspaces) open() (left []string, err error) {
	all, err := openDirectory(unix.AT_FDCWD, w.root)
	if err != nil {
		return nil, err
	}
	defer unix.Close(all)
	if err := unix.Flock(all, unix.LOCK_EX); err != nil {
		return nil, os.NewSyscallError("flock", err)
	}
	if left, err = filepath.Glob(filepath.Join(w.root, instancePrefix+"*")); err != nil {
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
	tag := randomName()[:tagLength]
	w.session = sessionPrefix + tag + "-"
	w.dir = filepath.Join(w.root, instancePrefix+tag+"-"+randomName())
	if err := os.Mkdir(w.dir, 0o700); err != nil {
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
	if w.trash, err = openDirectory(w.fd, trashName); err != nil {
		return nil, err
	}
	w.rootFD, err = openDirectory(unix.AT_FDCWD, w.root) // not the file with the lock
	return left, err
}

func randomName() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// path is what the paths of the sessions' directories begin with; "": there are none.
func (w *workspaces) path() string {
	if w == nil {
		return ""
	}
	return filepath.Join(w.root, w.session)
}

// forget removes the workspace of a session in the background. The session sees it disappear at
// once.
func (w *workspaces) forget(name string) {
	if w == nil || !frame.WorkspaceName(name) {
		return
	}
	// The name was never used before: it is random. A session that ran nothing has no workspace.
	if unix.Renameat(w.rootFD, w.session+name, w.trash, name) == nil {
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

// empty removes what other runners left, and then what is put into trash, until the process ends.
func (w *workspaces) empty(left []string) {
	for _, dir := range left {
		if tag, _, ok := strings.Cut(strings.TrimPrefix(filepath.Base(dir), instancePrefix), "-"); ok {
			w.report(w.discard(sessionPrefix + tag + "-"))
		}
		w.report(removeAll(dir, w.trash))
	}
	w.report(emptyTrash(w.trash)) // what the leftovers were taken apart into
	for range w.more {
		w.report(emptyTrash(w.trash))
	}
}

// discard moves the sessions' directories of a runner to trash.
func (w *workspaces) discard(prefix string) error {
	dirs, err := filepath.Glob(filepath.Join(w.root, prefix+"*"))
	for _, dir := range dirs {
		err = errors.Join(err, removeOrMove(w.rootFD, w.trash, filepath.Base(dir)))
	}
	return err
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
	w.report(errors.Join(w.discard(w.session), removeContents(w.fd, -1), os.Remove(w.dir)))
}
