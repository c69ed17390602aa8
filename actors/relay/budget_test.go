package relay

import "testing"

// TestLinksShareABudget: messages that never end, on many links of one peer, hold no more than the
// budget, and what a link held is free once it has ended. A link that takes little goes on.
func TestLinksShareABudget(t *testing.T) {
	const limit = 4 << 20
	budget := NewBudget(limit)
	var pairs []*pair
	for range 20 {
		p := newPair(t, 0)
		p.settle()
		p.origin.link.budget = budget
		pairs = append(pairs, p)
	}
	small := pairs[0]
	feed := func(p *pair, n int) {
		for range n {
			if !p.origin.Done() {
				p.origin.Receive(p.now, p.origin.link.following(&Frame_Fragment{&Fragment{Data: make([]byte, maxBody)}}))
			}
		}
	}
	held := func() (sum int) {
		for _, p := range pairs {
			sum += len(p.origin.link.parts)
		}
		return sum
	}
	overflown := 0
	for _, p := range pairs[1:] {
		feed(p, 20)
		if p.origin.Done() {
			overflown++
			if p.origin.Ended() != EndedOverflow {
				t.Errorf("a link ended as %q", p.origin.Ended())
			}
		}
		if h := held(); h > limit+len(pairs)*Allowance {
			t.Fatalf("%d bytes are held", h)
		}
	}
	if overflown == 0 || overflown == len(pairs)-1 {
		t.Errorf("%d of %d links overflowed", overflown, len(pairs)-1)
	}
	if used := budget.Used(); used < limit*3/4 || used > limit {
		t.Errorf("%d bytes are used", used)
	}
	small.origin.Reply(small.now, []byte("1"), "answer", nil)
	if small.origin.Done() {
		t.Errorf("a link that takes little ended as %q", small.origin.Ended())
	}
	small.settle()
	for _, p := range pairs {
		p.origin.PeerLost(p.now, EndedPeerDead)
	}
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are used by links that have ended", used)
	}
}

// TestBudgetIsGivenBack: acknowledged answers and whole messages hold nothing.
func TestBudgetIsGivenBack(t *testing.T) {
	budget := NewBudget(4 << 20)
	p := newPair(t, 0)
	p.settle()
	p.origin.link.budget, p.proxy.link.budget = budget, budget
	long := make([]byte, 500_000)
	p.origin.Reply(p.now, []byte("1"), long, nil)
	if used := budget.Used(); used < int64(len(long)) {
		t.Errorf("%d bytes are used by an answer under way", used)
	}
	p.settle()
	p.now = p.now.Add(ackDelay)
	p.proxy.Tick(p.now)
	p.settle()
	if used := budget.Used(); used != 0 || p.origin.Done() || p.proxy.Done() {
		t.Errorf("%d bytes are used after the answer; the link ended as %q", used, p.origin.Ended())
	}
}
