//go:build linux

package shim

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The workspace is first measured a second after a command has begun, so that one that makes room
// can run in a session that holds too much, and then every ten, since a walk of many files takes long.
const (
	firstDiskLook = time.Second
	diskPeriod    = 10 * time.Second
)

// perFile is what each file and directory counts in addition to its blocks, in bytes, so that empty
// ones are not free.
const perFile = 1 << 10

// diskOver reports whether a directory holds more than limit bytes. It stops when it knows. A file of
// several names counts a part for each. What lies deeper than a path can name counts as too much,
// since it could be anything.
func diskOver(dir string, limit int64) bool {
	sum := int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, syscall.ENAMETOOLONG) {
			return err
		}
		if err != nil {
			return nil // it is gone, or cannot be read
		}
		if info, err := d.Info(); err == nil {
			st, _ := info.Sys().(*syscall.Stat_t) // always, on Linux
			blocks := st.Blocks * 512
			if !d.IsDir() {
				blocks /= int64(max(1, st.Nlink))
			}
			sum += blocks + perFile
		}
		if sum > limit {
			return fs.SkipAll
		}
		return nil
	})
	return err != nil || sum > limit
}

// limitFiles keeps the files that commands of this init write below a size. It holds for good: the
// bound is the same for all sessions.
func limitFiles(size int64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &now); err != nil {
		return err
	}
	want := min(uint64(size), now.Max)
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: want, Max: want})
}
