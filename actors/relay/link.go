package relay

import (
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// firstRetry is how long a frame may be unacknowledged before the other end is asked which frames
	// it has. It exceeds ackDelay and the scheduling delays of a busy pod; an unnecessary probe costs
	// 60 bytes.
	firstRetry = 250 * time.Millisecond
	// lastRetry bounds the doubling of firstRetry. It is below DeadAfter, so that a peer that recovers
	// in time is also asked in time.
	lastRetry = 2 * time.Second
	// ackDelay is how long an acknowledgement waits for a frame to travel with.
	ackDelay = 40 * time.Millisecond
	// ackFrames and ackBytes are how much may arrive before an acknowledgement is sent at once: the
	// sender keeps the frames until then.
	ackFrames = 8
	ackBytes  = 128 << 10
	// keepAlive is how long an idle link may be silent before its other end is asked whether it still
	// exists. The probe finds links whose other end was given up while this one was unreachable.
	keepAlive = 10 * time.Second
	// silentAfter ends a link whose peer is alive and whose other end did not answer silentProbes
	// probes.
	silentAfter  = 30 * time.Second
	silentProbes = 4

	// maxBody is the maximum size in bytes of a body in one frame. Larger bodies are cut into
	// fragments.
	maxBody = 62 << 10
	// FrameCost is added to the size of each frame's body where bodies are bounded. It is the size of
	// the frame's structs.
	FrameCost = 256
)

// link is one end of a link. It sends frames in order, keeps them until they are acknowledged, and
// delivers the frames of the other end once each, in order. The transport keeps the order too, but
// loses frames when a connection resets, and may deliver late ones.
type link struct {
	id         LinkID
	send       func(*Frame)
	deliver    func(time.Time, *Frame) // a sequenced frame, in its turn
	acked      func()                  // something was acknowledged; may be nil
	counters   *Counters
	maxControl int
	budget     *Budget // charged for control and parts; may be nil
	maxBody    int

	// The end.
	ended   Ended
	onEnded func(time.Time)

	// Sending. Sequence numbers run from 1 to last. Those up to gone were acknowledged, and those up
	// to out were sent.
	last, out, gone uint64
	unacked         []pending // gone+1 to last
	control, data   int       // cost of these
	first           bool      // until the first frame is acknowledged, it goes alone

	// Asking again.
	armed       time.Time // when the wait for an acknowledgement began
	retry       time.Duration
	probes      uint64 // number of the last probe
	unanswered  int    // probes and first frames sent since anything was heard
	resentProbe uint64 // answers to probes up to this one tell of the time before frames were resent
	resentGap   uint64 // frames from here on were resent because of a gap

	// Receiving.
	received uint64
	frozen   bool      // nothing more is accepted or acknowledged
	gapTold  uint64    // the other end was told that this frame is missing
	heard    time.Time // anything
	asked    time.Time // the last probe of an idle link
	ackDue   time.Time // zero: none is owed
	owedN    int
	owed     int
	parts    []byte // of a frame in fragments
}

// pending is a frame that may have to be sent again.
type pending struct {
	body    isFrame_Body
	cost    int
	control bool
	buf     *[]byte // what body refers to, from packing; nil: memory of its own
}

// free gives the memory of a frame back.
func (p *pending) free() {
	if p.buf != nil {
		packing.Put(p.buf)
	}
	*p = pending{}
}

func newLink(now time.Time, id LinkID, opener bool) link {
	return link{id: id, maxBody: maxBody, first: opener, heard: now, asked: now, armed: now, retry: firstRetry}
}

// enqueue queues a body behind the earlier ones. The sender bounds output; enqueue bounds
// everything else.
func (l *link) enqueue(now time.Time, body isFrame_Body) {
	if l.ended != "" {
		return
	}
	_, output := body.(*Frame_Output)
	size := proto.Size(&Frame{Body: body})
	if size <= l.maxBody {
		l.push(now, pending{body: body, cost: costIn(body, size) + FrameCost, control: !output})
		return
	}
	whole, err := proto.Marshal(&Frame{Body: body})
	if err != nil { // a string that is not UTF-8
		l.counters.Violations.Add(1)
		l.fail(now, EndedProtocol, Reset_PROTOCOL)
		return
	}
	for len(whole) > 0 && l.ended == "" {
		n := min(len(whole), l.maxBody)
		part := &Frame_Fragment{&Fragment{Data: whole[:n:n], Last: n == len(whole)}}
		l.push(now, pending{body: part, cost: n + FrameCost, control: !output})
		whole = whole[n:]
	}
}

