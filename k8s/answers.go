package k8s

import (
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"time"
)

// digest stands for a token: a keyed hash, so that what is kept in memory is of
// no use to whoever reads it, and nobody can choose tokens that collide.
type digest [sha256.Size]byte

func newDigest(key []byte, token string) (d digest) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(token))
	return digest(h.Sum(d[:0]))
}

// answer is what the API server said of a token.
type answer struct {
	subject string
	err     error // ErrBadToken or a *DeniedError; nil: the client may open sessions
}

// answers keeps answers for a time. Since all are kept for the same time, the
// oldest are also the first to go, whether for their age or for room. It is used
// under a lock. apimachinery's LRUExpireCache drops what is too old only when it is asked
// for the same token, or for room: names would be kept for longer than is said.
type answers struct {
	keep  time.Duration // 0: nothing is kept
	max   int
	byID  map[digest]*list.Element
	order list.List // of kept, the oldest first
}

type kept struct {
	id     digest
	answer answer
	at     time.Time
}

func newAnswers(keep time.Duration, limit int) *answers {
	return &answers{keep: keep, max: limit, byID: make(map[digest]*list.Element)}
}

// get returns the answer for a token and when it was given.
func (a *answers) get(now time.Time, id digest) (ans answer, at time.Time, ok bool) {
	a.expire(now)
	e, ok := a.byID[id]
	if !ok {
		return answer{}, time.Time{}, false
	}
	k := entry(e)
	return k.answer, k.at, true
}

func (a *answers) put(now time.Time, id digest, ans answer) {
	a.remove(id)
	a.expire(now)
	if a.keep <= 0 {
		return
	}
	if len(a.byID) >= a.max {
		a.remove(entry(a.order.Front()).id)
	}
	a.byID[id] = a.order.PushBack(kept{id, ans, now})
}

func (a *answers) remove(id digest) {
	if e, ok := a.byID[id]; ok {
		a.order.Remove(e)
		delete(a.byID, id)
	}
}

func (a *answers) expire(now time.Time) {
	for e := a.order.Front(); e != nil && now.Sub(entry(e).at) >= a.keep; e = a.order.Front() {
		a.remove(entry(e).id)
	}
}

func entry(e *list.Element) kept {
	k, _ := e.Value.(kept) // nothing else is ever put in
	return k
}
