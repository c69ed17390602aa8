package transcript

import (
	"log/slog"
	"os"
)

// reserve takes n bytes of the budget for t and evicts the oldest sealed transcripts as needed. If
// evicting all of them would not make enough room, it evicts none and returns the reason to drop.
//
// It removes files under mu. Otherwise a second appender could find neither the freed bytes nor a
// transcript to evict, and would drop all further output although there is room.
func (s *Store) reserve(t *Transcript, n int64) DropReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return DropClosed
	}
	if s.used-s.evictable+n > s.budget {
		return DropBudget
	}
	for s.used+n > s.budget {
		front := s.oldest.Front()
		if front == nil {
			return DropBudget // Some file could not be removed.
		}
		s.evict(front.Value.(*Transcript)) //nolint:errcheck // the list holds nothing else
	}
	s.used += n
	t.disk += n
	return 0
}

// release undoes reserve after a failed write.
func (s *Store) release(t *Transcript, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	t.disk -= n
}

// sealed makes t evictable.
func (s *Store) sealed(t *Transcript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, kept := s.all[t]; !kept || t.disk == 0 || t.place != nil {
		return
	}
	t.place = s.oldest.PushBack(t)
	s.evictable += t.disk
}

// evict is called with mu held.
func (s *Store) evict(t *Transcript) {
	t.mu.Lock()
	file := t.lose()
	t.mu.Unlock()
	freed := t.disk
	err := s.free(t)
	closeFile(file) // Otherwise an open descriptor keeps the bytes on disk: unlink(2).
	if err != nil {
		t.log().Warn("cannot remove evicted transcript", slog.Any("err", err))
		return
	}
	s.evicted++
	s.evictedBytes += freed
	t.log().Debug("transcript evicted", slog.Int64("bytes", freed))
}

// discard frees the disk of an Unread transcript that has been read to its end.
func (s *Store) discard(t *Transcript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	file := t.lose()
	t.mu.Unlock()
	err := s.free(t)
	closeFile(file)
	if err != nil {
		t.log().Warn("cannot remove transcript", slog.Any("err", err))
	}
}

// forget removes t and its file from the store.
func (s *Store) forget(t *Transcript) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, t)
	return s.free(t)
}

// free removes t's file and returns its bytes to the budget. If the file cannot be removed, its
// bytes stay counted. Called with mu held.
func (s *Store) free(t *Transcript) error {
	if t.place != nil {
		s.oldest.Remove(t.place)
		t.place = nil
		s.evictable -= t.disk
	}
	if t.disk == 0 {
		return nil
	}
	if err := ignoreMissing(os.Remove(t.path)); err != nil {
		// A file can still be emptied in a directory that lost its write permission.
		if os.Truncate(t.path, 0) != nil {
			return err
		}
	}
	s.used -= t.disk
	t.disk = 0
	return nil
}
