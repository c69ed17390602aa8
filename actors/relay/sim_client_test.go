package relay

import (
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is the gateway of the simulation: a socket writes when it can what the proxy leaves for
// it.

// socket is a client's connection to a pod that does not own its session.
type socket struct {
	pod    *simPod
	user   *user
	link   LinkID
	proxy  *simProxy
	queue  []simItem
	feeds  []*simFollower
	turn   int
	ending wire.Cause
	flush  time.Time
	dead   bool
	told   bool // the proxy was told that it is dead
	busy   bool
	told7  bool // the proxy said -32007
	lost   bool // and it was written
	again  bool // resume was sent on it
	ids    map[string]bool
	lastID int
	have   map[string]gotten
}

// gotten is what a client was written of an execution.
type gotten struct {
	opened    bool
	offset    int64
	completed bool
}

type simItem struct {
	id     wire.ID
	answer bool
	result any
	err    *wire.Error
	method string
	feed   *Feed
}

type simFollower struct {
	id     string
	cursor Cursor
	ready  bool
	ended  bool
	window int64 // 0: none
	acked  int64
}

// room is how much may be sent beyond what is acknowledged.
func (f *simFollower) room() int64 {
	if f.window == 0 {
		return 1 << 20
	}
	return f.acked + f.window - f.cursor.Offset()
}

// ack takes what the client has processed, and passes it on as the gateway does.
func (s *socket) ack(id string, offset int64, completed bool) {
	for _, f := range s.feeds {
		if f.id == id {
			f.acked = max(f.acked, offset)
		}
	}
	g := s.proxy
	s.pod.mail(func() {
		if !s.dead {
			g.call(func() {
				g.proxy.Request(s.pod.w.now, nil, &wire.AckParams{ExecutionID: id, Offset: offset, Completed: completed})
			})
		}
	})
	s.work(0)
}

func (s *socket) got(id string) gotten { return s.have[id] }

// ended reports whether the client has heard the end, or is gone.
func (s *socket) ended() bool { return s.dead || s.ending != "" }

func (s *socket) newID() wire.ID {
	s.lastID++
	id := strconv.Itoa(s.lastID)
	s.ids[id] = true
	return wire.ID(id)
}

func (s *socket) Reply(id wire.ID, result any, err *wire.Error) {
	s.alive("Reply")
	if len(id) > 0 {
		if !s.ids[string(id)] {
			s.pod.w.failf("an answer to %s, which was not asked or is answered", id)
		}
		delete(s.ids, string(id))
	}
	s.told7 = s.told7 || err != nil && err.Code == wire.CodeSessionLost
	s.put(simItem{id: id, answer: true, result: result, err: err})
}

func (s *socket) Notify(method string, params any) {
	s.alive("Notify")
	s.put(simItem{method: method, result: params})
}

func (s *socket) Follow(f Feed) bool {
	s.alive("Follow")
	return s.put(simItem{feed: &f})
}

func (s *socket) Disconnect(cause wire.Cause) {
	s.alive("Disconnect")
	if cause == wire.CauseSessionLost && !s.told7 {
		s.pod.w.failf("the session is lost, and the client is not told so")
	}
	if s.ending == "" {
		s.ending, s.flush = cause, s.pod.w.now.Add(10*time.Second)
	}
	s.work(0)
}

func (s *socket) alive(call string) {
	if s.told {
		s.pod.w.failf("%s after Closed", call)
	}
}

func (s *socket) put(it simItem) bool {
	if s.ending != "" || s.dead {
		return false
	}
	s.queue = append(s.queue, it)
	s.work(0)
	return true
}

func (s *socket) opened(string) {}

func (s *socket) refused(g *simProxy, err *wire.Error, cause wire.Cause) {
	w := s.pod.w
	w.logf("%s: no session on %s: %v", s.pod.name, g.owner.name, err)
	s.dead = true
	s.pod.after(0, func() { s.user.refused(s, cause) })
}

// work has the writer take a step, soon.
func (s *socket) work(d time.Duration) {
	if s.busy || s.dead {
		return
	}
	s.busy = true
	w := s.pod.w
	d += w.upTo(500 * time.Microsecond)
	if w.chance(1) {
		d += w.upTo(6 * time.Second) // the client does not read
	}
	s.pod.after(d, func() {
		s.busy = false
		s.step()
	})
}

func (s *socket) step() {
	if s.dead {
		return
	}
	leaving := s.ending != ""
	if leaving && s.pod.w.now.After(s.flush) {
		s.close(s.ending)
		return
	}
	items := s.queue
	s.queue = nil
	for _, it := range items {
		s.write(it)
		if s.dead {
			return
		}
	}
	worked := len(items) > 0
	if f := s.nextFeed(); f != nil {
		worked = true
		s.pull(f)
	}
	switch {
	case s.dead:
	case worked:
		s.work(0)
	case leaving:
		s.checkDrained()
		s.close(s.ending)
	}
}

// checkDrained: a session that ends in order has sent all of its output before it says so.
func (s *socket) checkDrained() {
	c := s.proxy.origin()
	if s.ending != wire.CauseDraining || c == nil || c.slow || len(s.queue) > 0 {
		return
	}
	for _, f := range s.feeds {
		if !s.have[f.id].completed {
			s.pod.w.failf("the session ended in order, and the end of %s was not sent", f.id)
		}
	}
}

func (s *socket) write(it simItem) {
	switch {
	case it.feed != nil:
		f := &simFollower{id: it.feed.ExecutionID, ready: true}
		f.cursor, _ = it.feed.Open(func() {
			f.ready = true
			s.work(0)
		})
		f.window, f.acked = it.feed.Window, f.cursor.Offset()
		s.have[f.id] = gotten{opened: true, offset: f.cursor.Offset()}
		s.user.follows(f.id, f.cursor.Offset())
		for i, old := range s.feeds {
			if old.id == f.id {
				old.cursor.Close()
				s.feeds[i] = f
				return
			}
		}
		s.feeds = append(s.feeds, f)
	case it.answer:
		s.user.reply(s, it.id, it.result, it.err)
	default:
		s.user.notified(s, it.method, it.result)
	}
}

func (s *socket) nextFeed() *simFollower {
	for i := range s.feeds {
		if f := s.feeds[(s.turn+i)%len(s.feeds)]; f.ready && !f.ended && f.room() > 0 {
			s.turn++
			return f
		}
	}
	return nil
}

func (s *socket) pull(f *simFollower) {
	w := s.pod.w
	f.ready = false
	piece, err := f.cursor.Next(make([]byte, min(1+w.rng.IntN(4000), int(f.room()))))
	if errors.Is(err, transcript.ErrWait) {
		return
	}
	f.ready = true
	if errors.Is(err, io.EOF) {
		f.ended = true
		return
	}
	if err != nil {
		w.failf("cursor: %v", err)
	}
	got := s.have[f.id]
	switch m := piece.Mark.(type) {
	case *wire.Completed:
		got.completed = true
		s.have[f.id] = got
		s.user.completed(f.id, m)
		s.user.acks(s, f.id)
	case *wire.Warning:
	default:
		s.have[f.id] = gotten{opened: true, offset: piece.Offset, completed: got.completed}
		s.user.output(f.id, piece)
		s.user.acks(s, f.id)
	}
}

// close is the end of the socket: what gateway's finish does.
func (s *socket) close(cause wire.Cause) {
	w := s.pod.w
	s.dead = true
	delivered := map[string]int64{}
	for _, f := range s.feeds {
		if got := s.have[f.id]; !got.completed {
			delivered[f.id] = got.offset
		}
		f.cursor.Close()
	}
	for _, it := range s.queue {
		if it.feed == nil {
			continue
		}
		cursor, _ := it.feed.Open(func() {})
		delivered[it.feed.ExecutionID] = cursor.Offset()
		s.have[it.feed.ExecutionID] = gotten{opened: true, offset: cursor.Offset()}
		cursor.Close()
	}
	s.feeds, s.queue = nil, nil
	if w.chance(5) {
		delivered = nil
	}
	w.logf("%s: socket of %s closes: %s", s.pod.name, s.user.name, cause)
	g := s.proxy
	s.pod.mail(func() {
		s.told = true
		g.call(func() { g.proxy.Closed(w.now, cause, delivered) })
	})
	w.after(w.upTo(2*time.Millisecond), func() { s.user.closed(s, cause) })
}

// podDied is the end of a socket whose pod is gone.
func (s *socket) podDied() {
	if s.dead {
		return
	}
	s.dead = true
	s.pod.w.after(s.pod.w.upTo(2*time.Millisecond), func() { s.user.closed(s, wire.CauseClientGone) })
}
