package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

const (
	defaultYield = 10 * time.Second
	maxYield     = 10 * time.Minute
	// answerTime is how long a call waits for the server itself, beyond what it waits for a command.
	answerTime = 5 * time.Second
	// progressEvery is how often a client that asked for it learns of a command that runs. Claude Code
	// gives up a call that has said nothing for 5 minutes.
	progressEvery = 10 * time.Second
	// progressLine is what clients show of a message.
	progressLine = 200

	defaultBytes = 16 << 10
	// MaxBytes is the most output that a result may hold.
	MaxBytes = 32 << 10
	// reportBytes of a result are for everything but the output.
	reportBytes = 1 << 10
)

// bounds are the arguments that bound a call.
type bounds struct {
	YieldMS  *int64 `json:"yield_ms"`
	MaxBytes int    `json:"max_bytes"`
}

func (b bounds) yield(otherwise time.Duration) time.Duration {
	if b.YieldMS == nil {
		return otherwise
	}
	return min(time.Duration(*b.YieldMS)*time.Millisecond, maxYield)
}

// output returns how many bytes of output a result may hold.
func (b bounds) output() int {
	if b.MaxBytes == 0 {
		return defaultBytes - reportBytes
	}
	return min(b.MaxBytes, MaxBytes)
}

// watcher follows one execution for one call.
type watcher struct {
	req   *sdk.CallToolRequest
	began time.Time // the call
	age   float64   // seconds for which the command ran before
	until time.Time
	out   *excerpt
	done  *wire.Completed
}

func newWatcher(req *sdk.CallToolRequest, yield time.Duration, out *excerpt) *watcher {
	now := time.Now()
	return &watcher{req: req, began: now, until: now.Add(yield), out: out}
}

// watch reads what e prints until it has ended, or the time is over.
func (w *watcher) watch(ctx context.Context, e *troupe.Execution) error {
	progress := w.req.Params.GetProgressToken()
	for {
		next := time.Now().Add(progressEvery)
		if next.After(w.until) {
			next = w.until
		}
		part, cancel := context.WithDeadline(ctx, next)
		err := w.read(part, e)
		cancel()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			return err
		case !time.Now().Before(w.until):
			return nil
		}
		if progress != nil {
			w.tell(ctx, progress)
		}
	}
}

// read takes events until ctx ends. It returns io.EOF after the last one.
func (w *watcher) read(ctx context.Context, e *troupe.Execution) error {
	for {
		ev, err := e.Next(ctx)
		if err != nil {
			return err
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			w.out.write(ev.Data, ev.Offset)
			ev.Release()
		case *troupe.Gap:
			w.out.gap(ev.Bytes, ev.Offset)
		case *troupe.Completed:
			w.done = &ev.Completed
		}
	}
}

// tell sends a progress notification. A client that does not take it loses it, and nothing else.
func (w *watcher) tell(ctx context.Context, token any) {
	elapsed := w.age + time.Since(w.began).Seconds()
	message := fmt.Sprintf("%s, %d bytes: ", time.Duration(elapsed*float64(time.Second)).Round(time.Second), w.out.end)
	message += w.out.lastLine(progressLine - len(message))
	_ = w.req.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ // it is gone: the wait ends with ctx
		ProgressToken: token, Progress: elapsed, Message: message,
	})
}

// report returns what the call has seen.
func (w *watcher) report(c *troupe.Client, execution string) *report {
	r := &report{
		Session: c.ID(), Execution: execution, State: wire.StateRunning,
		Seconds: w.age + time.Since(w.began).Seconds(),
	}
	if w.done != nil {
		r.end(w.done, c.Limits())
	}
	r.output(w.out)
	return r
}
