package relay

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is the client of the simulation, which checks every message.

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
	window    int64 // 0: it acknowledges nothing
}

// acks acknowledges, after a while, what the client has of an execution by then.
func (u *user) acks(s *socket, id string) {
	d := u.w.upTo(2 * time.Millisecond)
	if u.w.chance(5) {
		d = u.w.upTo(3 * time.Second) // it processes slowly
	}
	u.w.after(d, func() {
		if x := u.execs[id]; x != nil && x.window > 0 && !s.dead && u.sock == s {
			s.ack(id, x.offset, x.completed)
		}
	})
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
	proxy := w.pods[w.rng.IntN(len(w.pods))]
	owner := u.owner
	if owner == nil {
		owner = w.pods[w.rng.IntN(len(w.pods))]
	}
	if !proxy.up || w.now.Before(proxy.paused) || proxy == owner || u.owner == nil && u.tried[owner.name] {
		if len(u.tried) == len(w.pods) {
			u.tried = map[string]bool{}
		}
		w.after(100*time.Millisecond+w.upTo(400*time.Millisecond), u.connect)
		return
	}
	s := &socket{pod: proxy, user: u, ids: map[string]bool{}, have: map[string]gotten{}}
	o := OpenParams{Subject: u.name, Remote: "r", Session: u.session}
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
	g := proxy.newProxy(owner, s, o)
	if g == nil {
		u.lostOwner(s)
		return
	}
	s.proxy, s.link = g, g.id
	u.sockets = append(u.sockets, s)
	proxy.sockets = append(proxy.sockets, s)
	w.logf("%s connects on %s to %s, link %v, session %q", u.name, proxy.name, owner.name, g.id.String()[:6], u.session)
	if u.cuts > 0 && !w.healed {
		u.cuts--
		lives := w.upTo(4 * time.Second)
		if w.chance(25) {
			lives = w.upTo(10 * time.Millisecond)
			w.after(w.upTo(5*time.Millisecond), w.wires[[2]int{proxy.index, owner.index}].reset)
		}
		w.after(lives, func() { u.cut(s, wire.CauseClientGone) })
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

// lostOwner starts again: the session no longer exists.
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
	u.tried[s.proxy.owner.name] = true
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
	g := s.proxy
	s.pod.mail(func() {
		if !s.dead {
			g.call(func() { g.proxy.Request(u.w.now, id, params) })
		}
	})
	return id
}

func (u *user) execute(s *socket, x *userExec) {
	u.made++
	p := &wire.ExecuteParams{Command: "c", ExecutionID: x.id, Cwd: fmt.Sprintf("%s/%d", u.name, u.made)}
	if x.window > 0 {
		p.Window, p.Retain = x.window, wire.RetainUnread
	}
	id := u.ask(s, p)
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
		if u.w.chance(50) {
			x.window = wire.MinWindow + int64(u.w.rng.IntN(8<<10))
		}
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
		if x.known && !x.completed && x.window == 0 { // what the old feed still brings would be acknowledged
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
	u.session, u.token, u.owner = c.SessionID, c.ResumeToken, s.proxy.owner
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
