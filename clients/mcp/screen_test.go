package mcp

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestScreensAreBounded: large ones wait for their turn with the edits, and have it for 2 s at most; and there is a
// size beyond which none is laid out.
func TestScreensAreBounded(t *testing.T) {
	d := &Door{edits: make(chan struct{}, 1)}
	open := func() *view { return d.newView(nil, nil, maxYield) }
	small := open()
	if err := small.resize(t.Context(), terminalCols, terminalRows); err != nil || len(d.edits) != 0 {
		t.Errorf("a small screen: %v, %d turns", err, len(d.edits))
	}
	large := open()
	if err := large.resize(t.Context(), 200, 50); err != nil || len(d.edits) != 1 {
		t.Fatalf("a large screen: %v, %d turns", err, len(d.edits))
	}
	if left := time.Until(large.until); left > screenYield {
		t.Errorf("it keeps its turn for %s", left)
	}
	if err := large.resize(t.Context(), 200, 60); err != nil {
		t.Errorf("a larger one still: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	next := open()
	if err := next.resize(gone, 200, 50); !errors.Is(err, context.Canceled) {
		t.Errorf("without a turn: %v", err)
	}
	next.leave()
	large.leave()
	large.leave()
	if len(d.edits) != 0 {
		t.Error("the turn is not given back")
	}
	if err := small.resize(t.Context(), 1000, 500); err == nil || len(d.edits) != 0 {
		t.Errorf("a huge screen: %v", err)
	}
	free := (&Door{}).newView(nil, nil, maxYield) // over stdio
	if err := free.resize(t.Context(), 200, 50); err != nil {
		t.Error(err)
	}
}
