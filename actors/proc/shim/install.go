//go:build linux

package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// filesProgram is the program that moves sessions' files, package files. It is installed with the
// runner, and found beside it.
const filesProgram = "troupe-files"

// beside returns the path of a program in the directory of this one; "": it is not there.
func beside(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(exe), name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// install copies this program to path, and the program beside it that moves files to the same
// directory, from where a container with another image executes them.
func install(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("--install must be the absolute path of a file without . or .., got %q", path)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("--install %s: there is no directory %s: mount a volume there", path, dir)
	} else if err == nil && !info.IsDir() {
		return fmt.Errorf("--install %s: %s is not a directory", path, dir)
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return fmt.Errorf("--install %s: this is a directory: name a file in it", path)
	}
	if files := beside(filesProgram); files != "" {
		if err := copyProgram(files, filepath.Join(dir, filesProgram)); err != nil {
			return fmt.Errorf("--install %s: %w", path, err)
		}
	}
	// The runner comes last: a container that finds it finds both.
	if err := copyProgram("/proc/self/exe", path); err != nil {
		return fmt.Errorf("--install %s: %w", path, err)
	}
	return nil
}

// copyProgram copies a program. The copy appears under its name only when it is complete: a
// container that starts too early finds nothing, not half a file. It replaces an existing file, even
// one that is being executed.
//
// The mode is 0555, since that container may run as any user.
func copyProgram(from, path string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	part, err := os.CreateTemp(filepath.Dir(path), ".troupe-")
	if err != nil {
		return err
	}
	_, err = io.Copy(part, src)
	if err == nil {
		err = part.Chmod(0o555)
	}
	// Closed before it gets its name: a file that is open for writing cannot be executed (ETXTBSY,
	// execve(2); golang.org/issue/22315).
	err = errors.Join(err, part.Close())
	if err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		os.Remove(part.Name())
	}
	return err
}
