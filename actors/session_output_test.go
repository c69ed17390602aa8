package actors

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// text joins the pieces of a page.
func textOf(t *testing.T, page *wire.OutputPage) string {
	t.Helper()
	var b strings.Builder
	for _, p := range page.Pieces {
		data := []byte(p.Data)
		if p.Encoding == wire.EncodingBase64 {
			var err error
			if data, err = base64.StdEncoding.DecodeString(p.Data); err != nil {
				t.Fatal(err)
			}
		}
		b.Write(data)
	}
	return b.String()
}

// TestOutputIsReadFromAnyPod: by its subject and by who may see all, also after its end, and by nobody else.
func TestOutputIsReadFromAnyPod(t *testing.T) {
	s := newService(t, 2, nil)
	c := connect(s.pods[0].Engine, ConnectRequest{Subject: "alice"})
	connected, werr := c.settled(t)
	if connected == nil {
		t.Fatal(werr)
	}
	c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
	c.answered(t, "1")
	tree := s.pods[0].runner.tree("x")
	tree.print("one\ntwo\n")
	eventually(t, 5*time.Second, "the output", func() bool { return c.text("x") == "one\ntwo\n" })
	owner := Viewer{Subject: "alice"}
	for _, h := range s.pods {
		for _, v := range []Viewer{owner, {Subject: "aldo", All: true}} {
			page, err := h.ReadOutput(t.Context(), v, connected.SessionID, OutputRange{Execution: "x", Offset: 4})
			if err != nil || page.Subject != "alice" || page.NextOffset != 8 || page.End || textOf(t, page) != "two\n" {
				t.Errorf("at %s: %+v, %v", h.pod, page, err)
			}
		}
		for _, tc := range []struct {
			viewer Viewer
			output OutputRange
			err    error
		}{
			{Viewer{Subject: "bob"}, OutputRange{Execution: "x"}, ErrNoSession},
			{owner, OutputRange{Execution: "y"}, ErrNoExecution},
			{owner, OutputRange{Execution: "x", Offset: 9}, ErrBadOffset},
		} {
			if page, err := h.ReadOutput(t.Context(), tc.viewer, connected.SessionID, tc.output); !errors.Is(err, tc.err) {
				t.Errorf("%+v at %s: %+v, %v", tc, h.pod, page, err)
			}
		}
	}
	tree.exit(0)
	eventually(t, 5*time.Second, "the end", func() bool { return count[wire.Completed](c) == 1 })
	page, err := s.pods[1].ReadOutput(t.Context(), owner, connected.SessionID, OutputRange{Execution: "x"})
	if err != nil || !page.End || textOf(t, page) != "one\ntwo\n" {
		t.Errorf("afterwards: %+v, %v", page, err)
	}
	s.stop(c)
}

// TestPagesOfOutputAreWholeAndBounded: whatever the bytes are, all pages together have each once, and the answer of a
// pod is never too large. A rune is not torn.
func TestPagesOfOutputAreWholeAndBounded(t *testing.T) {
	store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for name, content := range map[string][]byte{
		"text":        bytes.Repeat([]byte("häuser und bäume, 木.\n"), 20_000),
		"zeros":       make([]byte, 300_000),
		"not UTF-8":   bytes.Repeat([]byte("\xff\xfe\n"), 60_000),
		"short lines": bytes.Repeat([]byte("\n"), 50_000),
	} {
		tr := store.Create(name, transcript.Options{Limit: 1 << 30})
		for rest := content; len(rest) > 0; { // records of all lengths
			n := min(len(rest), 1+len(rest)%3000)
			stream := transcript.Stdout
			if name == "short lines" {
				n = 1
				stream = transcript.Stream(len(rest) % 2)
			}
			w := tr.Writer(stream, transcript.WriterConfig{})
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			w.Close()
			rest = rest[n:]
		}
		tr.Seal()
		for _, limit := range []int{0, 1000, MaxOutput, 1 << 30} {
			var got strings.Builder
			r := OutputRange{Limit: limit}
			for pages := 0; ; pages++ {
				page := new(wire.OutputPage)
				if code := readOutput(tr, r, page); code != "" || pages > 1000 {
					t.Fatalf("%s: page %d: %q", name, pages, code)
				}
				b, err := encodeJSON(queryResult{Output: page})
				if err != nil || len(b) > MaxAnswer {
					t.Fatalf("%s: an answer of %d bytes, %v", name, len(b), err)
				}
				text := textOf(t, page)
				if got.WriteString(text); len(text) > r.limit() || page.NextOffset != int64(got.Len()) {
					t.Fatalf("%s: %d bytes to %d, in pages of %d", name, len(text), page.NextOffset, r.limit())
				}
				for _, p := range page.Pieces {
					if name == "text" && p.Encoding != "" {
						t.Fatalf("a rune is torn: %q", p.Data)
					}
				}
				if r.Offset = page.NextOffset; page.End {
					break
				}
			}
			if got.String() != string(content) {
				t.Errorf("%s: %d bytes, want %d", name, got.Len(), len(content))
			}
		}
	}
}

// TestGapsOfOutputAreSaid: output that was evicted is a gap of its size.
func TestGapsOfOutputAreSaid(t *testing.T) {
	store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tr := store.Create("x", transcript.Options{Retain: transcript.Last, Scrollback: 4 << 10})
	w := tr.Writer(transcript.Stdout, transcript.WriterConfig{})
	if _, err := io.WriteString(w, strings.Repeat("0123456789abcde\n", 64<<10)); err != nil {
		t.Fatal(err)
	}
	page := new(wire.OutputPage)
	if code := readOutput(tr, OutputRange{}, page); code != "" || len(page.Pieces) < 2 || page.Pieces[0].Gap == 0 {
		t.Fatalf("%q, %+v", code, page)
	}
	if got := page.Pieces[0].Gap + int64(len(textOf(t, page))); got != page.NextOffset {
		t.Errorf("gap and text have %d bytes, up to %d", got, page.NextOffset)
	}
	w.Close()
}
