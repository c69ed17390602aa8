package relay

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// This file is the gateway and the client of the simulation: a socket writes when it can
// what the guest leaves for it, and its user checks every message.

// socket is a client's connection to a pod that does not own its session.
type socket struct {
	pod    *simPod
	user   *user
	link   LinkID
	guest  *simGuest
	queue  []simItem
	feeds  []*simFollower
	turn   int
	ending wire.Cause
	flush  time.Time
	dead   bool
	told   bool // the guest was told that it is dead
	busy   bool
	told7  bool // the guest said -32007
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

func (s *socket) refused(g *simGuest, err *wire.Error, cause wire.Cause) {
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
	c := s.guest.host()
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
		if f := s.feeds[(s.turn+i)%len(s.feeds)]; f.ready && !f.ended {
			s.turn++
			return f
		}
	}
	return nil
}

func (s *socket) pull(f *simFollower) {
	w := s.pod.w
	f.ready = false
	piece, err := f.cursor.Next(make([]byte, 1+w.rng.IntN(4000)))
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
	case *wire.Warning:
	default:
		s.have[f.id] = gotten{opened: true, offset: piece.Offset, completed: got.completed}
		s.user.output(f.id, piece)
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
	g := s.guest
	s.pod.mail(func() {
		s.told = true
		g.call(func() { g.guest.Closed(w.now, cause, delivered) })
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

// user is a client with a script: some commands, whatever happens.
type user struct {
	w       *world
	name    string
	session string
	owner   *simPod
	token   string
	sock    *socket
	sockets []*socket
	execs   map[string]*userExec
	asked   map[string]string // id of a request to its execution
	todo    int               // commands to run
	made    int
	closing bool
	done    bool
	tried   map[string]bool // pods that refused
	cuts    int
}

type userExec struct {
	id        string
	known     bool // the owner has it
	offset    int64
	completed bool
}

func newUser(w *world, i int) *user {
	u := &user{w: w, name: fmt.Sprintf("user-%d", i), todo: 1 + w.rng.IntN(5), cuts: w.rng.IntN(5)}
	u.forget()
	w.after(w.upTo(time.Second), u.connect)
	return u
}

func (u *user) forget() {
	u.session, u.owner, u.token = "", nil, ""
	u.execs, u.asked, u.tried = map[string]*userExec{}, map[string]string{}, map[string]bool{}
}

// connect opens or resumes through some pod.
func (u *user) connect() {
	w := u.w
	if u.done {
		return
	}
	guest := w.pods[w.rng.IntN(len(w.pods))]
	owner := u.owner
	if owner == nil {
		owner = w.pods[w.rng.IntN(len(w.pods))]
	}
	if !guest.up || w.now.Before(guest.paused) || guest == owner || u.owner == nil && u.tried[owner.name] {
		if len(u.tried) == len(w.pods) {
			u.tried = map[string]bool{}
		}
		w.after(100*time.Millisecond+w.upTo(400*time.Millisecond), u.connect)
		return
	}
	s := &socket{pod: guest, user: u, ids: map[string]bool{}, have: map[string]gotten{}}
	o := Opening{Subject: u.name, Remote: "r", Session: u.session}
	if u.session != "" {
		o.ResumeID = s.newID()
		o.Resume = &wire.ResumeParams{ResumeToken: u.token, Executions: map[string]int64{}}
		for id, x := range u.execs {
			if !x.completed {
				o.Resume.Executions[id] = x.offset
			}
		}
	}
	u.sock = s
	g := guest.newGuest(owner, s, o)
	if g == nil {
		u.lostOwner(s)
		return
	}
	s.guest, s.link = g, g.id
	u.sockets = append(u.sockets, s)
	guest.sockets = append(guest.sockets, s)
	w.logf("%s connects on %s to %s, link %v, session %q", u.name, guest.name, owner.name, g.id.String()[:6], u.session)
	if u.cuts > 0 && !w.healed {
		u.cuts--
		w.after(w.upTo(4*time.Second), func() { u.cut(s, wire.CauseClientGone) })
	}
}

// cut loses the connection, or, when everything is done, says so.
func (u *user) cut(s *socket, cause wire.Cause) {
	if s.dead || u.sock != s || !s.pod.up {
		return
	}
	s.pod.after(0, func() {
		if !s.dead {
			s.close(cause)
		}
	})
}

// lostOwner begins anew: there is no session any more.
func (u *user) lostOwner(s *socket) {
	u.w.logf("%s knows that its session %q is lost", u.name, u.session)
	s.dead = true
	u.forget()
	u.sock = nil
	u.w.after(u.w.upTo(time.Second), u.connect)
}

func (u *user) refused(s *socket, cause wire.Cause) {
	if u.sock != s {
		return
	}
	u.tried[s.guest.owner.name] = true
	u.sock = nil
	u.w.after(u.w.upTo(100*time.Millisecond), u.connect)
}

func (u *user) closed(s *socket, cause wire.Cause) {
	if u.sock != s {
		return
	}
	u.sock = nil
	switch {
	case u.closing:
		u.done = true
	case s.lost, cause == wire.CauseNoSession, cause == wire.CauseDraining:
		u.lostOwner(s)
	default:
		u.w.after(u.w.upTo(300*time.Millisecond), u.connect)
	}
}

func (u *user) ask(s *socket, params any) wire.ID {
	id := s.newID()
	g := s.guest
	s.pod.mail(func() {
		if !s.dead {
			g.call(func() { g.guest.Request(u.w.now, id, params) })
		}
	})
	return id
}

func (u *user) execute(s *socket, x *userExec) {
	u.made++
	id := u.ask(s, &wire.ExecuteParams{Command: "c", ExecutionID: x.id, Cwd: fmt.Sprintf("%s/%d", u.name, u.made)})
	u.asked[string(id)] = x.id
}

// goOn runs what is still to be run, with several at a time, and ends when all is done.
func (u *user) goOn(s *socket) {
	if s.dead || u.sock != s || u.closing {
		return
	}
	running := 0
	for _, x := range u.execs {
		if !x.completed {
			running++
		}
	}
	for u.todo > 0 && running < 2 {
		u.todo--
		running++
		x := &userExec{id: fmt.Sprintf("%s-%d", u.name, u.todo)}
		u.execs[x.id] = x
		u.execute(s, x)
	}
	switch {
	case u.w.chance(20):
		u.ask(s, &wire.StatusParams{})
	case u.w.chance(5):
		u.ask(s, &wire.PongParams{})
	case u.w.chance(10):
		u.followAgain(s)
	}
	if running > 0 {
		return
	}
	u.closing = true
	if u.w.chance(50) {
		u.ask(s, &wire.CloseParams{})
		return
	}
	u.cut(s, wire.CauseClientDone)
}

// followAgain resumes on a connection that is attached: feeds are replaced.
func (u *user) followAgain(s *socket) {
	if s.again {
		return // what a second one should ask for depends on the first
	}
	s.again = true
	r := &wire.ResumeParams{ResumeToken: u.token, Executions: map[string]int64{}}
	for id, x := range u.execs {
		if x.known && !x.completed {
			r.Executions[id] = x.offset
		}
	}
	u.ask(s, r)
}

func (u *user) reply(s *socket, id wire.ID, result any, err *wire.Error) {
	w := u.w
	if wire.CodeOf(orNil(err)) == wire.CodeSessionLost {
		s.lost = true
		return
	}
	if err != nil {
		if err.Code != wire.CodeNoSession {
			w.failf("%s: request %s: %v", u.name, id, err)
		}
		return
	}
	if r, ok := result.(*wire.ResumeResult); ok {
		unknown := slices.Sorted(slices.Values(r.Unknown))
		for _, x := range unknown {
			if u.execs[x].known {
				w.failf("the owner forgot %s", x)
			}
			u.execute(s, u.execs[x])
		}
		u.goOn(s)
		return
	}
	if x := u.execs[u.asked[string(id)]]; x != nil {
		x.known = true
		delete(u.asked, string(id))
	}
}

func orNil(err *wire.Error) error {
	if err == nil {
		return nil
	}
	return err
}

func (u *user) notified(s *socket, method string, params any) {
	c, ok := params.(*wire.Connected)
	if method != wire.MethodConnected || !ok {
		u.w.failf("notification %s %T", method, params)
	}
	u.session, u.token, u.owner = c.SessionID, c.ResumeToken, s.guest.owner
	u.goOn(s)
}

// follows: a feed begins, where the client asked for it.
func (u *user) follows(id string, offset int64) {
	x := u.execs[id]
	if x == nil {
		u.w.failf("output of %s, which was not asked for", id)
	}
	if offset > x.offset {
		u.w.failf("%s begins at %d, and the client has %d", id, offset, x.offset)
	}
	x.known, x.offset, x.completed = true, offset, false
}

func (u *user) output(id string, p transcript.Piece) {
	x := u.execs[id]
	start := p.Offset - int64(len(p.Data)) - p.Gap
	if start != x.offset {
		u.w.failf("%s: a piece of %d begins at %d, and the client has %d", id, len(p.Data), start, x.offset)
	}
	if x.completed {
		u.w.failf("%s: output after its end", id)
	}
	if p.Gap > 0 {
		if e := u.owner.sessions[u.session]; e != nil && !e.execs[id].lost {
			u.w.failf("%s: a gap, and nothing is missing", id)
		}
	}
	for i, b := range p.Data {
		if b != byteAt(id, start+int64(i)) {
			u.w.failf("%s: a wrong byte at %d", id, start+int64(i))
		}
	}
	x.offset = p.Offset
}

func (u *user) completed(id string, c *wire.Completed) {
	x := u.execs[id]
	if x.completed {
		u.w.failf("%s: completed twice", id)
	}
	if x.offset != c.OutputBytes {
		u.w.failf("%s: completed at %d, and the client has %d", id, c.OutputBytes, x.offset)
	}
	x.completed = true
	u.goOn(u.sock)
}

// describe says what a user waits for.
func (u *user) describe() string {
	s := fmt.Sprintf("%s: session %q, to do %d, closing %v", u.name, u.session, u.todo, u.closing)
	for _, id := range slices.Sorted(maps.Keys(u.execs)) {
		s += fmt.Sprintf(", %s at %d completed %v", id, u.execs[id].offset, u.execs[id].completed)
	}
	if u.sock != nil {
		s += fmt.Sprintf(", socket on %s ending %q unanswered %d", u.sock.pod.name, u.sock.ending, len(u.sock.ids))
	}
	return s
}
