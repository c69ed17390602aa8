package render

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func TestPictureShowsWhatItWasGiven(t *testing.T) {
	from := time.Unix(1000, 0)
	var times []time.Time
	for i := range 5 {
		times = append(times, from.Add(time.Duration(i)*time.Second))
	}
	late := []time.Time{times[0], times[1], times[4]} // two are missing
	svg := Picture{
		Title: "a & b", From: from, To: times[4], Step: time.Second,
		Charts: []Chart{
			{Title: "sessions", Unit: "short", Series: []Series{{Name: "<in use>", Times: times, Values: []float64{0, 2, math.NaN(), 4, math.Inf(1)}}}},
			{Title: "nothing", Unit: "s"},
			{Title: "late", Unit: "s", Series: []Series{{Name: "late", Times: late, Values: []float64{1, 1, 1}}}},
		},
		Events: []Event{{At: times[2], Name: "something happens"}},
	}.SVG()
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a &amp; b", "&lt;in use&gt;", "1  something happens", ">5<", ">2.5<", ">1 s<"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the picture lacks %s", want)
		}
	}
	if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") || strings.Count(string(svg), "h1") != 4 {
		t.Errorf("a gap is not drawn as one:\n%s", svg)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "s", "0 s"},
		{0.0005, "s", "0.5 ms"},
		{17, "s", "17 s"},
		{0.9, "percentunit", "90 %"},
		{2097152, "bytes", "2 MiB"},
		{512, "Bps", "512 B/s"},
		{12.345, "ops", "12.3/s"},
		{100, "short", "100"},
	} {
		if got := Format(c.v, c.unit); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestAxesEndAtRoundNumbers(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "s", "1 s"}, {0.03, "s", "50 ms"}, {11, "short", "20"}, {10, "short", "10"}, {150 << 10, "Bps", "200 KiB/s"}, {700, "bytes", "1e+03 B"},
	} {
		if got := Format(nice(c.v, c.unit), c.unit); got != c.want {
			t.Errorf("%v %s: the axis ends at %s, want %s", c.v, c.unit, got, c.want)
		}
	}
}
