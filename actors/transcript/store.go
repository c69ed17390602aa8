package transcript

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	suffix   = ".transcript"
	lockName = "transcripts.lock"
)

// Config says where transcripts live.
type Config struct {
	// Dir holds the files. Created with mode 0700 when missing (its parent must exist); the mode of
	// one that exists is left alone. Transcripts that an earlier process left in it are removed.
	// Required.
	Dir string
	// Budget is the most bytes that all files of the store may have, record headers included.
	// Required: without it a client could fill the disk of the node.
	Budget int64
	// OwnerBudget is the most bytes that the files of one owner may have: one who would exceed it
	// loses its own oldest finished transcripts, and then drops. 0: Budget alone bounds them.
	OwnerBudget int64
	// Logger receives failures and evictions. Nil: discard.
	Logger *slog.Logger
}

// Stats describes a store.
type Stats struct {
	Bytes         int64 // On disk, record headers included.
	Budget        int64
	OwnerBudget   int64 // 0: none.
	Owners        int   // Those that have transcripts.
	LargestOwner  int64 // Bytes on disk of the owner that uses most.
	Evictable     int64 // The part of Bytes that would be evicted to make room: transcripts that are sealed.
	Transcripts   int   // Created and not removed; evicted ones count.
	Evicted       int64 // Transcripts evicted since Open.
	EvictedBytes  int64 // Bytes on disk that this freed.
	WriteFailures int64 // Transcripts that lost output because they could not be written.
	ReadFailures  int64 // Times that a cursor had to report a gap because a file could not be read.

	// The output given to the writers of all transcripts since Open, counted as it arrives: an
	// execution that prints for an hour is visible in these figures for an hour.
	OutputBytes    int64 // Kept, markers of truncated lines included.
	TruncatedLines int64
	DroppedLines   [DropClosed + 1]int64 // By DropReason.
	DroppedBytes   [DropClosed + 1]int64 // By DropReason.
}

// Store owns the transcripts of one process in one directory.
type Store struct {
	dir         string
	created     bool // By Open, so Close may remove it.
	opened      time.Time
	budget      int64
	ownerBudget int64 // 0: none.
	log         *slog.Logger
	lock        *os.File
	seq         atomic.Int64

	writeFailures  atomic.Int64
	readFailures   atomic.Int64
	outputBytes    atomic.Int64
	truncatedLines atomic.Int64
	droppedLines   [DropClosed + 1]atomic.Int64
	droppedBytes   [DropClosed + 1]atomic.Int64

	// These are replaced by tests that need a failing disk.
	pwritev   func(fd int, parts [][]byte, offset int64) (int, error)
	fallocate func(fd int, offset, size int64) error

	mu           sync.Mutex
	closed       bool
	all          map[*Transcript]struct{}
	owners       map[string]*owner // Those that have transcripts.
	used         int64
	evictable    int64 // Sum of the owners'.
	chosen       int64 // Sum of the owners'.
	evicted      int64
	evictedBytes int64
}

// Open prepares the directory. The error says what is wrong with the directory and how to correct
// it.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("transcript: Config.Dir is empty; name a directory for the output of executions")
	}
	if cfg.Budget <= 0 {
		return nil, fmt.Errorf(
			"transcript: Config.Budget is %d; give the bytes of disk that transcripts may use, such as 2147483648", cfg.Budget)
	}
	if cfg.OwnerBudget < 0 {
		return nil, fmt.Errorf(
			"transcript: Config.OwnerBudget is %d; give the bytes of disk that one owner may use, or 0 for no bound of its own",
			cfg.OwnerBudget)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		dir:         cfg.Dir,
		opened:      time.Now(),
		budget:      cfg.Budget,
		ownerBudget: cfg.OwnerBudget,
		log:         cfg.Logger,
		pwritev:     unix.Pwritev,
		fallocate:   func(fd int, offset, size int64) error { return unix.Fallocate(fd, 0, offset, size) },
		all:         make(map[*Transcript]struct{}),
		owners:      make(map[string]*owner),
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("transcript directory %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func (s *Store) prepare() error {
	err := os.Mkdir(s.dir, 0o700)
	switch {
	case err == nil:
		s.created = true
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf(
			"its parent %s does not exist; create that, or name a directory below an existing one", filepath.Dir(s.dir))
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("cannot create it (%w); name a directory that this user (uid %d) may create", err, os.Getuid())
	}
	info, err := os.Stat(s.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("exists but is not a directory; remove it or name a directory")
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		s.log.Warn("others may write to the transcript directory; mode 0700 would be right",
			slog.String("dir", s.dir), slog.String("mode", info.Mode().Perm().String()))
	}
	return s.removeLeftovers()
}

// takeLock proves that the directory is writable and exclusively ours. Two processes in one
// directory would each take the other's files for leftovers.
func (s *Store) takeLock() error {
	f, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf(
			"cannot write to it (%w); make it writable for this user (uid %d) or name another", err, os.Getuid())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeFile(f)
		if err == unix.EWOULDBLOCK {
			return errors.New("is in use by another process; give each its own directory")
		}
		return fmt.Errorf("cannot lock %s: %w", lockName, err)
	}
	// A process that closes its store removes the file, so the file that we locked may no longer be
	// the one that others will find.
	ours, err := f.Stat()
	if found, e := os.Lstat(f.Name()); err != nil || e != nil || !os.SameFile(ours, found) {
		closeFile(f)
		return errors.New("is being released by another process; try again")
	}
	s.lock = f
	return nil
}

