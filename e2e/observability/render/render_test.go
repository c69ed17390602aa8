package render

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/plot/plotter"
)

func TestPictureShowsWhatItWasGiven(t *testing.T) {
	from := time.Unix(1000, 0)
	var times []time.Time
	for i := range 5 {
		times = append(times, from.Add(time.Duration(i)*time.Second))
	}
	svg, err := Picture{
		Title: "a & b", From: from, To: times[4], Step: time.Second,
		Charts: []Chart{
			{
				Title: "sessions", Unit: "short",
				Series: []Series{
					{Name: "<in use>", Times: times, Values: []float64{0, 2, math.NaN(), 4, math.Inf(1)}},
					{Name: "never", Times: times, Values: make([]float64, 5)},
				},
				Events: []Event{{At: times[2], Name: "something happens"}},
			},
			{Title: "nothing", Unit: "s"},
		},
	}.SVG()
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a &amp; b", "&lt;in use&gt;", ">something happens<", ">4<", "nothing, s"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the picture lacks %s", want)
		}
	}
	for _, unwanted := range []string{"NaN", "Inf", ">never<"} {
		if strings.Contains(string(svg), unwanted) {
			t.Errorf("the picture has %s", unwanted)
		}
	}
}

// TestUnknownUnitIsRefused: its values would be drawn without saying what they are.
func TestUnknownUnitIsRefused(t *testing.T) {
	if _, err := (Picture{Charts: []Chart{{Title: "x", Unit: "bananas"}}}).SVG(); err == nil {
		t.Error("a chart with an unknown unit is drawn")
	}
}

// TestNamesOfEventsDoNotOverlap: neighbours on one side are on different levels, and names near the
// end go to the left.
func TestNamesOfEventsDoNotOverlap(t *testing.T) {
	from := time.Unix(1000, 0)
	p := Picture{From: from, To: from.Add(90 * time.Second)}
	for _, c := range []struct {
		at   []int
		want []place
	}{
		{[]int{10, 20}, []place{{false, 0}, {false, 1}}},
		{[]int{10, 80}, []place{{false, 0}, {true, 0}}},
		{[]int{59, 70}, []place{{true, 1}, {true, 0}}},
		{[]int{10, 20, 55, 75, 85}, []place{{false, 0}, {false, 1}, {true, 0}, {true, 1}, {true, 0}}},
	} {
		var events []Event
		for _, s := range c.at {
			events = append(events, Event{At: from.Add(time.Duration(s) * time.Second)})
		}
		if got := p.places(events); !reflect.DeepEqual(got, c.want) {
			t.Errorf("events at %v: %v, want %v", c.at, got, c.want)
		}
	}
}

// TestGapsAreNotDrawn protects from a line through a time at which there was no value.
func TestGapsAreNotDrawn(t *testing.T) {
	from := time.Unix(1000, 0)
	at := func(seconds ...int) (all []time.Time) {
		for _, s := range seconds {
			all = append(all, from.Add(time.Duration(s)*time.Second))
		}
		return all
	}
	p := Picture{From: from, To: from.Add(10 * time.Second), Step: time.Second}
	for _, c := range []struct {
		name string
		s    Series
		want []plotter.XYs
	}{
		{
			"a value is missing",
			Series{Times: at(0, 1, 4, 5), Values: []float64{1, 2, 3, 4}},
			[]plotter.XYs{{{X: 0, Y: 1}, {X: 1, Y: 2}}, {{X: 4, Y: 3}, {X: 5, Y: 4}}},
		},
		{
			"a value is not finite",
			Series{Times: at(0, 1, 2, 3, 4), Values: []float64{1, 2, math.NaN(), 3, 4}},
			[]plotter.XYs{{{X: 0, Y: 1}, {X: 1, Y: 2}}, {{X: 3, Y: 3}, {X: 4, Y: 4}}},
		},
		{
			"one value alone is a short line",
			Series{Times: at(3), Values: []float64{7}},
			[]plotter.XYs{{{X: 3, Y: 7}, {X: 3.05, Y: 7}}},
		},
	} {
		if got := p.pieces(c.s, 1); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
