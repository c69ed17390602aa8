package relay

import (
	"bytes"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"
)

// This file is the network of the simulation.

// simWire carries envelopes from one pod to another, in order, until it is reset.
type simWire struct {
	w        *world
	from, to int
	last     time.Time // of the last arrival
	cut      time.Time // until then, all is lost
	flight   []*letter
}

// letter is an envelope under way.
type letter struct {
	e    []byte // an Envelope
	at   time.Time
	gone bool // arrived or lost
}

func (p *simPod) sends(to *simPod, e *Envelope) {
	w := p.w
	if e.GetFrame() != nil {
		w.frames++
	}
	c := w.wires[[2]int{p.index, to.index}]
	if w.now.Before(c.cut) {
		return
	}
	b, err := proto.Marshal(e)
	if err != nil || len(b) > MaxEnvelope {
		w.failf("an envelope of %d bytes, %v", len(b), err)
	}
	l := &letter{e: b, at: w.now.Add(w.upTo(2 * time.Millisecond))}
	if w.chance(3) {
		l.at = w.now.Add(w.upTo(300 * time.Millisecond))
	}
	if l.at.Before(c.last) {
		l.at = c.last
	}
	c.last = l.at
	c.flight = append(c.flight, l)
	c.deliver(l)
}

func (c *simWire) deliver(l *letter) {
	c.w.after(max(0, l.at.Sub(c.w.now)), func() {
		if l.gone {
			return
		}
		l.gone = true
		for len(c.flight) > 0 && c.flight[0].gone {
			c.flight[0] = nil
			c.flight = c.flight[1:]
		}
		c.arrives(l)
	})
}

func (c *simWire) arrives(l *letter) {
	to := c.w.pods[c.to]
	if !to.up {
		return
	}
	to.after(0, func() {
		memory := &simMemory{b: bytes.Clone(l.e), references: 1} // it may come again
		e, shared, err := Decode(memory.b)
		if err != nil {
			c.w.failf("decode: %v", err)
		}
		if shared {
			to.takes(e, memory)
			memory.Free()
			return
		}
		to.takes(e, nil)
	})
}

// simMemory is what a message was received into. It is used for something else once nobody refers to
// it.
type simMemory struct {
	b          []byte
	references int
}

func (m *simMemory) Ref() { m.references++ }

func (m *simMemory) Free() {
	if m.references--; m.references == 0 {
		clear(m.b)
	}
	if m.references < 0 {
		panic("memory is freed twice")
	}
}

// reset loses what is under way, but for a first part that arrives late, some of it twice.
func (c *simWire) reset() { c.resetWithin(4 * time.Second) }

func (c *simWire) resetWithin(most time.Duration) {
	w := c.w
	keep := 0
	if n := len(c.flight); n > 0 {
		keep = w.rng.IntN(n + 1)
	}
	w.logf("wire %d→%d is reset, %d of %d come late", c.from, c.to, keep, len(c.flight))
	late, step := w.now, w.upTo(most)/time.Duration(keep+1)
	for i, l := range c.flight {
		if l.gone {
			continue
		}
		l.gone = true
		if i >= keep {
			continue
		}
		late = late.Add(w.upTo(step + 1))
		for range 1 + w.rng.IntN(2) {
			again := &letter{e: l.e, at: late.Add(w.upTo(50 * time.Millisecond))}
			c.deliver(again)
		}
	}
	c.flight, c.last = nil, w.now
	c.tellReconnected()
}

// tellReconnected gives the sender's links the hint that a transport may give.
func (c *simWire) tellReconnected() {
	from := c.w.pods[c.from]
	if !from.up || c.w.chance(50) {
		return
	}
	from.after(0, func() {
		for _, g := range from.sortedProxies() {
			if g.owner.index == c.to {
				g.call(func() { g.proxy.Reconnected(c.w.now) })
			}
		}
		for _, h := range from.sortedOrigins() {
			if h.peer.index == c.to {
				h.call(func() { h.origin.Reconnected(c.w.now) })
			}
		}
	})
}

// partition loses everything for a time.
func (c *simWire) partition(d time.Duration) {
	c.w.logf("wire %d→%d is cut for %v", c.from, c.to, d)
	c.reset()
	c.cut = maxTime(c.cut, c.w.now.Add(d))
	c.w.upset = append(c.w.upset, upset{c.from, c.to, c.w.now, c.w.now.Add(d)})
}

func (w *world) sortedWires() []*simWire {
	all := make([]*simWire, 0, len(w.wires))
	for _, c := range w.wires {
		all = append(all, c)
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].from < all[j].from || all[i].from == all[j].from && all[i].to < all[j].to
	})
	return all
}
