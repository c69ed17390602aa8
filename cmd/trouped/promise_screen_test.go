package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/screen"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// view is a terminal that shows an execution's.
type view struct {
	shows *screen.Screen
	gaps  int
	drawn bool // the last gap was followed by a screen
}

// follow reads until the screen has a text, and returns the rows.
func (v *view) follow(t *testing.T, e *troupe.Execution, until string) []string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	for {
		ev, err := e.Next(ctx)
		if err != nil {
			t.Fatalf("%v; the screen shows %q", err, v.shows.Text())
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			_, _ = v.shows.Write(ev.Data)
		case *troupe.Resized:
			v.shows.Resize(ev.Cols, ev.Rows)
		case *troupe.Gap:
			v.gaps++
			v.drawn = false
		case *troupe.Screen:
			v.drawn = true
			v.shows.Resize(ev.Cols, ev.Rows)
			_, _ = v.shows.Write(ev.Data)
		}
		if slices.ContainsFunc(v.shows.Text(), func(row string) bool { return strings.Contains(row, until) }) {
			return v.shows.Text()
		}
	}
}

// draws has a program write its title once, on the alternate screen, and 300 KiB below it.
const draws = `printf '\033[?1049h\033[31;1mtitle\033[0m\r\n\033[2;20r\033[2;1H\033[?25l'
	i=0; while [ $i -lt 3000 ]; do i=$((i+1)); printf '%0100d\r\n' $i; done
	printf '\033[24;1Hthe end'; sleep 600`

// TestLateViewersSeeTheScreen: whoever comes when the beginning is gone sees what is left of it on the
// screen, on any pod, and so does who is too slow.
func TestLateViewersSeeTheScreen(t *testing.T) {
	f := launchFleet(t)
	c, err := troupe.Dial(t.Context(), f.pods[0].ws, troupe.Options{Window: 16 << 10}) // it is never overtaken
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		ExecutionID: "shell", Argv: []string{"sh", "-c", draws}, Scrollback: 64 << 10,
		Terminal: &wire.Terminal{Cols: 120, Rows: 24},
	})
	if err != nil {
		t.Fatal(err)
	}
	first := &view{shows: screen.New(80, 24)}
	want := first.follow(t, e, "the end")
	if want[0] != "title" || first.gaps > 0 {
		t.Fatalf("the first viewer sees %q after %d gaps", want, first.gaps)
	}
	for _, pod := range f.pods {
		late := &view{shows: screen.New(80, 24)}
		got := late.follow(t, attachAll(t, pod, c).Executions()["shell"], "the end")
		if !slices.Equal(got, want) || string(late.shows.Draw()) != string(first.shows.Draw()) {
			t.Errorf("a late viewer sees %q, want %q", got, want)
		}
		if late.gaps == 0 || !late.drawn {
			t.Errorf("%d gaps, drawn %v", late.gaps, late.drawn)
		}
	}
}

// TestSkippingViewersSeeTheScreen: a viewer that is overtaken again and again ends with the same screen.
func TestSkippingViewersSeeTheScreen(t *testing.T) {
	s := launch(t)
	c, err := troupe.Dial(t.Context(), s.ws, troupe.Options{Window: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Detach() })
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		ExecutionID: "shell", Argv: []string{"sh", "-c", "sleep 1;" + draws}, Scrollback: 64 << 10, Window: 8 << 10,
		Terminal: &wire.Terminal{Cols: 120, Rows: 24},
	})
	if err != nil {
		t.Fatal(err)
	}
	slow := &view{shows: screen.New(80, 24)}
	to := c.Connected()
	o, err := troupe.Attach(t.Context(), s.ws, to.SessionID, to.ResumeToken, nil, troupe.Options{Window: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Detach() })
	lazy := o.Executions()["shell"]
	first := &view{shows: screen.New(80, 24)}
	want := first.follow(t, e, "the end")
	if got := slow.follow(t, lazy, "the end"); !slices.Equal(got, want) ||
		string(slow.shows.Draw()) != string(first.shows.Draw()) {
		t.Errorf("a slow viewer sees %q, want %q", got, want)
	}
	if slow.gaps == 0 {
		t.Error("it was never overtaken")
	}
}
