package troupe

import (
	"encoding/json"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// routeNotification handles every notification except process.output. It ignores unknown ones, so
// that a newer server can add some.
func (c *Client) routeNotification(s *socket, m wire.Message) error {
	switch m.Method {
	case wire.MethodPing:
		signal(s.pong)
		return nil
	case wire.MethodDraining:
		return c.receiveDraining(m.Params)
	case wire.MethodStream:
		var o wire.StreamOpened
		if err := json.Unmarshal(m.Params, &o); err != nil {
			return err
		}
		c.openStream(s, &o)
		return nil
	case wire.MethodInputTaken:
		var in wire.InputTaken
		if err := json.Unmarshal(m.Params, &in); err != nil {
			return err
		}
		c.inputTaken(&in)
		return nil
	case wire.MethodCompleted:
		done := new(wire.Completed)
		e, err := c.target(m.Params, done, &done.ExecutionID)
		if err == nil && e == nil {
			c.acknowledgeStray(wire.AckParams{ExecutionID: done.ExecutionID, Offset: done.OutputBytes, Completed: true})
		}
		if e == nil {
			return err
		}
		return e.receiveCompleted(s, done)
	case wire.MethodWarning:
		w := new(wire.Warning)
		e, err := c.target(m.Params, w, &w.ExecutionID)
		if e != nil {
			e.receiveWarning(s, w)
		}
		return err
	case wire.MethodResized, wire.MethodScreen:
		return c.receiveTerminal(s, m)
	case wire.MethodStarted, wire.MethodPaused, wire.MethodResumed, wire.MethodCanceled:
		ev := &Control{Method: m.Method}
		e, err := c.target(m.Params, &ev.ControlEvent, &ev.ExecutionID)
		if e != nil {
			e.push(s, ev)
		}
		return err
	case wire.MethodError:
		ev := new(ProcessError)
		e, err := c.target(m.Params, &ev.ProcessError, &ev.ExecutionID)
		if e != nil {
			e.push(s, ev)
		}
		return err
	}
	return nil
}

// receiveTerminal handles what is said of a terminal.
func (c *Client) receiveTerminal(s *socket, m wire.Message) error {
	var e *Execution
	var err error
	var event Event
	if m.Method == wire.MethodResized {
		ev := new(Resized)
		e, err = c.target(m.Params, &ev.Resized, &ev.ExecutionID)
		event = ev
	} else {
		ev := new(Screen)
		e, err = c.target(m.Params, &ev.Screen, &ev.ExecutionID)
		event = ev
	}
	if e != nil {
		e.push(s, event)
	}
	return err
}

// receiveDraining records that the server opens nothing new, and tells the caller.
func (c *Client) receiveDraining(params json.RawMessage) error {
	var d wire.Draining
	if err := json.Unmarshal(params, &d); err != nil {
		return err
	}
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	left := time.Duration(d.DeadlineSeconds * float64(time.Second))
	c.log.Info("server is draining", "deadline", left)
	c.opt.OnNotice(Notice{Kind: NoticeDraining, Delay: left})
	return nil
}

// target decodes params into v and returns the execution that id, a field of
// v, names; nil if this Client does not follow it.
func (c *Client) target(params json.RawMessage, v any, id *string) (*Execution, error) {
	if err := json.Unmarshal(params, v); err != nil {
		return nil, err
	}
	return c.lookup(*id), nil
}
