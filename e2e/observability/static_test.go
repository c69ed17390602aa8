package observability

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

const (
	dashboardFile  = "../../charts/troupe/files/dashboard.json"
	rulesFile      = "../../charts/troupe/files/rules.yaml"
	runbooks       = "../../docs/runbooks"
	metricsPage    = "../../docs/metrics.md"
	operationsPage = "../../docs/operations.md"
	peersPage      = "../../docs/peers.md"
	runbookURL     = "https://github.com/troupe-dev/troupe/blob/main/docs/runbooks/"
)

func readDashboard(t *testing.T) *Dashboard {
	t.Helper()
	d, err := ReadDashboard(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func readRules(t *testing.T) *Rules {
	t.Helper()
	r, err := ReadRules(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDashboardIsGrafanas: by Grafana's own schema, with no member that it does not know.
func TestDashboardIsGrafanas(t *testing.T) {
	raw, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	plugins.RegisterDefaultPlugins()
	var d dashboard.Dashboard //nolint:staticcheck // Grafana 10 and 11 import this schema; what replaces it is for 12
	for _, err := range []error{d.UnmarshalJSONStrict(raw), d.Validate()} {
		var list cog.BuildErrors // comes as an error that is not nil when it is empty, too
		if err != nil && (!errors.As(err, &list) || len(list) > 0) {
			t.Error(err)
		}
	}
	if !json.Valid(raw) || len(raw) > 256<<10 { // a ConfigMap that kubectl apply can still annotate
		t.Errorf("%d bytes", len(raw))
	}
}

// TestDashboardReadsAtThreeInTheMorning: each panel says what it shows, in which
// unit and when it is bad, and asks the data source that the reader chose for the
// namespaces and pods that the reader chose.
func TestDashboardReadsAtThreeInTheMorning(t *testing.T) {
	d := readDashboard(t)
	ids, titles := map[int]bool{}, map[string]bool{}
	var rows []string
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if titles[p.Title] {
			t.Errorf("two panels are named %q", p.Title)
		}
		titles[p.Title] = true
		if len(p.Description) < 30 || !strings.HasSuffix(p.Description, ".") {
			t.Errorf("%q: description %q", p.Title, p.Description)
		}
		if p.FieldConfig.Defaults.Unit == "" || len(p.FieldConfig.Defaults.Thresholds.Steps) == 0 || len(p.Targets) == 0 {
			t.Errorf("%q lacks a unit, thresholds or queries", p.Title)
		}
		if p.Datasource.UID != "${datasource}" {
			t.Errorf("%q asks %q", p.Title, p.Datasource.UID)
		}
		for _, q := range p.Targets {
			if q.Legend == "" || q.Datasource.UID != "${datasource}" {
				t.Errorf("%q, query %s: legend %q, data source %q", p.Title, q.RefID, q.Legend, q.Datasource.UID)
			}
			for _, s := range Selectors(q.Expr) {
				if !strings.Contains(s, `{namespace=~"$namespace", pod=~"$pod"`) {
					t.Errorf("%q, query %s: %s is not of the chosen pods", p.Title, q.RefID, s)
				}
			}
		}
		for _, book := range regexp.MustCompile(`Troupe\w+`).FindAllString(p.Description, -1) {
			if _, err := os.Stat(filepath.Join(runbooks, book+".md")); err != nil {
				t.Errorf("%q names the runbook %s: %v", p.Title, book, err)
			}
		}
	}
	want := []string{"Service", "Pods", "Sessions and executions", "Output", "Failures", "Peers", "Resources"}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if !slices.Equal(variables, []string{"datasource", "namespace", "pod"}) {
		t.Errorf("variables %q", variables)
	}
	checkLayout(t, d)
}

// checkLayout: nothing lies on something else or beyond the 24 columns.
func checkLayout(t *testing.T, d *Dashboard) {
	t.Helper()
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%q is at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// sections of a runbook, in the order in which they are needed.
var sections = []string{"## Meaning", "## Impact", "## Diagnosis", "## Mitigation"}

// TestEveryAlertHasItsRunbook, and every runbook its alert.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	books := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		books[strings.TrimSuffix(filepath.Base(f), ".md")] = true
	}
	for _, r := range readRules(t).All() {
		if r.Annotations["runbook_url"] != runbookURL+r.Alert+".md" || !books[r.Alert] {
			t.Errorf("%s: runbook_url %q, page there: %v", r.Alert, r.Annotations["runbook_url"], books[r.Alert])
		}
		if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 40 || len(r.Annotations) != 3 {
			t.Errorf("%s: annotations %v", r.Alert, r.Annotations)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" || len(r.Labels) != 1 {
			t.Errorf("%s: labels %v", r.Alert, r.Labels)
		}
		if !strings.HasPrefix(r.Alert, "Troupe") {
			t.Errorf("%s is not told apart from other alerts", r.Alert)
		}
		checkRunbook(t, r)
		delete(books, r.Alert)
	}
	for _, name := range slices.Sorted(maps.Keys(books)) {
		if name != "README" {
			t.Errorf("%s.md is about no alert", name)
		}
	}
}

// TestOperationsListsTheAlerts by their severity.
func TestOperationsListsTheAlerts(t *testing.T) {
	text, err := os.ReadFile(operationsPage)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string][]string{}
	for _, severity := range []string{"critical", "warning"} {
		heading := strings.ToUpper(severity[:1]) + severity[1:] + ":"
		_, list, _ := strings.Cut(string(text), "\n"+heading)
		list, _, _ = strings.Cut(list, ".")
		listed[severity] = regexp.MustCompile(`Troupe\w+`).FindAllString(list, -1)
	}
	for _, r := range readRules(t).All() {
		severity := r.Labels["severity"]
		i := slices.Index(listed[severity], r.Alert)
		if i < 0 {
			t.Errorf("docs/operations.md does not list %s as %s", r.Alert, severity)
			continue
		}
		listed[severity] = slices.Delete(listed[severity], i, i+1)
	}
	for severity, rest := range listed {
		if len(rest) > 0 {
			t.Errorf("docs/operations.md lists %s as %s, which they are not", rest, severity)
		}
	}
}

func checkRunbook(t *testing.T, r Rule) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(runbooks, r.Alert+".md"))
	if err != nil {
		return // has been said
	}
	at := 0
	for _, s := range sections {
		i := strings.Index(string(text[at:]), "\n"+s+"\n")
		if i < 0 {
			t.Errorf("%s.md lacks %q after what comes before it", r.Alert, s)
			return
		}
		at += i
	}
	if !strings.HasPrefix(string(text), "# "+r.Alert+"\n") || !strings.Contains(string(text), "```") {
		t.Errorf("%s.md lacks its title or a command to run", r.Alert)
	}
	exported := documentedMetrics(t)
	for _, name := range Metrics(string(text)) {
		if strings.HasPrefix(name, "troupe_") && !exported[base(name, exported)] {
			t.Errorf("%s.md names %s, which is not exported", r.Alert, name)
		}
	}
}

