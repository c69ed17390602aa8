package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// story tells what pages have: output as it is, sizes and gaps in brackets, each behind the time if it is a new one.
func story(pages ...*RecordingPage) string {
	var b strings.Builder
	last := -1.0
	for _, page := range pages {
		for _, p := range page.Pieces {
			if p.At != last {
				fmt.Fprintf(&b, "%.2f:", p.At)
			}
			last = p.At
			switch {
			case p.Gap > 0:
				fmt.Fprintf(&b, "[gap %d]", p.Gap)
			case p.Cols > 0:
				fmt.Fprintf(&b, "[%dx%d]", p.Cols, p.Rows)
			default:
				b.Write(p.Data)
			}
		}
	}
	return b.String()
}

// TestRecordingHasTimesAndSizes: a page goes on where the one before ended, each thing is in one of them, and a change
// of size comes with the output that answers it.
func TestRecordingHasTimesAndSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		id := find[wire.Connected](c).SessionID
		offset := int64(0)
		read := func(want string, end bool) {
			t.Helper()
			synctest.Wait()
			page, err := h.ReadRecording(t.Context(), Viewer{All: true}, id, "x", offset)
			if err != nil {
				t.Fatal(err)
			}
			if got := story(page); got != want || page.End != end || page.Offset != page.NextOffset {
				t.Errorf("from %d: %s, want %s; %+v", offset, got, want, page)
			}
			offset = page.NextOffset
		}
		read("", false)
		time.Sleep(1500 * time.Millisecond)
		tree.print("$ ")
		synctest.Wait()
		time.Sleep(2 * time.Second)
		tree.print("ls")
		read("1.50:[80x24]$ 3.50:ls", false)
		read("", false)
		for cols := range 300 { // only the last is ever seen
			c.conn.Request(wire.ID(fmt.Sprint("s", cols)), &wire.ResizeParams{ExecutionID: "x", Cols: 100 + cols, Rows: 30})
		}
		read("", false)
		time.Sleep(time.Second)
		tree.print("\r\n")
		read("4.50:[399x30]\r\n", false)
		time.Sleep(time.Second)
		tree.print("bye")
		synctest.Wait()
		c.conn.Request(wire.ID("last"), &wire.ResizeParams{ExecutionID: "x", Cols: 10, Rows: 10})
		synctest.Wait()
		tree.exit(0)
		read("5.50:bye[10x10]", true)
		for execution, want := range map[string]error{"y": ErrNoExecution, "plain": ErrNoTerminal} {
			c.execute(execution, wire.ExecuteParams{ExecutionID: "plain"})
			synctest.Wait()
			if _, err := h.ReadRecording(t.Context(), Viewer{All: true}, id, execution, 0); !errors.Is(err, want) {
				t.Errorf("%s: %v", execution, err)
			}
		}
		if _, err := h.ReadRecording(t.Context(), Viewer{Subject: "mallory"}, id, "x", 0); !errors.Is(err, ErrNoSession) {
			t.Errorf("of another subject: %v", err)
		}
		h.stop(t, c)
	})
}

// TestRecordingPagesAreWholeAndBounded: whatever is shown, all pages together have each byte that is kept once, and the
// answer of a pod is never too large.
func TestRecordingPagesAreWholeAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		for name, size := range map[string]int{"keystrokes": 1, "lines": 70, "a flood": 60_000} {
			const kept = 100_000
			tr := store.Create(name, transcript.Options{Retain: transcript.Last, Scrollback: kept, Times: true})
			w := tr.Writer(transcript.Stdout, transcript.WriterConfig{})
			var all strings.Builder
			for i := 0; all.Len() < 3*kept; i++ {
				time.Sleep(11 * time.Millisecond)
				s := strings.Repeat(string(rune('a'+i%26)), size)
				_, _ = w.Write([]byte(s))
				all.WriteString(s)
			}
			w.Close()
			tr.Seal()
			var got strings.Builder
			gap, offset := int64(0), int64(0)
			for pages := 0; ; pages++ {
				page := &RecordingPage{Subject: "alice", Terminal: &wire.Terminal{Cols: 80, Rows: 24}}
				if code := page.read(tr, offset); code != "" || pages > 3000 {
					t.Fatalf("%s: page %d: %q", name, pages, code)
				}
				b, err := encodeJSON(queryResult{Recording: page})
				if err != nil || len(b) > MaxAnswer {
					t.Fatalf("%s: an answer of %d bytes, %v", name, len(b), err)
				}
				for _, p := range page.Pieces {
					got.Write(p.Data)
					gap += p.Gap
				}
				if offset = page.NextOffset; page.End {
					break
				}
			}
			if got.Len() < kept || got.String() != all.String()[gap:] {
				t.Errorf("%s: %d bytes behind a gap of %d of %d", name, got.Len(), gap, all.Len())
			}
		}
	})
}

// TestFollowedRecordingOutlastsItsSession: whoever looked for more a moment before the session ended finds the end of
// its terminal, and nobody else does. Then it is gone; and at once, if nobody has looked.
func TestFollowedRecordingOutlastsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, followed := range []bool{true, false} {
			h, c, tree := startTerminal(t, 0)
			id := find[wire.Connected](c).SessionID
			look := func(v Viewer) (*RecordingPage, error) { return h.ReadRecording(t.Context(), v, id, "x", 0) }
			owner := Viewer{Subject: "alice"}
			tree.print("$ ")
			synctest.Wait()
			if followed {
				if _, err := look(owner); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			tree.print("exit\r\n")
			synctest.Wait()
			tree.exit(0)
			synctest.Wait()
			c.conn.Request(wire.ID("close"), &wire.CloseParams{})
			synctest.Wait()
			c.hangUp(wire.CauseClientDone)
			synctest.Wait()
			page, err := look(owner)
			if !followed {
				if !errors.Is(err, ErrNoSession) {
					t.Errorf("nobody followed, and there is %+v, %v", page, err)
				}
				h.stop(t, c)
				continue
			}
			if err != nil || !page.End || story(page) != "0.00:[80x24]$ 1.00:exit\r\n" {
				t.Errorf("after the end: %+v, %v", page, err)
			}
			if _, err := look(Viewer{Subject: "mallory"}); !errors.Is(err, ErrNoSession) {
				t.Errorf("another subject: %v", err)
			}
			if page, err := look(Viewer{Subject: "aldo", All: true, Commands: true}); err != nil || page.Command == "" {
				t.Errorf("who may read: %+v, %v", page, err)
			}
			time.Sleep(lingerTime)
			synctest.Wait()
			if _, err := look(owner); !errors.Is(err, ErrNoSession) {
				t.Errorf("later: %v", err)
			}
			h.stop(t, c)
		}
	})
}
