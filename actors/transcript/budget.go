package transcript

import (
	"container/list"
	"log/slog"
	"os"
)

// owner is the account of everything that one owner has in the store. Guarded by Store.mu.
type owner struct {
	name        string
	transcripts int // Created and not removed.
	used        int64
	evictable   int64     // The part of used that is in oldest.
	oldest      list.List // Of sealed *Transcript with bytes on disk: first those to evict first.

	// Of a choice of victims that is being made.
	chosen int64         // Bytes that they free.
	next   *list.Element // Of oldest.
}

// join makes t a transcript of an owner. Called with mu held.
func (s *Store) join(t *Transcript, name string) {
	o := s.owners[name]
	if o == nil {
		o = &owner{name: name}
		s.owners[name] = o
	}
	o.transcripts++
	t.owner = o
	s.all[t] = struct{}{}
}

// charge adds to what t uses. Called with mu held.
func (s *Store) charge(t *Transcript, n int64) {
	s.used += n
	t.owner.used += n
	t.disk += n
}

// reserve takes n bytes of the budget for t and evicts sealed transcripts as needed; victims says
// which. If evicting would not make enough room, it evicts none and returns the reason to drop.
//
// It removes files under mu. Otherwise a second appender could find neither the freed bytes nor a
// transcript to evict, and would drop all further output although there is room.
func (s *Store) reserve(t *Transcript, n int64) DropReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return DropClosed
	}
	if !s.hasRoom(t.owner, n) {
		victims, enough := s.victims(t.owner, n)
		if !enough {
			return s.short(t.owner, n)
		}
		for _, v := range victims {
			s.evict(v)
		}
		if !s.hasRoom(t.owner, n) {
			return DropBudget // Some file could not be removed.
		}
	}
	s.charge(t, n)
	return 0
}

// hasRoom reports whether o may use n bytes more, once the chosen victims are gone. Called with mu
// held.
func (s *Store) hasRoom(o *owner, n int64) bool {
	return s.used-s.chosen+n <= s.budget && (s.ownerBudget == 0 || o.used-o.chosen+n <= s.ownerBudget)
}

// victims chooses the transcripts to evict so that o may use n bytes more: those of whoever uses
// most, and no owner loses anything to one that would use more than itself. While its own budget is
// short, o would use more than all others. It returns false if that does not make enough room.
// Called with mu held.
func (s *Store) victims(o *owner, n int64) (chosen []*Transcript, enough bool) {
	for _, v := range s.owners {
		v.next = v.oldest.Front()
	}
	defer func() {
		s.chosen = 0
		for _, v := range s.owners {
			v.chosen, v.next = 0, nil
		}
	}()
	for !s.hasRoom(o, n) {
		from := s.largest(o, n)
		if from == nil {
			return nil, false
		}
		t := from.next.Value.(*Transcript) //nolint:errcheck // the list holds nothing else
		from.next = from.next.Next()
		from.chosen += t.disk
		s.chosen += t.disk
		chosen = append(chosen, t)
	}
	return chosen, true
}

// largest returns, of the owners with something to evict that use no less than o with n bytes more,
// and o, the one that uses most. Called with mu held.
func (s *Store) largest(o *owner, n int64) *owner {
	var most *owner
	for _, v := range s.owners {
		use := v.used - v.chosen
		if v.next == nil || v != o && use < o.used-o.chosen+n {
			continue
		}
		if most == nil || use > most.used-most.chosen || use == most.used-most.chosen && v.name < most.name {
			most = v
		}
	}
	return most
}

// short returns why o cannot use n bytes more, whatever is evicted. Called with mu held.
func (s *Store) short(o *owner, n int64) DropReason {
	if s.ownerBudget > 0 && o.used-o.evictable+n > s.ownerBudget {
		return DropOwner
	}
	return DropBudget
}

// release undoes reserve after a failed write.
func (s *Store) release(t *Transcript, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.charge(t, -n)
}

// sealed makes t evictable.
func (s *Store) sealed(t *Transcript) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, kept := s.all[t]; !kept || t.disk == 0 || t.place != nil {
		return
	}
	t.place = t.owner.enqueue(t)
	t.owner.evictable += t.disk
	s.evictable += t.disk
}

// enqueue puts t behind those that were sealed before, but in front of Unread ones: these still hold
// bytes only because their reader has yet to come for them.
func (o *owner) enqueue(t *Transcript) *list.Element {
	for e := o.oldest.Back(); e != nil; e = e.Prev() {
		if t.retain == Unread || e.Value.(*Transcript).retain != Unread { //nolint:errcheck // nothing else is in it
			return o.oldest.InsertAfter(t, e)
		}
	}
	return o.oldest.PushFront(t)
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
	o := t.owner
	if _, kept := s.all[t]; kept {
		delete(s.all, t)
		o.transcripts--
	}
	err := s.free(t)
	if o.transcripts == 0 && o.used == 0 && s.owners[o.name] == o { // The name may have a new account.
		delete(s.owners, o.name)
	}
	return err
}

// free removes t's file and returns its bytes to the budget. If the file cannot be removed, its
// bytes stay counted. Called with mu held.
func (s *Store) free(t *Transcript) error {
	if t.place != nil {
		t.owner.oldest.Remove(t.place)
		t.place = nil
		t.owner.evictable -= t.disk
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
	s.charge(t, -t.disk)
	return nil
}
