package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// readerWindow is the window of the readers of these tests.
const readerWindow = 64 << 10

// reader reads one execution as the command-line client does: it acknowledges what it has read.
type reader struct {
	*socket
	id     string
	text   strings.Builder
	offset int64
}

// piece reads one message. It returns process.completed when that has come.
func (r *reader) piece() *wire.Completed {
	r.t.Helper()
	switch m := r.next(); {
	case m.Output != nil && m.Output.ExecutionID == r.id:
		if m.Output.Gap > 0 {
			r.t.Fatalf("%d bytes are missing at %d", m.Output.Gap, r.offset)
		}
		r.text.WriteString(m.Output.Data)
		r.offset = m.Output.Offset
		r.ack(false)
	case m.Method == wire.MethodCompleted:
		done := decoded[wire.Completed](r.t, m)
		return &done
	}
	return nil
}

func (r *reader) ack(completed bool) {
	r.t.Helper()
	r.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":%q,"offset":%d,"completed":%t}}`,
		r.id, r.offset, completed))
}

// toTheEnd reads until process.completed, and acknowledges it.
func (r *reader) toTheEnd() *wire.Completed {
	r.t.Helper()
	for {
		if done := r.piece(); done != nil {
			r.ack(true)
			return done
		}
	}
}

// counted fails unless the text is what seq prints, to n.
func (r *reader) counted(n int) {
	r.t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.text.String(), "\n"), "\n")
	if len(lines) != n || lines[n-1] != fmt.Sprint(n) {
		r.t.Errorf("%d lines, the last is %q, want %d", len(lines), lines[len(lines)-1], n)
	}
}

