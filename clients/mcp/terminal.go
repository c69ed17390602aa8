package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/screen"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

const (
	// terminalCols and terminalRows are the size of a terminal that exec starts.
	terminalCols, terminalRows = 80, 24
	// SmallScreen is how many cells a screen may have that a call lays out by itself. A larger one waits for its turn
	// with those who edit files (Config.MaxEdits). No larger one than maxScreen is laid out.
	SmallScreen = terminalCols * terminalRows
	maxScreen   = 20 << 10
	// ScreenCost bounds what a call holds with a small screen: see screen.NewText. The text of it, which is four bytes
	// for each cell at most, is there once while the screen is, and three times afterwards.
	ScreenCost = 20<<10 + (32+4)*SmallScreen

	// settled is how long a terminal is silent before a call takes it that the program has drawn.
	settled = 200 * time.Millisecond
	// screenYield is how long a call waits for a terminal that does not become silent.
	screenYield = 2 * time.Second
)

type screenInput struct {
	executionInput
	YieldMS *int64 `json:"yield_ms"`
}

// yield is that of bounds, with another default.
func (in *screenInput) yield() time.Duration { return bounds{YieldMS: in.YieldMS}.yield(screenYield) }

// readScreen returns what a terminal shows, once the program has drawn.
func (d *Door) readScreen(ctx context.Context, req *sdk.CallToolRequest, in screenInput) (*report, error) {
	v, err := d.view(ctx, req, in)
	if err != nil {
		return nil, err
	}
	defer v.close()
	if err := v.watch(ctx, false); err != nil {
		return nil, explain(err)
	}
	return v.report(), nil
}

type keysInput struct {
	screenInput
	Keys []string `json:"keys"`
}

// sendKeys types into a terminal, and returns what it shows then.
func (d *Door) sendKeys(ctx context.Context, req *sdk.CallToolRequest, in keysInput) (*report, error) {
	if _, err := typed(in.Keys, false); err != nil {
		return nil, err
	}
	v, err := d.view(ctx, req, in.screenInput)
	if err != nil {
		return nil, err
	}
	defer v.close()
	// What the cursor keys send depends on a mode that the output sets.
	if err := v.catchUp(ctx); err != nil {
		return nil, explain(err)
	}
	keys, err := typed(in.Keys, v.screen.CursorKeys())
	if err != nil {
		return nil, err
	}
	v.began = time.Now()
	ask, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := v.execution.Input(ask, keys); err != nil {
		if unread(err) {
			return nil, fmt.Errorf("execution %s reads no keys: it has ended", in.Execution)
		}
		return nil, explain(err)
	}
	if err := v.watch(ctx, true); err != nil {
		return nil, explain(err)
	}
	return v.report(), nil
}

// view is the screen of a terminal, laid out for the length of a call from the output that the server keeps.
type view struct {
	d         *Door
	execution *troupe.Execution
	close     func()
	turn      bool // it has that of a large screen

	screen *screen.Screen
	began  time.Time // the call
	age    float64   // seconds for which the command ran before
	until  time.Time
	end    int64     // of the output, when the call began
	last   time.Time // when the program has drawn
	lost   int64     // bytes that the server no longer has
	state  wire.State
	done   *wire.Completed
	client *troupe.Client
}

