//go:build linux

package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// install copies this program to path, from where a container with another image executes it. The
// copy appears under its name only when it is complete: a container that starts too early finds
// nothing, not half a file. It replaces an existing file, even one that is being executed.
//
// The mode is 0555, since that container may run as any user.
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
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("--install: %w", err)
	}
	defer self.Close()
	part, err := os.CreateTemp(dir, ".troupe-runner-")
	if err != nil {
		return fmt.Errorf("--install %s: %w", path, err)
	}
	_, err = io.Copy(part, self)
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
		return fmt.Errorf("--install %s: %w", path, err)
	}
	return nil
}
