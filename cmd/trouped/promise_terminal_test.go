package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// display is a client that shows a terminal.
type display struct {
	t     *testing.T
	e     *troupe.Execution
	seen  []byte
	sizes []string
	done  *wire.Completed
}

// terminal runs an interactive bash in a terminal of the client's session.
func terminal(t *testing.T, c *troupe.Client) *display {
	t.Helper()
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		ExecutionID: "shell", Argv: []string{"bash", "--norc", "--noediting", "-i"}, Env: map[string]string{"PS1": "ready> "},
		Terminal: &wire.Terminal{Cols: 80, Rows: 24},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &display{t: t, e: e}
	s.shows("ready> ")
	return s
}

// attachAll connects once more to the session of c, through a pod, and follows all that runs in it.
func attachAll(t *testing.T, pod *instance, c *troupe.Client) *troupe.Client {
	t.Helper()
	to := c.Connected()
	o, err := troupe.Attach(t.Context(), pod.ws, to.SessionID, to.ResumeToken, nil, troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Detach() })
	return o
}

// step takes the next event.
func (s *display) step(ctx context.Context) error {
	ev, err := s.e.Next(ctx)
	if err != nil {
		return err
	}
	switch ev := ev.(type) {
	case *troupe.Output:
		s.seen = append(s.seen, ev.Data...)
		ev.Release()
	case *troupe.Resized:
		s.sizes = append(s.sizes, fmt.Sprintf("%dx%d", ev.Cols, ev.Rows))
	case *troupe.Completed:
		s.done = &ev.Completed
	}
	return nil
}

// shows reads until the text stands behind what was looked for before, and forgets it all.
func (s *display) shows(text string) {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer stop()
	for {
		if at := bytes.Index(s.seen, []byte(text)); at >= 0 {
			s.seen = s.seen[at+len(text):]
			return
		}
		if err := s.step(ctx); err != nil {
			s.t.Fatalf("%v; instead of %q the terminal shows at last %q", err, text, s.seen[max(0, len(s.seen)-400):])
		}
	}
}

func (s *display) types(keys string) {
	s.t.Helper()
	if _, err := s.e.Input(s.t.Context(), []byte(keys)); err != nil {
		s.t.Fatal(err)
	}
}

// ends reads to the end.
func (s *display) ends() *wire.Completed {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer stop()
	for s.done == nil {
		if err := s.step(ctx); err != nil {
			s.t.Fatal(err)
		}
	}
	return s.done
}

// TestTerminalThroughAnyPod: a terminal is the same from the pod that has it and from another, and a
// client that changes pods goes on typing.
func TestTerminalThroughAnyPod(t *testing.T) {
	f := launchFleet(t)
	c := f.pods[0].dial()
	s := terminal(t, c)
	s.types("stty size; X=1\r")
	s.shows("24 80\r\nready> ")
	for i, pod := range []*instance{f.pods[1], f.pods[2], f.pods[0]} {
		o := attachAll(t, pod, c)
		other := &display{t: t, e: o.Executions()["shell"]}
		other.shows("24 80\r\nready> ")
		if err := other.e.Resize(t.Context(), 100+i, 30); err != nil {
			t.Fatal(err)
		}
		other.types("sleep .2; stty size; X=$((X*10)); echo X=$X\r")
		other.shows(fmt.Sprintf("30 %d\r\nX=1%s\r\nready> ", 100+i, strings.Repeat("0", i+1)))
		s.shows(fmt.Sprintf("30 %d\r\n", 100+i)) // what one does, all see
		if want := fmt.Sprintf("%dx30", 100+i); !slices.Contains(s.sizes, want) || !slices.Contains(other.sizes, want) {
			t.Errorf("%s is in neither %v nor %v", want, s.sizes, other.sizes)
		}
	}
	s.types("exit 5\r")
	if done := s.ends(); done.ExitCode != 5 || done.Reason != wire.ReasonExited {
		t.Errorf("%+v", done)
	}
}

// TestTerminalInterruptsAFlood: under output without end Ctrl-C is answered at once, also for a client
// that reads slowly, and nothing of the flood's megabytes comes before the answer.
func TestTerminalInterruptsAFlood(t *testing.T) {
	const window = 64 << 10
	s := launch(t)
	c, err := troupe.Dial(t.Context(), s.ws, troupe.Options{Window: window})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	sh := terminal(t, c)
	var worst time.Duration
	for range 20 {
		sh.types("yes\r")
		sh.shows("y\r\ny\r\ny\r\n")
		for until := sh.e.Offset() + 4*window; sh.e.Offset() < until; {
			if err := sh.step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		sh.types("\x03")
		before := sh.e.Offset()
		sh.shows("ready> ")
		worst = max(worst, time.Since(began))
		if came := sh.e.Offset() - before; came > 4*window {
			t.Errorf("%d bytes came before the prompt", came)
		}
	}
	t.Logf("at most %v", worst)
	if worst > 2*time.Second { // 100 ms on a machine that does nothing else: troupe-load prints it
		t.Errorf("Ctrl-C was answered after %v", worst)
	}
}

// TestTerminalWithAViewerThatNeverReads: it holds up neither the command nor who types.
func TestTerminalWithAViewerThatNeverReads(t *testing.T) {
	s := launch(t)
	c := s.dial()
	sh := terminal(t, c)
	lazy := attachAll(t, s, c)
	sh.types("head -c 20000000 /dev/zero | tr '\\0' x | fold; echo over\r")
	sh.shows("xover\r\n")
	late := &display{t: t, e: lazy.Executions()["shell"]}
	late.types("echo late\r")
	late.shows("late\r\nready> ")
}

// TestPasteOfAMegabyte: any byte arrives, once and in order, over lost connections.
func TestPasteOfAMegabyte(t *testing.T) {
	s := launch(t)
	p := newProxy(t, s, 5, 150_000)
	p.upwards.Store(true)
	c, err := troupe.Dial(t.Context(), "ws://"+p.listener.Addr().String()+"/ws", impatient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	sh := terminal(t, c)
	paste := make([]byte, 1<<20)
	for i := range paste {
		paste[i] = byte(i * 7 >> 3)
	}
	sh.types("stty raw -echo; head -c 1048576 | sha256sum; stty sane\r")
	sh.shows("sane\r\n")
	time.Sleep(200 * time.Millisecond) // stty has no sign
	sh.types(string(paste))
	sh.shows(fmt.Sprintf("%x", sha256.Sum256(paste)))
	if n := p.cuts.Load(); n == 0 {
		t.Error("no connection was cut")
	}
}

// TestCanceledTerminalDies with everything in it, although an interactive bash ignores SIGTERM.
func TestCanceledTerminalDies(t *testing.T) {
	s := launch(t)
	sh := terminal(t, s.dial())
	sh.types("sleep 1000 & setsid sleep 1001 & sleep 1002\r")
	sh.shows("sleep 1002\r\n")
	began := time.Now()
	if err := sh.e.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := sh.ends()
	hungUp := done.Signal == "SIGHUP" || done.ExitCode == 129
	if took := time.Since(began); done.Reason != wire.ReasonCanceled || !hungUp || took > 5*time.Second {
		t.Errorf("after %v: %+v", took, done)
	}
	if _, err := sh.e.Input(t.Context(), []byte("x")); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("typing into a dead terminal: %v", err)
	}
}
