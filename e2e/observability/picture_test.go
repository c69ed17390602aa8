package observability

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/e2e/observability/render"
)

// svgEnv names the file to draw into. docs/dashboard.svg is made, in e2e, by:
//
//	DASHBOARD_SVG=../../docs/dashboard.svg go test ./observability -run EveryExpression
const svgEnv = "DASHBOARD_SVG"

// drawn are the panels that are drawn, by their titles in the dashboard.
var drawn = []string{
	"Sessions", "Executions running", "Start",
	"Executions ended by reason", "Executions that failed", "Cancel to dead",
	"Output dropped by cause", "Budget used by running commands", "Requests with an error",
	"Peers dead", "Sessions placed on peers", "Links ended, not by the client",
}

// TestDrawnPanelsAreInTheDashboard, or the picture would be of another one.
func TestDrawnPanelsAreInTheDashboard(t *testing.T) {
	d := readDashboard(t)
	for _, title := range drawn {
		if panel(d, title) == nil {
			t.Errorf("there is no panel %q", title)
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

// render draws the panels, if that is wanted, with the queries that the dashboard has.
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
		Note: fmt.Sprintf("%.0f seconds of TestEveryExpressionShowsSomething: the dashboard's queries, as Prometheus answered them. Drawn by e2e/observability/render, not by Grafana.",
			now.Sub(s.began).Seconds()),
		From: s.began, To: now, Step: time.Second, Events: s.events,
	}
	for _, title := range drawn {
		from := panel(d, title)
		chart := render.Chart{Title: title, Unit: from.FieldConfig.Defaults.Unit}
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
	if err := os.WriteFile(file, p.SVG(), 0o644); err != nil { //nolint:gosec // a page of the documentation
		s.t.Error(err)
	}
}