// enqueueFrom is enqueue for output that refers to a buffer from packing. The link gives it back.
func (l *link) enqueueFrom(now time.Time, buf *[]byte, out *Frame_Output) {
	size := proto.Size(&Frame{Body: out})
	if l.ended != "" || size > l.maxBody {
		l.enqueue(now, out) // which copies it
		packing.Put(buf)
		return
	}
	l.push(now, pending{body: out, cost: max(costIn(out, size), cap(*buf)) + FrameCost, buf: buf})
}

// costIn returns what a body of the given size costs while it is unacknowledged: pieces of one byte
// hold more than they have.
func costIn(body isFrame_Body, size int) int {
	if out, ok := body.(*Frame_Output); ok {
		return max(size, costOfAll(out.Output.GetPieces()))
	}
	return size
}

func (l *link) push(now time.Time, p pending) {
	switch {
	case !p.control:
		l.data += p.cost
	case l.control+p.cost > l.maxControl || !l.budget.Resize(l.held(), l.held()+p.cost):
		l.fail(now, EndedOverflow, Reset_OVERFLOW)
		return
	default:
		l.control += p.cost
	}
	l.last++
	l.unacked = append(l.unacked, p)
	l.flush(now)
}

// flush sends the frames that were never sent and may be sent now.
func (l *link) flush(now time.Time) {
	for l.out < l.last && (!l.first || l.out == 0) {
		if l.out == l.gone {
			l.armed, l.retry = now, firstRetry
		}
		l.out++
		l.transmit(l.out)
	}
}

// transmit sends the frame with the given number and the newest acknowledgement.
func (l *link) transmit(seq uint64) {
	l.post(&Frame{Seq: seq, Body: l.unacked[seq-l.gone-1].body})
}

func (l *link) post(f *Frame) {
	f.Link, f.Ack = l.id[:], l.received
	l.ackDue, l.owedN, l.owed = time.Time{}, 0, 0
	l.counters.Frames.Add(1)
	l.send(f)
}

// receive takes one frame of this link from the network.
func (l *link) receive(now time.Time, f *Frame) {
	if l.ended != "" {
		return
	}
	l.heard, l.unanswered = now, 0
	if f.Ack > l.out {
		l.violated(now)
		return
	}
	l.acknowledged(now, f.Ack)
	if l.ended != "" {
		return // it only waited for that acknowledgement
	}
	if f.Seq > 0 {
		l.sequenced(now, f)
		return
	}
	switch body := f.Body.(type) {
	case *Frame_Acknowledge:
		l.answered(now, f.Ack, body.Acknowledge)
	case *Frame_Probe:
		l.probed(now, body.Probe)
	case *Frame_Reset_:
		why := EndedReset
		if body.Reset_.GetReason() == Reset_OVERFLOW {
			why = EndedOverflow // at the other end; the client is told the same as for one here
		}
		l.end(now, why)
	default:
		l.counters.Unknown.Add(1)
	}
}

// acknowledged forgets the frames that have arrived.
func (l *link) acknowledged(now time.Time, ack uint64) {
	if ack <= l.gone {
		return
	}
	n, held := int(ack-l.gone), l.held()
	for i := range l.unacked[:n] {
		p := &l.unacked[i]
		if p.control {
			l.control -= p.cost
		} else {
			l.data -= p.cost
		}
		p.free()
	}
	l.budget.Resize(held, l.held())
	l.gone = ack
	if l.unacked = l.unacked[n:]; len(l.unacked) == 0 {
		l.unacked = nil // its array keeps the size of the longest queue there was
	}
	l.armed, l.retry, l.first = now, firstRetry, false
	l.flush(now)
	if l.acked != nil {
		l.acked()
	}
}