// restore makes the directory again if it was removed, for example by a cleaner of temporary files.
// Later readers lose the output written so far, but new output need not be lost. It reports whether
// the directory exists and is ours.
func (s *Store) restore() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Stat(s.dir); err == nil || s.closed {
		return err == nil // another transcript was first
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return false
	}
	old := s.lock
	if err := s.takeLock(); err != nil {
		s.log.Error("the data directory was removed and cannot be restored", "dir", s.dir, "err", err)
		return false
	}
	closeFile(old)
	s.log.Warn("the data directory was removed; it is restored", "dir", s.dir)
	return true
}

// removeLeftovers removes the files that an earlier process left behind, and nothing else: the
// directory may have other uses too.
func (s *Store) removeLeftovers() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, e.Name())))
		}
	}
	if err != nil {
		closeFile(s.lock)
		return fmt.Errorf("cannot remove what an earlier process left (%w); remove its *%s files", err, suffix)
	}
	return nil
}

// Create makes a transcript. The name is for the log: the session's, a slash and the execution's.
// There is no I/O before the first byte, so a silent command leaves no file. Remove it when done.
func (s *Store) Create(name string, o Options) *Transcript {
	file := strconv.FormatInt(s.seq.Add(1), 10) + suffix
	t := &Transcript{
		store: s, name: name, path: filepath.Join(s.dir, file), retain: o.Retain, limit: o.Limit, times: o.Times,
	}
	if o.Retain != First {
		t.recycled = newRecycler(&t.mu)
	}
	if o.Retain == Last {
		t.limit, t.summary = o.Scrollback, o.Summary
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.join(t, o.Owner)
	return t
}

// log returns the logger for lines about t.
func (t *Transcript) log() *slog.Logger {
	session, execution, _ := strings.Cut(t.name, "/")
	return t.store.log.With("session", session, "execution", execution)
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{
		Bytes:          s.used,
		Budget:         s.budget,
		OwnerBudget:    s.ownerBudget,
		Owners:         len(s.owners),
		Evictable:      s.evictable,
		Transcripts:    len(s.all),
		Evicted:        s.evicted,
		EvictedBytes:   s.evictedBytes,
		WriteFailures:  s.writeFailures.Load(),
		ReadFailures:   s.readFailures.Load(),
		OutputBytes:    s.outputBytes.Load(),
		TruncatedLines: s.truncatedLines.Load(),
	}
	for _, o := range s.owners {
		stats.LargestOwner = max(stats.LargestOwner, o.used)
	}
	for reason := range stats.DroppedLines {
		stats.DroppedLines[reason] = s.droppedLines[reason].Load()
		stats.DroppedBytes[reason] = s.droppedBytes[reason].Load()
	}
	return stats
}

// Close removes every transcript, and the directory if Open created it and nothing else is in it.
// Readers see a gap, writers drop. Idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := make([]*Transcript, 0, len(s.all))
	for t := range s.all {
		all = append(all, t)
	}
	s.mu.Unlock()

	var errs []error
	for _, t := range all {
		errs = append(errs, t.Remove())
	}
	errs = append(errs, ignoreMissing(os.Remove(s.lock.Name())))
	closeFile(s.lock)
	if s.created {
		_ = os.Remove(s.dir) // Fails when something else is in it, which is not ours to remove.
	}
	return errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
