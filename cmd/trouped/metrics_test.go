package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// families returns what /metrics serves.
func (s *instance) families() map[string]*dto.MetricFamily {
	s.t.Helper()
	_, text := s.get(s.admin + "/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range problems {
		s.t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	found, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// series returns every series of our own, by name and labels.
func series(families map[string]*dto.MetricFamily) []string {
	var all []string
	for name, f := range families {
		if !strings.HasPrefix(name, "troupe_") {
			continue
		}
		for _, m := range f.GetMetric() {
			id := name
			for _, l := range m.GetLabel() {
				id += " " + l.GetName() + "=" + l.GetValue()
			}
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// TestMetricsFollowTheConventions, and are all there before the first event: a rate over a series
// that appears with its first event misses that event.
func TestMetricsFollowTheConventions(t *testing.T) {
	s := launch(t, "--max-sessions", "1", "--max-executions", "1", "--max-output", "10", "--allow-command",
		"/bin/echo,/bin/sleep")
	before := series(s.families())
	if len(before) < 150 {
		t.Errorf("only %d series", len(before))
	}
	c := s.dial()
	for _, argv := range [][]string{
		{"/bin/echo", "longer than ten bytes"},
		{"/bin/echo"},
		{"/bin/false"},
		{"/bin/sleep", "1000"},
		{"/bin/sleep", "1000"},
	} {
		_, _ = c.Execute(t.Context(), wire.ExecuteParams{Argv: argv}) // some are refused
	}
	if other, err := troupe.Dial(t.Context(), s.ws, troupe.Options{}); err == nil {
		other.Detach()
		t.Error("a second session was opened")
	}
	_, _ = c.Control(t.Context(), wire.ControlParams{Type: wire.ControlCancel, ExecutionID: "none"})
	if err := syscall.Kill(s.runner, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "\ntroupe_runner_restarts_total 1\n") {
			return errors.New("the runner was not started again")
		}
		return nil
	})
	after := series(s.families())
	for _, id := range after {
		if _, ok := slices.BinarySearch(before, id); !ok {
			t.Errorf("%s appeared with an event", id)
		}
	}
	if c.Close() != nil {
		t.Error("cannot close the session")
	}
}

// TestMetricsHaveTheLimits: alerts compare with what is configured, not with the defaults.
func TestMetricsHaveTheLimits(t *testing.T) {
	got := launch(t, "--cancel-grace", "90s", "--drain-timeout", "1.5s").families()
	for name, want := range map[string]float64{
		"troupe_limit_cancel_grace_seconds":  90,
		"troupe_limit_drain_timeout_seconds": 1.5,
	} {
		if m := got[name].GetMetric(); len(m) != 1 || m[0].GetGauge().GetValue() != want {
			t.Errorf("%s is %v, want %v", name, m, want)
		}
	}
}

// metricsPage returns the rows of a page's tables of metrics: type and labels by name.
func metricsPage(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(troupe_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\| [^|]{10,} \\|$")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = m[2] + " " + strings.ReplaceAll(m[3], "`", "")
	}
	return rows
}

// served returns type and labels of every metric of our own.
func served(families map[string]*dto.MetricFamily) map[string]string {
	all := map[string]string{}
	for name, f := range families {
		if !strings.HasPrefix(name, "troupe_") {
			continue
		}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		all[name] = strings.ToLower(f.GetType().String()) + " " + strings.Join(slices.Sorted(maps.Keys(labels)), ", ")
	}
	return all
}

// TestMetricsAreDocumented holds docs/metrics.md and the server alike: every metric has its row, with its
// type and its labels, and every row its metric. Those of a server with peers are in docs/peers.md.
func TestMetricsAreDocumented(t *testing.T) {
	alone := served(launch(t).families())
	sameRows(t, "docs/metrics.md", metricsPage(t, "../../docs/metrics.md"), alone)

	files := sign(t, newAuthority(t), t.TempDir(), peers.CertName)
	peers := served(launch(t, "--peers", "other=127.0.0.1:1", "--peer-listen", "127.0.0.1:0",
		"--peer-cert", files.Cert, "--peer-key", files.Key, "--peer-ca", files.CA).families())
	maps.DeleteFunc(peers, func(name, _ string) bool { return alone[name] != "" })
	if len(peers) == 0 {
		t.Error("a server with peers has no metrics of its own")
	}
	sameRows(t, "docs/peers.md", metricsPage(t, "../../docs/peers.md"), peers)
}

func sameRows(t *testing.T, page string, documented, served map[string]string) {
	t.Helper()
	for name, want := range served {
		if got, ok := documented[name]; !ok || got != want {
			t.Errorf("%s has %s as %q, the server as %q", page, name, got, want)
		}
	}
	for name := range documented {
		if served[name] == "" {
			t.Errorf("%s has %s, the server has not", page, name)
		}
	}
}

// TestLogLinesNameSessionAndExecution: JSON, one object a line, and the keys by which lines are found.
func TestLogLinesNameSessionAndExecution(t *testing.T) {
	s := launch(t, "--log-level", "debug")
	c := s.dial()
	params := wire.ExecuteParams{ExecutionID: "x", Command: "echo hello"}
	if _, err := c.Run(t.Context(), params, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	session := c.ID()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	s.exit()
	want := map[string][]string{ // keys beside the session's
		"session opened": {"subject"}, "session ended": {"subject", "cause"}, "connection closed": {"subject", "cause", "remote"},
		"execution completed": {"subject", "execution", "reason", "exit_code"},
		"audit":               {"subject", "execution", "reason", "exit_code", "argv_sha256", "started"},
	}
	for _, line := range logLines(t, s.stderr.String()) {
		msg, _ := line["msg"].(string)
		for _, key := range want[msg] {
			if line[key] == nil {
				t.Errorf("%q lacks %s: %v", msg, key, line)
			}
		}
		if want[msg] != nil && line["session"] != session {
			t.Errorf("%q is of session %v, want %s", msg, line["session"], session)
		}
		delete(want, msg)
	}
	if len(want) > 0 {
		t.Errorf("the log lacks %v", want)
	}
}

// logLines parses a log of one JSON object a line.
func logLines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		object := map[string]any{}
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Errorf("not JSON: %q", line)
			continue
		}
		all = append(all, object)
	}
	return all
}