// TestRunbooksQuoteTheLog: what a runbook looks for in the log is what the server writes.
func TestRunbooksQuoteTheLog(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"../../actors/*.go", "../../actors/*/*.go", "../../gateway/*.go", "../../cmd/trouped/*.go", "../../k8s/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && !strings.HasSuffix(f, "_test.go") {
				source.Write(text)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\.msg ?== ?"([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
			quoted++
			if !strings.Contains(source.String(), `"`+m[1]+`"`) {
				t.Errorf("%s looks for the message %q, which nothing logs", filepath.Base(f), m[1])
			}
		}
		// Each alternative of a pattern is a part of some message.
		patterns := regexp.MustCompile(`\.msg \| (?:test|startswith)\("([^"]+)"\)`)
		for _, m := range patterns.FindAllStringSubmatch(string(text), -1) {
			for part := range strings.SplitSeq(m[1], "|") {
				quoted++
				if !regexp.MustCompile(`"[^"\n]*` + part).MatchString(source.String()) {
					t.Errorf("%s looks for messages with %q, which nothing logs", filepath.Base(f), part)
				}
			}
		}
	}
	if quoted < 5 {
		t.Errorf("only %d messages were found", quoted)
	}
}

// documentedMetrics returns the metrics of docs/metrics.md and docs/peers.md, whose tables a test of trouped holds
// to the server. The second names some in its text, too: those that need a cluster.
func documentedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for page, metric := range map[string]string{metricsPage: "(?m)^\\| `(troupe_[a-z_]+)` \\|", peersPage: "`(troupe_[a-z_]+)`"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(metric).FindAllStringSubmatch(string(text), -1)
		if len(found) < 10 {
			t.Errorf("%s names %d metrics", page, len(found))
		}
		for _, m := range found {
			names[m[1]] = true
		}
	}
	return names
}

// base returns the name of the metric that a series belongs to: a histogram has three.
func base(name string, exported map[string]bool) string {
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if short, ok := strings.CutSuffix(name, suffix); ok && exported[short] {
			return short
		}
	}
	return name
}

// TestEveryMetricIsLookedAt: every metric is in a panel or an alert, and these name no other metric.
func TestEveryMetricIsLookedAt(t *testing.T) {
	exported := documentedMetrics(t)
	seen := map[string]bool{}
	for _, e := range append(readDashboard(t).Expressions("x"), readRules(t).Expressions()...) {
		for _, name := range Metrics(e.Query) {
			name = base(name, exported)
			seen[name] = true
			if strings.HasPrefix(name, "troupe_") && !exported[name] {
				t.Errorf("%s: %s is not exported", e.Where, name)
			}
		}
	}
	for name := range exported {
		if !seen[name] {
			t.Errorf("%s is in no panel and no alert", name)
		}
	}
}

// promtool runs the tool of Debian's package prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		missing(t, "promtool")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// missing fails in CI and skips elsewhere, so that the other tests run without a Prometheus.
func missing(t *testing.T, program string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: apt-get install prometheus", program)
	}
	t.Skipf("%s is missing: apt-get install prometheus", program)
}

func TestRulesAreValid(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", rulesFile)
}

// TestAlertsFireAndDoNotFire has for each alert series that make it fire and series that do not.
func TestAlertsFireAndDoNotFire(t *testing.T) {
	promtool(t, "test", "rules", "testdata/rules_test.yaml")
	text, err := os.ReadFile("testdata/rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readRules(t).All() {
		fires := regexp.MustCompile(`(?s)alertname: ` + r.Alert + `\n\s+exp_alerts:\n\s+- `)
		quiet := regexp.MustCompile(`alertname: ` + r.Alert + `\n\s+exp_alerts: \[\]`)
		if !fires.Match(text) || !quiet.Match(text) {
			t.Errorf("rules_test.yaml does not show that %s fires, or that it does not", r.Alert)
		}
	}
}