// attachTo opens another connection to a session, which follows its executions from these offsets.
func attachTo(t *testing.T, s *instance, greeting wire.Connected, from map[string]int64) *socket {
	t.Helper()
	c := open(t, s, "/ws?session="+greeting.SessionID)
	if err := c.call(wire.MethodResume, wire.ResumeParams{
		ResumeToken: greeting.ResumeToken, Executions: from, Window: readerWindow,
	}, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// numbers is a command of 6.9 MB whose exit code is 3.
const (
	numbers     = 1000000
	numbersArgv = "seq 1000000; exit 3"
)

// waysToRead are the clients that a slow reader may be: with a window it acknowledges what it reads,
// without one the server takes what it has written for delivered.
var waysToRead = map[string]wire.ExecuteParams{
	"window": {Window: readerWindow},
	"unread": {Window: readerWindow, Retain: wire.RetainUnread},
	"plain":  {},
}

// TestPromise19SlowReaderInADrain: SIGTERM comes while a client does not read. It gets every line and
// the exit code, and only then is told to go.
func TestPromise19SlowReaderInADrain(t *testing.T) {
	for name, params := range waysToRead {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits more than it works
			s := launch(t, "--drain-timeout", "300s")
			c, _ := session(t, s, "/ws")
			params.Command = numbersArgv
			r := &reader{socket: c, id: c.start(params)}
			for r.offset == 0 {
				r.piece()
			}
			s.signal(syscall.SIGTERM)
			time.Sleep(5 * time.Second)
			done := r.toTheEnd()
			if done.ExitCode != 3 || done.Reason != wire.ReasonExited {
				t.Errorf("completed: %+v", done)
			}
			r.counted(numbers)
			if end := c.end(); end.code != 1012 && end.code != 1001 {
				t.Errorf("%v", end)
			}
			if code := s.exit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestPromise19SlowReaderIsNotIdle: a session whose client has not read to the end is not idle.
func TestPromise19SlowReaderIsNotIdle(t *testing.T) {
	for name, params := range waysToRead {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits more than it works
			s := launch(t, "--idle-timeout", "2s")
			c, _ := session(t, s, "/ws")
			params.Command = numbersArgv
			r := &reader{socket: c, id: c.start(params)}
			time.Sleep(6 * time.Second)
			if done := r.toTheEnd(); done.ExitCode != 3 {
				t.Errorf("completed: %+v", done)
			}
			r.counted(numbers)
			if end := c.end(); end.code != 1000 { // now it is idle
				t.Errorf("%v", end)
			}
		})
	}
}

// TestPromise20FollowerThatEndsFirst: of two clients of a session the quicker one closes it, and the
// other gets everything.
func TestPromise20FollowerThatEndsFirst(t *testing.T) {
	for name, leave := range map[string]func(*socket){
		"goodbye": (*socket).done,
		"close":   func(c *socket) { _ = c.call(wire.MethodClose, wire.CloseParams{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			s := launch(t)
			c, greeting := session(t, s, "/ws")
			slow := &reader{socket: c, id: c.start(wire.ExecuteParams{Command: numbersArgv, Window: readerWindow})}
			quick := &reader{socket: attachTo(t, s, greeting, map[string]int64{slow.id: 0}), id: slow.id}
			quick.toTheEnd()
			leave(quick.socket)
			if done := slow.toTheEnd(); done.ExitCode != 3 {
				t.Errorf("completed: %+v", done)
			}
			slow.counted(numbers)
			slow.done()
		})
	}
}

// blockedOn starts a command that writes without end, and waits until it waits for its reader.
func blockedOn(t *testing.T, c *socket) (id string) {
	t.Helper()
	id = c.start(wire.ExecuteParams{Argv: []string{"yes"}, Retain: wire.RetainUnread, Window: readerWindow, Timeout: 2})
	eventually(t, func() error {
		var status wire.StatusResult
		if err := c.call(wire.MethodStatus, struct{}{}, &status); err != nil {
			return err
		}
		if n := status.Executions[id].Offset; n < 1<<20 {
			return fmt.Errorf("%d bytes are there", n)
		}
		return nil
	})
	return id
}

// TestPromise21WaitingCommandIsCancelled: a command that waits for its reader is not silent, and CANCEL
// ends it at once.
func TestPromise21WaitingCommandIsCancelled(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := launch(t)
	c, _ := session(t, s, "/ws")
	r := &reader{socket: c, id: blockedOn(t, c)}
	time.Sleep(4 * time.Second) // twice its stream timeout
	if got := c.state(r.id); got != wire.StateRunning {
		t.Fatalf("it is %s while it waits for its reader", got)
	}
	if got := c.control("CANCEL", r.id); got != "canceled" {
		t.Errorf("CANCEL: %s", got)
	}
	if done := r.toTheEnd(); done.Reason != wire.ReasonCanceled || done.DroppedBytes != 0 || done.OutputBytes != r.offset {
		t.Errorf("completed at %d: %+v", r.offset, done)
	}
	c.done()
}

// TestPromise21WithoutAReaderTheCommandEnds: its reader is gone and does not come back.
func TestPromise21WithoutAReaderTheCommandEnds(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := launch(t, "--resume-window", "3s")
	c, greeting := session(t, s, "/ws")
	id := blockedOn(t, c)
	observer := attachTo(t, s, greeting, map[string]int64{})
	c.cut()
	began := time.Now()
	eventually(t, func() error {
		var status wire.StatusResult
		if err := observer.call(wire.MethodStatus, struct{}{}, &status); err != nil {
			return err
		}
		done := status.Executions[id].Completed
		if done == nil {
			return fmt.Errorf("it is %s", status.Executions[id].State)
		}
		if done.Reason != wire.ReasonReaderGone || time.Since(began) < 2*time.Second {
			t.Errorf("ended after %v: %+v", time.Since(began), done)
		}
		return nil
	})
}

// TestPeersReaderLosesNothing: a reader on another pod than its session's stops the command at its
// origin, is cut three times, and has every byte.
func TestPeersReaderLosesNothing(t *testing.T) {
	f := launchFleet(t)
	c, greeting := session(t, f.pods[0], "/ws")
	id := c.start(wire.ExecuteParams{Command: numbersArgv, Retain: wire.RetainUnread, Window: readerWindow})
	c.cut()
	r := &reader{id: id}
	for i := range 4 {
		r.socket = attachTo(t, f.pods[1+i%2], greeting, map[string]int64{id: r.offset})
		if i == 3 {
			break
		}
		for until := r.offset + 1<<20; r.offset < until; {
			r.piece()
		}
		time.Sleep(100 * time.Millisecond) // it waits at its origin
		r.cut()
	}
	if done := r.toTheEnd(); done.ExitCode != 3 || done.DroppedBytes != 0 {
		t.Errorf("completed: %+v", done)
	}
	r.counted(numbers)
	r.done()
}
