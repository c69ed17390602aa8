package k8s

import (
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"time"
)

// digest stands for a token and a verb. It is a keyed hash: memory that leaks reveals no token, and a client
// cannot choose tokens that collide.
type digest [sha256.Size]byte

func newDigest(key []byte, verb, token string) (d digest) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(verb + " ")) // no verb has a space
	h.Write([]byte(token))
	return digest(h.Sum(d[:0]))
}

// answer is what the API server said about a token and a verb.
type answer struct {
	subject string
	err     error // ErrBadToken or a *DeniedError; nil: the client may do it
}

// answerCache keeps a bounded number of answers, each for the same ttl, so the oldest entry is also
// the next to expire. Its user holds a lock.
//
// LRUExpireCache (k8s.io/apimachinery v0.37) removes an expired entry only on a lookup of that key
// or when the cache is full, so it would keep user names for longer than the ttl.
type answerCache struct {
	ttl   time.Duration // 0: nothing is kept
	max   int
	byID  map[digest]*list.Element
	order list.List // of cacheEntry, the oldest first
}

type cacheEntry struct {
	id      digest
	answer  answer
	addedAt time.Time
}

func newAnswerCache(ttl time.Duration, limit int) *answerCache {
	return &answerCache{ttl: ttl, max: limit, byID: make(map[digest]*list.Element)}
}

// get returns the answer for a token and when it was given.
func (c *answerCache) get(now time.Time, id digest) (ans answer, addedAt time.Time, ok bool) {
	c.expire(now)
	e, ok := c.byID[id]
	if !ok {
		return answer{}, time.Time{}, false
	}
	entry := entryOf(e)
	return entry.answer, entry.addedAt, true
}

// put adds or replaces an answer. A full cache drops its oldest entry.
func (c *answerCache) put(now time.Time, id digest, ans answer) {
	c.remove(id)
	c.expire(now)
	if c.ttl <= 0 {
		return
	}
	if len(c.byID) >= c.max {
		c.remove(entryOf(c.order.Front()).id)
	}
	c.byID[id] = c.order.PushBack(cacheEntry{id, ans, now})
}

func (c *answerCache) remove(id digest) {
	if e, ok := c.byID[id]; ok {
		c.order.Remove(e)
		delete(c.byID, id)
	}
}

func (c *answerCache) expire(now time.Time) {
	for e := c.order.Front(); e != nil && now.Sub(entryOf(e).addedAt) >= c.ttl; e = c.order.Front() {
		c.remove(entryOf(e).id)
	}
}

func entryOf(e *list.Element) cacheEntry {
	entry, _ := e.Value.(cacheEntry) // put adds nothing else
	return entry
}
