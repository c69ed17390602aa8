//go:build linux

package shim

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// disks measures the workspaces of sessions: the runner does, once for all executions of a session.
type disks struct {
	mu   sync.Mutex
	due  map[string]int64 // what each workspace of the next round may hold
	more chan struct{}    // capacity 1: there is one
}

// diskPause is how long requests are collected before a round, so that a session of many short
// commands is measured once a second and not for each.
const diskPause = time.Second

func newDisks() *disks { return &disks{due: make(map[string]int64), more: make(chan struct{}, 1)} }

func (d *disks) want(workspace string, limit int64) {
	d.mu.Lock()
	d.due[workspace] = limit
	d.mu.Unlock()
	select {
	case d.more <- struct{}{}:
	default:
	}
}

func (d *disks) take() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := d.due
	d.due = make(map[string]int64)
	return due
}

// measureDisks answers the requests of trouped until the process ends.
func (s *supervisor) measureDisks() {
	for range s.disks.more {
		time.Sleep(diskPause)
		for name, limit := range s.disks.take() {
			over := false
			spent := spend(func() { over = s.workspaces != nil && diskOver(s.workspaces.path()+name, limit) })
			s.send(frame.New(frame.KindMeasured).Str(name).Bool(over).Int(int64(spent)).Done())
			time.Sleep(walkShare * spent)
		}
	}
}

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

// withoutFiles calls start, which starts a command, so that the command cannot write to files from
// its first instruction on. Only its hard limit, which this process could not raise again, has to be
// lowered from outside: see forbidFiles.
func withoutFiles(start func()) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &now); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 0, Max: now.Max}); err != nil {
		return err
	}
	start()
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &now)
}

// forbidFiles keeps a command from raising its limit. The calling thread must be in no domain, whose
// filter denies that. It fails for a command that has ended.
func forbidFiles(pid int) { _ = unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{}, nil) }