// view follows a terminal from the oldest output on.
func (d *Door) view(ctx context.Context, req *sdk.CallToolRequest, in screenInput) (*view, error) {
	f, err := d.follow(ctx, req, in.executionInput, func(wire.ExecutionStatus) int64 { return 0 })
	if err != nil {
		return nil, err
	}
	if f.status.Terminal == nil {
		f.close()
		return nil, fmt.Errorf("execution %s has no terminal: start it with terminal true", in.Execution)
	}
	v := d.newView(f.client, f.execution, in.yield())
	v.end, v.state = f.status.Offset, f.status.State
	if began, err := time.Parse(time.RFC3339, f.status.StartedAt); err == nil {
		v.age = max(0, v.began.Sub(began).Seconds())
	}
	v.close = func() { v.leave(); f.close() }
	if err := v.resize(ctx, f.status.Terminal.Cols, f.status.Terminal.Rows); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (d *Door) newView(c *troupe.Client, e *troupe.Execution, yield time.Duration) *view {
	now := time.Now()
	return &view{d: d, client: c, execution: e, began: now, until: now.Add(yield), state: wire.StateRunning}
}

// resize lays the screen out for a size.
func (v *view) resize(ctx context.Context, cols, rows int) error {
	if cells := cols * rows; cells > maxScreen {
		return fmt.Errorf("the terminal has %d columns and %d rows, which is too large to be laid out: make it smaller",
			cols, rows)
	} else if cells > SmallScreen && !v.turn && v.d.edits != nil {
		select {
		case v.d.edits <- struct{}{}:
			v.turn = true
			v.until = earlier(v.until, time.Now().Add(screenYield)) // others wait
		case <-time.After(answerTime):
			return errors.New("the server is busy with the large screens and edits of others: try again")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if v.screen == nil {
		v.screen = screen.NewText(cols, rows)
	} else {
		v.screen.Resize(cols, rows)
	}
	return nil
}

// leave gives the turn of a large screen back.
func (v *view) leave() {
	if v.turn {
		v.turn = false
		<-v.d.edits
	}
}

// catchUp reads what there was when the call began.
func (v *view) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for v.done == nil && v.execution.Offset() < v.end {
		if err := v.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// watch lays out what the program draws until it has drawn and is silent, has ended, or the time is over. With
// answer, it is to draw first, as for keys that were typed.
func (v *view) watch(ctx context.Context, answer bool) error {
	if err := v.catchUp(ctx); err != nil {
		return err
	}
	if !answer {
		v.last = time.Now()
	} else {
		v.last = time.Time{}
	}
	for v.done == nil {
		until := v.until
		if !v.last.IsZero() {
			until = earlier(until, v.last.Add(settled))
		}
		part, cancel := context.WithDeadline(ctx, until)
		err := v.step(part)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			return err
		default:
			return nil
		}
	}
	return nil
}

// step takes the next event.
func (v *view) step(ctx context.Context) error {
	ev, err := v.execution.Next(ctx)
	if err != nil {
		return err
	}
	switch ev := ev.(type) {
	case *troupe.Output:
		_, _ = v.screen.Write(ev.Data) // it takes everything
		v.last = time.Now()
		ev.Release()
	case *troupe.Resized:
		return v.resize(ctx, ev.Cols, ev.Rows)
	case *troupe.Gap:
		v.lost += ev.Bytes
	case *troupe.Screen:
		if err := v.resize(ctx, ev.Cols, ev.Rows); err != nil {
			return err
		}
		_, _ = v.screen.Write(ev.Data)
		v.lost = 0 // it stands for what is missing
	case *troupe.Completed:
		v.done = &ev.Completed
	}
	return nil
}

// report returns what the terminal shows.
func (v *view) report() *report {
	r := &report{
		Session: v.client.ID(), Execution: v.execution.ID(), State: v.state,
		Seconds: v.age + time.Since(v.began).Seconds(), NextOffset: v.execution.Offset(),
	}
	if v.done != nil {
		r.end(v.done, v.client.Limits())
	}
	cols, rows := v.screen.Size()
	x, y := v.screen.Cursor()
	title := text([]byte(v.screen.Title()))
	r.Screen = &shownScreen{Cols: cols, Rows: rows, CursorCol: x + 1, CursorRow: y + 1, Title: title}
	r.Output = strings.TrimRight(text([]byte(strings.Join(v.screen.Text(), "\n"))), "\n")
	if v.lost > 0 {
		r.Message = joinSentences(r.Message, "older output is gone, so that the screen may lack what was drawn with it")
	}
	v.screen = nil // the text is copied for the answer
	return r
}

// shownScreen says what is to know of a screen beside its text.
type shownScreen struct {
	Cols      int    `json:"cols"`
	Rows      int    `json:"rows"`
	CursorCol int    `json:"cursor_col"` // from 1
	CursorRow int    `json:"cursor_row"`
	Title     string `json:"title,omitempty"`
}

func (s *shownScreen) String() string {
	line := fmt.Sprintf("screen of %d by %d, cursor in row %d, column %d", s.Cols, s.Rows, s.CursorRow, s.CursorCol)
	if s.Title != "" {
		line += fmt.Sprintf(", title %.100q", s.Title)
	}
	return line
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
