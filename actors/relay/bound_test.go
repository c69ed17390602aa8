package relay

import (
	"runtime"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestStalledLinksCostBoundedMemory: clients that do not read, and proxies that do not answer,
// under commands that never stop, with pieces of one byte, which cost most, and with large ones.
// Each link is opened when there are no more before it, so that windows are as large as they can
// be.
func TestStalledLinksCostBoundedMemory(t *testing.T) {
	const links = 100
	windows := 0
	for n := range links {
		windows += WindowFor(n + 1)
	}
	if windows > 18<<20 {
		t.Errorf("%d links have windows of %d bytes", links, windows)
	}
	// Beside the windows there is what structs cost beyond pieceCost, and size classes.
	bound := windows + windows/4
	for _, c := range []struct {
		name  string
		piece int
		mixed bool
		deaf  bool
		limit int // of the proxy, where it is not what the origin's is
	}{
		{"client does not read, large pieces", 64 << 10, false, false, 0},
		{"client does not read, lines of 80", 80, true, false, 0},
		{"client does not read, single bytes", 1, true, false, 0},
		{"proxy does not answer, large pieces", 64 << 10, false, true, 0},
		{"proxy does not answer, single bytes", 1, true, true, 0},
		{"proxy with few links does not answer, lines of 80", 80, true, true, MostWindow},
		{"proxy with few links does not answer, single bytes", 1, true, true, MostWindow},
		{"proxy that allows anything does not answer, single bytes", 1, true, true, 1 << 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := heapInUse()
			pairs := make([]*pair, links)
			for i := range pairs {
				window := fixed(WindowFor(i + 1))
				proxy := window
				if c.limit > 0 {
					proxy = fixed(c.limit)
				}
				p := newPairOf(t, window, proxy)
				p.settle()
				p.deaf = c.deaf
				p.origin.Follow(p.now, feedOf(&stream{end: -1, piece: c.piece, mixed: c.mixed}))
				p.settle()
				for range 100 { // neither end gets further by trying again
					p.now = p.now.Add(firstRetry)
					p.origin.Tick(p.now)
					p.proxy.Tick(p.now)
					p.origin.Wake(p.now)
					if c.deaf {
						p.toProxy = p.toProxy[:0:0] // lost
					}
					p.settle()
				}
				if p.origin.Done() || p.proxy.Done() {
					t.Fatal("the link ended")
				}
				pairs[i] = p
			}
			held := heapInUse() - before
			t.Logf("%d KiB for %d links, both ends, with windows of %d KiB", held>>10, links, windows>>10)
			if held > bound {
				t.Errorf("stalled links cost %d bytes, more than %d", held, bound)
			}
			runtime.KeepAlive(pairs)
		})
	}
}

// TestWindowFollowsTheNumberOfLinks: credit that is granted is not taken back, but no more is
// granted before the client has read so much that the new window holds. A link that gets a smaller
// window keeps working.
func TestWindowFollowsTheNumberOfLinks(t *testing.T) {
	links := 1
	window := func() int { return WindowFor(links) }
	p := newPairOf(t, window, window)
	p.settle()
	p.origin.Follow(p.now, feedOf(&stream{end: -1, piece: 8 << 10}))
	p.settle()
	cursor, err := p.client.feeds[0].Open(func() {})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8<<10)
	unread := func() int { return int(p.proxy.came - p.proxy.window.done.Load()) }
	full := func() {
		t.Helper()
		if u, w := unread(), WindowFor(links); u > w || u < w/2-leastRoom {
			t.Errorf("%d bytes are unread, of a window of %d", u, w)
		}
	}
	read := func(n int) {
		t.Helper()
		for end := cursor.Offset() + int64(n); cursor.Offset() < end; {
			if _, err := cursor.Next(buf); err != nil {
				t.Fatalf("after %d bytes: %v", cursor.Offset(), err)
			}
			p.proxy.Wake(p.now)
			p.settle()
		}
	}
	full()
	links = 100
	read(MostWindow - LeastWindow)
	full()
	read(10 * MostWindow)
	full()
	links = 4
	read(2 * LeastWindow)
	full()
}

func heapInUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestProbesDoNotPileUp: a peer that does not answer is sent a few small frames, however much it
// misses.
func TestProbesDoNotPileUp(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.deaf = true
	p.origin.Follow(p.now, feedOf(&stream{end: -1, piece: 64 << 10}))
	for i := range 100 {
		p.origin.Reply(p.now, nil, i, nil)
	}
	p.toProxy = nil
	sent := p.origin.cfg.Counters.Frames.Load()
	for range 400 {
		p.now = p.now.Add(firstRetry / 25)
		p.origin.Tick(p.now)
	}
	if n := p.origin.cfg.Counters.Frames.Load() - sent; n == 0 || n > 5 {
		t.Errorf("%d frames in 4 s to a peer that is silent", n)
	}
	// The answer to one of them gets everything that is missing, once.
	missing := p.origin.link.out - p.origin.link.gone
	last := p.toProxy[len(p.toProxy)-1]
	p.toProxy, p.deaf = nil, false
	p.proxy.Receive(p.now, last, nil)
	p.settle()
	p.now = p.now.Add(ackDelay)
	p.proxy.Tick(p.now)
	p.settle()
	if n := p.origin.cfg.Counters.Resends.Load(); n != missing || p.origin.link.gone != p.origin.link.out {
		t.Errorf("%d frames sent again for %d, acknowledged %d of %d", n, missing, p.origin.link.gone, p.origin.link.out)
	}
}

func TestSilentEndOfALivingPeerEndsTheLink(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	for range 400 {
		p.now = p.now.Add(firstRetry)
		p.origin.Tick(p.now)
	}
	if p.origin.Ended() != EndedSilent || len(p.closed) != 1 || p.closed[0] != wire.CauseClientGone {
		t.Errorf("ended %q, told %v", p.origin.Ended(), p.closed)
	}
}

// TestAcknowledgedInTime: what arrived is not kept for retransmission, when there is nothing to
// send back and when there is much.
func TestAcknowledgedInTime(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.origin.Reply(p.now, nil, 1, nil)
	p.settle()
	if due := p.now.Add(ackDelay); !p.proxy.Next().Equal(due) {
		t.Fatalf("the proxy's timer is due at %v, not %v", p.proxy.Next(), due)
	}
	p.now = p.now.Add(ackDelay)
	p.proxy.Tick(p.now)
	p.settle()
	if p.origin.link.gone != p.origin.link.out {
		t.Errorf("acknowledged %d of %d", p.origin.link.gone, p.origin.link.out)
	}
	for range ackFrames {
		p.origin.Reply(p.now, nil, 1, nil)
	}
	p.settle()
	if p.origin.link.gone != p.origin.link.out {
		t.Errorf("after %d frames acknowledged %d of %d", ackFrames, p.origin.link.gone, p.origin.link.out)
	}
}

// TestDuplicatesAreAcknowledged: the sender repeats what it does not know to have arrived.
func TestDuplicatesAreAcknowledged(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.origin.Reply(p.now, nil, 1, nil)
	again := p.toProxy[len(p.toProxy)-1]
	p.settle()
	p.now = p.now.Add(ackDelay)
	p.proxy.Tick(p.now)
	p.toOrigin = nil // the acknowledgement is lost
	p.proxy.Receive(p.now, again, nil)
	p.now = p.now.Add(ackDelay)
	p.proxy.Tick(p.now)
	p.settle()
	if p.origin.link.gone != p.origin.link.out || len(p.client.replies) != 1 {
		t.Errorf("acknowledged %d of %d, told %d times", p.origin.link.gone, p.origin.link.out, len(p.client.replies))
	}
}
