package transcript

import (
	"os"
	"sync"
	"time"
)

// The file of an Unread or Last transcript is used again from its front: it consists of blocks, and
// a block whose records are not kept any more takes later ones. Positions in the stream of records
// only grow; a table says where in the file the kept blocks are.
//
// A file that is reused neither grows nor costs a system call for what gives way, and its pages stay
// in the page cache.

// blockSize is a multiple of the usual page size.
const blockSize = 64 << 10

// maxRecycled is the most payload of one record in such a file: a record is kept or gone as a whole.
const maxRecycled = 64 << 10

// maxUnreadFile bounds the file of an Unread transcript. UnreadWindow is reached first, unless
// Unblock has let more in.
const maxUnreadFile = 4<<20 - blockSize

// recycler is what an Unread or Last transcript has beyond a First one.
type recycler struct {
	mu *sync.Mutex // The transcript's.

	// Of the record being written. Guarded by writeMu.
	extents [4]extent
	size    int64 // Of the file.

	// Guarded by mu. The positions that are kept begin in block number first.
	first int64
	slots queue[int32] // Where in the file that block and the following ones are, in blocks.
	free  queue[int32] // In the order they became free, so that neighbours stay neighbours.
	next  int32        // The first slot that was never used.

	// Flow control. Guarded by mu.
	room      sync.Cond
	paced     int64     // Of a Last transcript: how far its reader is,
	window    int64     // and how far the writers may be ahead of it; 0: any distance.
	waiting   int       // Writers.
	since     time.Time // When the first of them began to.
	unblocked bool
}

// extent is a part of the file.
type extent struct {
	at, size int64
}

func newRecycler(mu *sync.Mutex) *recycler {
	return &recycler{mu: mu, room: sync.Cond{L: mu}}
}

// find returns the part of the file that holds at most n bytes from pos on. Called with mu held.
func (r *recycler) find(pos, n int64) (e extent, ok bool) {
	slots := r.slots.all()
	i := pos/blockSize - r.first
	if i < 0 || i >= int64(len(slots)) {
		return extent{}, false
	}
	in := pos % blockSize
	e = extent{int64(slots[i])*blockSize + in, blockSize - in}
	for i++; e.size < n && i < int64(len(slots)) && slots[i] == slots[i-1]+1; i++ {
		e.size += blockSize
	}
	e.size = min(e.size, n)
	return e, true
}

// place finds room for the n bytes at pos, the end of the records, and returns by how many bytes the
// file must grow, to whole blocks if asked. Called with writeMu held.
func (r *recycler) place(pos, n int64, whole bool) (grow int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for last := (pos + n - 1) / blockSize; r.first+int64(r.slots.len()) <= last; {
		if r.free.len() > 0 {
			r.slots.push(r.free.all()[0])
			r.free.drop(1)
			continue
		}
		r.slots.push(r.next)
		r.next++
	}
	size := r.size
	r.extents = [4]extent{}
	for i := 0; n > 0; i++ {
		e, _ := r.find(pos, n)
		r.extents[i] = e
		size = max(size, e.at+e.size)
		pos, n = pos+e.size, n-e.size
	}
	if whole {
		size = (size + blockSize - 1) / blockSize * blockSize
	}
	return size - r.size
}

// unplace takes back what place did for a record at pos that was not written. Called with mu held.
func (r *recycler) unplace(pos int64) {
	for r.first+int64(r.slots.len()) > (pos+blockSize-1)/blockSize {
		last := len(r.slots.items) - 1
		slot := r.slots.items[last]
		r.slots.items = r.slots.items[:last]
		if int64(slot)*blockSize >= r.size {
			r.next = slot
		} else {
			r.free.push(slot)
		}
	}
}

// keepFrom frees the blocks below pos. Called with mu held.
func (r *recycler) keepFrom(pos int64) {
	for r.first < pos/blockSize && r.slots.len() > 0 {
		r.free.push(r.slots.all()[0])
		r.slots.drop(1)
		r.first++
	}
}

// extentAfter returns where the bytes of the record being written go, from the given one on. Called
// with writeMu held.
func (r *recycler) extentAfter(written int64) extent {
	for _, e := range r.extents {
		if written < e.size {
			return extent{e.at + written, e.size - written}
		}
		written -= e.size
	}
	return extent{}
}

// read fills b with the file's bytes from pos on. errRecycled means that they had to give way, maybe
// while they were read.
func (r *recycler) read(f *os.File, b []byte, pos int64) error {
	for done := int64(0); done < int64(len(b)); {
		left := b[done:]
		r.mu.Lock()
		e, ok := r.find(pos+done, int64(len(left)))
		r.mu.Unlock()
		if !ok {
			return errRecycled
		}
		if err := readAt(f, left[:e.size], e.at); err != nil {
			return err
		}
		done += e.size
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.find(pos, 1); !ok {
		return errRecycled
	}
	return nil
}