// sequenced takes a frame that has a sequence number.
func (l *link) sequenced(now time.Time, f *Frame) {
	switch {
	case l.frozen:
		return
	case f.Seq <= l.received:
		l.counters.Duplicates.Add(1)
		l.owe(now, 0)
		return
	case f.Seq > l.received+1:
		if l.gapTold != l.received+1 {
			l.gapTold = l.received + 1
			l.post(&Frame{Body: &Frame_Acknowledge{&Ack{Gap: true}}})
		}
		return
	}
	l.received++
	l.owe(now, bodySize(f))
	if part, ok := f.Body.(*Frame_Fragment); ok {
		f = l.join(now, part.Fragment)
	} else if l.parts != nil {
		l.violated(now)
		return
	}
	switch {
	case f == nil: // of a frame in fragments, or the link has ended
	case f.Body == nil:
		l.counters.Unknown.Add(1)
	default:
		l.deliver(now, f)
	}
	if l.ended == "" && (l.owedN >= ackFrames || l.owed >= ackBytes) {
		l.postAck()
	}
}

// bodySize estimates the memory that the sender of a frame keeps until the frame is acknowledged.
func bodySize(f *Frame) int {
	n := FrameCost
	switch body := f.Body.(type) {
	case *Frame_Output:
		for _, p := range body.Output.GetPieces() {
			n += len(p.GetData())
		}
	case *Frame_Fragment:
		n += len(body.Fragment.GetData())
	}
	return n
}

// join returns the complete frame if this is its last fragment, and otherwise nil.
func (l *link) join(now time.Time, part *Fragment) *Frame {
	held := l.held()
	if len(l.parts)+len(part.GetData()) > l.maxControl+MaxEnvelope {
		l.violated(now)
		return nil
	}
	if !l.budget.Resize(held, held+len(part.GetData())) {
		l.fail(now, EndedOverflow, Reset_OVERFLOW)
		return nil
	}
	if l.parts == nil {
		l.parts = []byte{} // it has begun, even with an empty fragment
	}
	l.parts = append(l.parts, part.GetData()...)
	if !part.GetLast() {
		return nil
	}
	f := new(Frame)
	err := proto.Unmarshal(l.parts, f)
	l.dropParts()
	if _, nested := f.Body.(*Frame_Fragment); err != nil || nested {
		l.violated(now)
		return nil
	}
	return f
}

// owe records that something must be acknowledged.
func (l *link) owe(now time.Time, size int) {
	l.owedN++
	l.owed += size
	if l.ackDue.IsZero() {
		l.ackDue = now.Add(ackDelay)
	}
}

func (l *link) postAck() { l.post(&Frame{Body: &Frame_Acknowledge{&Ack{}}}) }

// freeze stops accepting and acknowledging frames, so that the other end knows which frames were
// used.
func (l *link) freeze() {
	l.frozen = true
	l.dropParts()
}

// held is what the budget is charged for.
func (l *link) held() int { return l.control + len(l.parts) }

func (l *link) dropParts() {
	held := l.held()
	l.parts = nil
	l.budget.Resize(held, l.held())
}

func (l *link) violated(now time.Time) {
	l.counters.Violations.Add(1)
	l.fail(now, EndedProtocol, Reset_PROTOCOL)
}

// fail ends the link and tells the other end. If the other end keeps sending, the Table tells it
// again.
func (l *link) fail(now time.Time, why Ended, reason Reset_Reason) {
	if l.ended != "" {
		return
	}
	l.counters.Resets.Add(1)
	l.post(&Frame{Body: &Frame_Reset_{&Reset{Reason: reason}}})
	l.end(now, why)
}

// end ends the link, and tells its proxy or origin once.
func (l *link) end(now time.Time, why Ended) {
	if l.ended != "" {
		return
	}
	l.ended = why
	l.budget.Resize(l.held(), 0)
	for i := range l.unacked {
		l.unacked[i].free()
	}
	l.unacked, l.parts, l.control, l.data = nil, nil, 0, 0
	l.onEnded(now)
}

// earliest returns the earlier of two times. A zero time means none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
