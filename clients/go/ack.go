package troupe

import (
	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// ackParts is the number of acks in which a window is given back. The server has half of the window
// to send while an ack is on its way.
const ackParts = 2

// ackDue reports whether the consumer's progress calls for an ack. e.mu is held.
func (e *Execution) ackDue() bool {
	offset, completed := e.ackable()
	progress := offset - e.acked
	switch {
	case progress >= int64(e.c.opt.Window)/ackParts:
	case completed && !e.completedAcked:
	case completed && progress > 0 && len(e.queue) == 0: // no mark follows what survivors write
	default:
		return false
	}
	return true
}

// ackable returns what the consumer has taken of what the current connection has brought: the server
// ignores an ack of what it has not sent on this connection. What was received earlier and taken
// meanwhile therefore waits until it has arrived again. e.mu is held.
func (e *Execution) ackable() (offset int64, completed bool) {
	return min(e.delivered, e.arrived), e.completedTaken && e.completedArrived
}

// acknowledge tells the writer that an ack may be due.
func (e *Execution) acknowledge() {
	e.mu.Lock()
	due := e.ackDue()
	e.mu.Unlock()
	if due {
		e.c.acknowledge(e)
	}
}

func (c *Client) acknowledge(e *Execution) {
	c.mu.Lock()
	c.toAck[e.id] = e
	c.mu.Unlock()
	signal(c.work)
}

// acknowledgeStray acknowledges output of an execution that is not followed any more, so that it
// does not keep the command or its session waiting.
func (c *Client) acknowledgeStray(a wire.AckParams) {
	c.mu.Lock()
	c.strays[a.ExecutionID] = a
	c.mu.Unlock()
	signal(c.work)
}

// takeAcks returns the acks to be written on the current connection.
func (c *Client) takeAcks() (acks []wire.AckParams) {
	c.mu.Lock()
	var executions []*Execution
	for _, e := range c.toAck {
		executions = append(executions, e)
	}
	for _, a := range c.strays {
		acks = append(acks, a)
	}
	clear(c.toAck)
	clear(c.strays)
	c.mu.Unlock()
	for _, e := range executions {
		e.mu.Lock()
		if e.ackDue() {
			e.acked, e.completedAcked = e.ackable()
			acks = append(acks, wire.AckParams{ExecutionID: e.id, Offset: e.acked, Completed: e.completedAcked})
		}
		e.mu.Unlock()
	}
	return acks
}

// sendAcks writes the acks that are due. The writer and the end of the socket call it: whoever comes
// second waits, so that no close frame overtakes an ack that was taken.
func (s *socket) sendAcks() error {
	s.acking.Lock()
	defer s.acking.Unlock()
	for _, a := range s.c.takeAcks() {
		frame, err := wire.AppendRequest(nil, nil, wire.MethodAck, a)
		if err != nil {
			return err
		}
		if err := s.send(websocket.MessageText, frame); err != nil {
			return err
		}
	}
	return nil
}

// connectionLost forgets what the lost connection has brought, so that nothing is acknowledged
// before the next one brings it again.
func (e *Execution) connectionLost() {
	e.mu.Lock()
	e.arrived, e.completedArrived = e.acked, false
	e.mu.Unlock()
}

// resumedAt notes that a new connection follows e from offset, which acknowledges offset and
// nothing else.
func (e *Execution) resumedAt(offset int64) {
	e.mu.Lock()
	e.acked, e.completedAcked, e.arrived = offset, false, offset
	e.mu.Unlock()
}
