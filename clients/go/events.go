package troupe

import "github.com/troupe-dev/troupe/actors/wire"

// Event is one of *Output, *Gap, *Warning, *Resized, *Screen, *Control, *ProcessError and *Completed.
type Event interface{ event() }

// Output is a piece of what the command wrote, in the order in which it was written.
type Output struct {
	Stream    string // wire.Stdout or wire.Stderr
	Data      []byte // owned by the receiver
	Truncated bool   // Data is one line that was cut
	Offset    int64  // transcript position after Data
}

// Release gives Data back to the Client, which uses it for later output. Calling it is optional: it
// saves a consumer of much output the cost of collecting garbage.
func (o *Output) Release() {
	putBuffer(o.Data)
	o.Data = nil
}

// Gap says that bytes of the transcript are missing before the next event.
type Gap struct {
	Bytes  int64
	Offset int64 // transcript position after the gap
	// Unreported is set when the server skipped the bytes without saying so.
	Unreported bool
}

// Warning is process.warning: from here on output is dropped.
type Warning struct{ wire.Warning }

// Resized says that the terminal has this size from here on. One may come again after a reconnection.
type Resized struct{ wire.Resized }

// Screen follows a Gap in a terminal's output: Data, written to a terminal of that size, draws what was
// shown where the output goes on. It may come in several parts. It is no output.
type Screen struct{ wire.Screen }

// Control is process.started, process.paused, process.resumed or process.canceled.
// The server does not repeat those that were sent while there was no connection.
type Control struct {
	Method string // the wire method
	wire.ControlEvent
}

// ProcessError is process.error.
type ProcessError struct{ wire.ProcessError }

// Completed is the last event, but for an execution whose survivors are kept.
type Completed struct{ wire.Completed }

func (*Output) event()       {}
func (*Gap) event()          {}
func (*Warning) event()      {}
func (*Resized) event()      {}
func (*Screen) event()       {}
func (*Control) event()      {}
func (*ProcessError) event() {}
func (*Completed) event()    {}

// cost is what an event counts against twice Options.Window: events without data count too.
func cost(ev Event) int {
	const overhead = 256
	switch ev := ev.(type) {
	case *Output:
		return len(ev.Data) + overhead
	case *Screen:
		return len(ev.Data) + overhead
	}
	return overhead
}

// span returns the transcript position after ev, if ev has one.
func span(ev Event) (int64, bool) {
	switch ev := ev.(type) {
	case *Output:
		return ev.Offset, true
	case *Gap:
		return ev.Offset, true
	}
	return 0, false
}
