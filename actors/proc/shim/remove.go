//go:build linux

package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Removing what a command left
//
// The command chose every name, mode and depth in its workspace, and may have left a process that
// changes them meanwhile (one that a runner before this one did not live to kill). So each step
// names one entry of one open directory, follows no symbolic link and does not cross a mount
// (RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV of openat2(2), Linux 5.6). A directory
// that is not empty is moved to the trash first and emptied there, so that no depth takes more
// descriptors or a longer path.
//
// https://man7.org/linux/man-pages/man2/openat2.2.html

// trashName is the directory, in that of the runner, with what is to be removed.
const trashName = ".trash"

// openDirectory opens a directory for reading.
func openDirectory(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// openBelow opens the directory name of dir, and nothing else that may have taken its place. It gives
// this process access to it first.
func openBelow(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	path, err := unix.Openat2(dir, name, &how)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	self := "/proc/self/fd/" + strconv.Itoa(path)
	if err := unix.Chmod(self, 0o700); err != nil { // of the open directory, whatever has its name now
		return -1, err
	}
	return unix.Open(self, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// emptyTrash removes everything in the directory trash. An entry that cannot be removed is left, and
// named in the error.
func emptyTrash(trash int) error {
	failed := make(map[string]error)
	for {
		names, err := entries(trash, func(name string) bool { return failed[name] == nil })
		if err != nil || len(names) == 0 {
			return errors.Join(append(values(failed), err)...)
		}
		for _, name := range names {
			if err := removeEntry(trash, trash, name); err != nil {
				failed[name] = err
			}
		}
	}
}

func values(m map[string]error) (errs []error) {
	for name, err := range m {
		errs = append(errs, fmt.Errorf("%q: %w", name, err))
		if len(errs) == 8 {
			return append(errs, fmt.Errorf("and %d others", len(m)-8))
		}
	}
	return errs
}

// removeEntry removes an entry of dir: a file or an empty directory at once, another directory with
// its files, after moving its own directories to trash.
func removeEntry(dir, trash int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	if err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.ENOTEMPTY && err != unix.EEXIST && err != unix.EACCES && err != unix.EPERM {
		return err
	}
	fd, err := openBelow(dir, name)
	if err != nil {
		return unlessGone(err)
	}
	defer unix.Close(fd)
	if err := removeContents(fd, trash); err != nil {
		return err
	}
	return unlessGone(unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

// removeContents removes everything in a directory. It moves the directories in it that are not
// empty to trash, or to the directory itself if trash is -1, and then empties that.
func removeContents(fd, trash int) error {
	if trash < 0 {
		return emptyTrash(fd)
	}
	for {
		names, err := entries(fd, nil)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := removeOrMove(fd, trash, name); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
	}
}

// removeOrMove removes an entry that is a file or an empty directory, and moves another directory to
// trash.
func removeOrMove(dir, trash int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil {
		return nil
	}
	// Moving a directory changes its "..", which needs write access to it.
	fd, err := openBelow(dir, name)
	if err != nil {
		return unlessGone(err)
	}
	unix.Close(fd)
	return unlessGone(unix.Renameat(dir, name, trash, randomName()))
}

// unlessGone returns nil for what another has removed meanwhile: at the runner's end two remove.
func unlessGone(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// batch bounds how many names are held at once.
const batch = 1024

// entries returns some names in a directory, up to batch.
func entries(dir int, wanted func(string) bool) (names []string, err error) {
	fd, err := openDirectory(dir, ".") // a position of its own
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "workspace")
	defer f.Close()
	for len(names) < batch {
		some, err := f.Readdirnames(batch)
		for _, name := range some {
			if wanted == nil || wanted(name) {
				names = append(names, name)
			}
		}
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return names, err
		}
	}
	return names, nil
}
