package observability

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/e2e/observability/render"
)

// svgEnv names the file to draw into. This makes docs/dashboard.svg:
//
//	cd e2e && DASHBOARD_SVG=../../docs/dashboard.svg go test ./observability -run EveryExpression
const svgEnv = "DASHBOARD_SVG"

// drawn are the panels that are drawn, by their titles in the dashboard, each with the steps that
// explain it.
var drawn = []struct {
	title string
	steps []string
}{
	{"Sessions", []string{allSlots, "all servers drain"}},
	{"Executions running", []string{"runner stopped for 1.5 s", "all servers drain"}},
	{"Start", []string{"runner stopped for 1.5 s"}},
	{"Executions ended by reason", []string{"failing commands", "runner killed three times"}},
	{"Executions that failed", []string{"failing commands", "runner killed three times"}},
	{"Cancel to dead", []string{"runner stopped during a cancel"}},
	{"Output dropped by cause", []string{"failing commands", "transcript budget spent"}},
	{"Budget used by running commands", []string{"transcript budget spent"}},
	{"Requests with an error", []string{"failing commands"}},
	{"Peers dead", []string{"d cannot reach e", "d reaches e again"}},
	{"Sessions placed on peers", []string{"more clients than d has slots", allSlots}},
	{"Links ended, not by the client", []string{"d cannot reach e", "d reaches e again"}},
}

// TestDrawnPanelsAreInTheDashboard, and their steps in the scenario; otherwise the picture would
// show another one.
func TestDrawnPanelsAreInTheDashboard(t *testing.T) {
	steps := map[string]bool{}
	for _, s := range new(scenario).steps() {
		steps[s.name] = true
	}
	d := readDashboard(t)
	for _, chart := range drawn {
		if panel(d, chart.title) == nil {
			t.Errorf("there is no panel %q", chart.title)
		}
		for _, name := range chart.steps {
			if !steps[name] {
				t.Errorf("%q names the step %q, which does not exist", chart.title, name)
			}
		}
	}
}

func panel(d *Dashboard, title string) *Panel {
	for i := range d.Panels {
		if d.Panels[i].Title == title {
			return &d.Panels[i]
		}
	}
	return nil
}

// render draws the panels with the dashboard's queries, if svgEnv is set.
func (s *scenario) render() {
	s.t.Helper()
	file := os.Getenv(svgEnv)
	if file == "" {
		return
	}
	d := readDashboard(s.t)
	now := time.Now()
	p := render.Picture{
		Title: "Five servers of troupe, at work and in trouble",
		Note: fmt.Sprintf("What Prometheus answered to the dashboard's queries in %.0f s of TestEveryExpressionShowsSomething. "+
			"Drawn by e2e/observability/render. Dashed: what the test did. Time in seconds.", now.Sub(s.began).Seconds()),
		From: s.began, To: now, Step: time.Second,
	}
	for _, wanted := range drawn {
		from := panel(d, wanted.title)
		chart := render.Chart{Title: wanted.title, Unit: from.FieldConfig.Defaults.Unit}
		for _, e := range s.events {
			if slices.Contains(wanted.steps, e.Name) {
				chart.Events = append(chart.Events, e)
			}
		}
		for _, target := range from.Targets {
			// A window of ten scrapes, as four of an ordinary Prometheus are two minutes.
			query := strings.NewReplacer("$namespace", namespace, "$pod", ".+", "$__rate_interval", "10s").Replace(target.Expr)
			found, err := s.prom.Range(s.t.Context(), query, s.began, now, time.Second)
			if err != nil {
				s.t.Fatal(err)
			}
			for _, one := range found {
				name := legendLabel.ReplaceAllStringFunc(target.Legend, func(m string) string {
					return one.Labels[legendLabel.FindStringSubmatch(m)[1]]
				})
				chart.Series = append(chart.Series, render.Series{Name: name, Times: one.Times, Values: one.Values})
			}
		}
		p.Charts = append(p.Charts, chart)
	}
	svg, err := p.SVG()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, svg, 0o644); err != nil { //nolint:gosec // a page of the documentation
		s.t.Error(err)
	}
}
