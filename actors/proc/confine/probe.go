//go:build linux

package confine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Probe shows that a domain holds, by doing what it must prevent. It enters one in which dir can be
// changed, and then must fail to reach its parent process and to read the directory outside. It runs
// in a child process made for it, which the caller ends. The parent must be of the same user.
func Probe(r *Rules, dir, outside string) error {
	set, err := Prepare(r)
	if err != nil {
		return err
	}
	parent := os.Getppid()
	// Both work now, or their failure would show nothing.
	if err := unix.Kill(parent, 0); err != nil {
		return fmt.Errorf("the probe cannot signal its parent before it is confined: %w", err)
	}
	if err := list(outside); err != nil {
		return fmt.Errorf("the probe cannot read before it is confined: %w", err)
	}
	if err := set.Enter(dir); err != nil {
		return err
	}
	if err := list(dir); err != nil {
		return fmt.Errorf("a domain cannot read its own directory: %w", err)
	}
	for _, tried := range []struct {
		what string
		err  error
		want unix.Errno
	}{
		{"signal a process outside", unix.Kill(parent, 0), unix.EPERM},
		{"limit a process outside", unix.Prlimit(parent, unix.RLIMIT_NOFILE, nil, new(unix.Rlimit)), unix.EPERM},
		{"read a directory outside", list(outside), unix.EACCES},
	} {
		if !errors.Is(tried.err, tried.want) {
			return fmt.Errorf("a domain does not hold: to %s gives %s, not %w", tried.what, fmt.Sprint(tried.err), tried.want)
		}
	}
	return nil
}

func list(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return unix.Close(fd)
}
