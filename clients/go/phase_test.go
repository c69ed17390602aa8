package troupe

import (
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This table says what the switch in phase.after must return for every step in every phase.
func TestEveryStepInEveryPhase(t *testing.T) {
	const (
		pend, recv, disc, end, fail = phasePending, phaseReceiving, phaseDiscarding, phaseEnded, phaseFailed
	)
	phases := [phaseCount]phase{pend, recv, disc, end, fail}
	for s, row := range [stepCount][phaseCount]phase{
		//             pend  recv  disc  end  fail
		stepAnswered:  {recv, recv, disc, end, fail},
		stepDiscarded: {disc, disc, disc, end, fail},
		stepCompleted: {end, end, end, end, fail},
		stepFailed:    {fail, fail, fail, end, fail},
	} {
		for i, want := range row {
			if got := phases[i].after(step(s)); got != want {
				t.Errorf("step %d in phase %d gives %d, want %d", s, phases[i], got, want)
			}
		}
	}
}

// A phase decides what the reader queues, whether the consumer has received everything, and whether
// a resume names the execution.
func TestPhaseDecidesWhatIsKeptAndAskedFor(t *testing.T) {
	for _, tc := range []struct {
		phase     phase
		queues    bool // a warning is taken
		resumable bool // a resume names it
		received  bool // nothing is left to be resumed for, its end being queued
	}{
		{phasePending, true, false, true},
		{phaseReceiving, true, true, true},
		{phaseDiscarding, true, true, true},
		{phaseEnded, false, true, true},
		{phaseFailed, false, false, true},
	} {
		c := newClient("ws://unused", Options{})
		e := newExecution(c, "x", 7)
		e.phase, e.completedQueued = tc.phase, true
		s := newSocket(c)
		if got := e.push(s, &Warning{}); got != tc.queues {
			t.Errorf("phase %d: push %v, want %v", tc.phase, got, tc.queues)
		}
		if offset, follow := e.position(); offset != 7 || follow != tc.resumable {
			t.Errorf("phase %d: position %d %v, want 7 %v", tc.phase, offset, follow, tc.resumable)
		}
		if got := e.received(); got != tc.received {
			t.Errorf("phase %d: received %v, want %v", tc.phase, got, tc.received)
		}
		e.completedQueued = false
		if got := e.received(); got != (tc.phase == phasePending || tc.phase == phaseEnded || tc.phase == phaseFailed) {
			t.Errorf("phase %d before the end is queued: received %v", tc.phase, got)
		}
		s.cancel(nil)
		c.hangUp(nil)
	}
}

// Next returns why nothing follows. The actions of the consumer take precedence over those of the
// server.
func TestWhatNextReturnsAtTheEnd(t *testing.T) {
	lost := errors.New("lost")
	complete := func(e *Execution, s *socket) { _ = e.receiveCompleted(s, &wire.Completed{}) }
	read := func(e *Execution, _ *socket) { _, _ = e.Next(t.Context()) }
	fail := func(e *Execution, _ *socket) { e.fail(lost) }
	discard := func(e *Execution, _ *socket) { e.Discard() }
	detach := func(e *Execution, _ *socket) { e.detach() }
	type steps []func(*Execution, *socket)
	for name, tc := range map[string]struct {
		steps steps
		want  error
	}{
		"read to the end":              {steps{complete, read}, io.EOF},
		"read, then the session fails": {steps{complete, read, fail}, io.EOF},
		"the session fails":            {steps{fail}, lost},
		"discarded":                    {steps{discard}, ErrDiscarded},
		"discarded, then ended":        {steps{discard, complete}, ErrDiscarded},
		"discarded, then failed":       {steps{discard, fail}, ErrDiscarded},
		"ended, then discarded":        {steps{complete, discard}, ErrDiscarded},
		"detached before the end":      {steps{detach}, ErrDetached},
		"detached with the end unread": {steps{complete, detach}, ErrDetached},
		"detached after the end":       {steps{complete, read, detach}, io.EOF},
		"detached after a failure":     {steps{fail, detach}, lost},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient("ws://unused", Options{})
			e := newExecution(c, "x", 0)
			e.phase = phaseReceiving
			s := newSocket(c)
			for _, step := range tc.steps {
				step(e, s)
			}
			if _, err := e.Next(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("Next returned %v, want %v", err, tc.want)
			}
			s.cancel(nil)
			c.hangUp(nil)
		})
	}
}

// The queue is bounded whatever the server sends, and the watchdog is armed again afterwards.
func TestQueueIsBounded(t *testing.T) {
	c := newClient("ws://unused", Options{Window: 5000})
	defer c.hangUp(nil)
	e, s := newExecution(c, "x", 0), newSocket(c)
	e.phase = phaseReceiving
	pushed := make(chan int)
	go func() {
		n := 0
		for e.push(s, &Control{}) {
			n++
		}
		pushed <- n
	}()
	for !s.blocked.Load() {
		runtime.Gosched()
	}
	s.cancel(nil)
	if n := <-pushed; n != 2*5000/cost(&Control{}) || e.bytes > 2*5000 {
		t.Errorf("%d events of %d bytes are queued", n, e.bytes)
	}
	if s.blocked.Load() {
		t.Error("the connection counts as blocked by its consumer")
	}
}

// A resumed transcript repeats the warning that lies at its start.
func TestRepeatedWarningIsDeliveredOnce(t *testing.T) {
	c := newClient("ws://unused", Options{})
	defer c.hangUp(nil)
	e, s := newExecution(c, "x", 0), newSocket(c)
	defer s.cancel(nil)
	for _, offset := range []int64{7, 7, 9} {
		e.receiveWarning(s, &wire.Warning{Code: "output_limit", Offset: offset})
	}
	if len(e.queue) != 2 {
		t.Errorf("%d warnings were queued, want those at 7 and 9", len(e.queue))
	}
}
