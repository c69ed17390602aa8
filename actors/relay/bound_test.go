package relay

import (
	"runtime"
	"testing"

	"github.com/troupe-dev/troupe/gateway/wire"
)

// memoryPerLink is what one stalled link may cost either pod, in heap: the window, what structs cost beyond
// pieceCost, and size classes. TestStalledLinksCostBoundedMemory measures it.
const memoryPerLink = DefaultWindow + DefaultWindow/4

// TestStalledLinksCostBoundedMemory: clients that do not read, and guests that do not answer, under commands that never
// stop, with pieces of one byte, which cost most, and with large ones.
func TestStalledLinksCostBoundedMemory(t *testing.T) {
	const links = 32
	for _, c := range []struct {
		name  string
		piece int
		mixed bool
		deaf  bool
	}{
		{"client does not read, large pieces", 64 << 10, false, false},
		{"client does not read, lines of 80", 80, true, false},
		{"client does not read, single bytes", 1, true, false},
		{"guest does not answer, large pieces", 64 << 10, false, true},
		{"guest does not answer, single bytes", 1, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := heapInUse()
			pairs := make([]*pair, links)
			for i := range pairs {
				p := newPair(t, 0)
				p.codec = true
				p.settle()
				p.deaf = c.deaf
				p.host.Follow(p.now, feedOf(&stream{end: -1, piece: c.piece, mixed: c.mixed}))
				p.settle()
				for range 100 { // nobody gets further by trying again
					p.now = p.now.Add(firstRetry)
					p.host.Tick(p.now)
					p.guest.Tick(p.now)
					p.host.Wake(p.now)
					if c.deaf {
						p.toGuest = p.toGuest[:0:0] // lost
					}
					p.settle()
				}
				if p.host.Done() || p.guest.Done() {
					t.Fatal("the link ended")
				}
				pairs[i] = p
			}
			each := (heapInUse() - before) / links
			t.Logf("%d KiB for each of %d links, both ends", each>>10, links)
			if each > memoryPerLink {
				t.Errorf("a stalled link costs %d bytes, more than %d", each, memoryPerLink)
			}
			runtime.KeepAlive(pairs)
		})
	}
}

func heapInUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestProbesDoNotPileUp: a peer that does not answer is sent a few small frames, however much it misses.
func TestProbesDoNotPileUp(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.deaf = true
	p.host.Follow(p.now, feedOf(&stream{end: -1, piece: 64 << 10}))
	for i := range 100 {
		p.host.Reply(p.now, nil, i, nil)
	}
	p.toGuest = nil
	sent := p.host.cfg.Counters.Frames.Load()
	for range 400 {
		p.now = p.now.Add(firstRetry / 25)
		p.host.Tick(p.now)
	}
	if n := p.host.cfg.Counters.Frames.Load() - sent; n == 0 || n > 5 {
		t.Errorf("%d frames in 4 s to a peer that is silent", n)
	}
	// The answer to one of them gets everything that is missing, once.
	missing := p.host.link.out - p.host.link.gone
	last := p.toGuest[len(p.toGuest)-1]
	p.toGuest, p.deaf = nil, false
	p.guest.Receive(p.now, last)
	p.settle()
	p.now = p.now.Add(ackDelay)
	p.guest.Tick(p.now)
	p.settle()
	if n := p.host.cfg.Counters.Resends.Load(); n != missing || p.host.link.gone != p.host.link.out {
		t.Errorf("%d frames sent again for %d, acknowledged %d of %d", n, missing, p.host.link.gone, p.host.link.out)
	}
}

func TestSilentEndOfALivingPeerEndsTheLink(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	for range 400 {
		p.now = p.now.Add(firstRetry)
		p.host.Tick(p.now)
	}
	if p.host.Ended() != EndedSilent || len(p.closed) != 1 || p.closed[0] != wire.CauseClientGone {
		t.Errorf("ended %q, told %v", p.host.Ended(), p.closed)
	}
}

// TestAcknowledgedInTime: what arrived is not kept for retransmission, when there is nothing to send back and when there is much.
func TestAcknowledgedInTime(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.host.Reply(p.now, nil, 1, nil)
	p.settle()
	if due := p.now.Add(ackDelay); !p.guest.Next().Equal(due) {
		t.Fatalf("the guest's timer is due at %v, not %v", p.guest.Next(), due)
	}
	p.now = p.now.Add(ackDelay)
	p.guest.Tick(p.now)
	p.settle()
	if p.host.link.gone != p.host.link.out {
		t.Errorf("acknowledged %d of %d", p.host.link.gone, p.host.link.out)
	}
	for range ackFrames {
		p.host.Reply(p.now, nil, 1, nil)
	}
	p.settle()
	if p.host.link.gone != p.host.link.out {
		t.Errorf("after %d frames acknowledged %d of %d", ackFrames, p.host.link.gone, p.host.link.out)
	}
}

// TestDuplicatesAreAcknowledged: the sender repeats what it does not know to have arrived.
func TestDuplicatesAreAcknowledged(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.host.Reply(p.now, nil, 1, nil)
	again := p.toGuest[len(p.toGuest)-1]
	p.settle()
	p.now = p.now.Add(ackDelay)
	p.guest.Tick(p.now)
	p.toHost = nil // the acknowledgement is lost
	p.guest.Receive(p.now, again)
	p.now = p.now.Add(ackDelay)
	p.guest.Tick(p.now)
	p.settle()
	if p.host.link.gone != p.host.link.out || len(p.client.replies) != 1 {
		t.Errorf("acknowledged %d of %d, told %d times", p.host.link.gone, p.host.link.out, len(p.client.replies))
	}
}
