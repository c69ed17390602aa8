package observability

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// Expression is one query of a panel or an alert.
type Expression struct {
	Where  string // panel or alert, for people
	Query  string // PromQL, with Grafana's variables replaced
	Legend string // Grafana's legend format, "" for an alert
	Alert  string // its name; "" for a panel
}

// Dashboard is the part of a Grafana dashboard that is checked.
type Dashboard struct {
	Title      string  `json:"title"`
	UID        string  `json:"uid"`
	Schema     int     `json:"schemaVersion"`
	Panels     []Panel `json:"panels"`
	Templating struct {
		List []Variable `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct {
			Name string `json:"name"`
			Expr string `json:"expr"`
		} `json:"list"`
	} `json:"annotations"`
}

// Variable is a template variable of a dashboard.
type Variable struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Definition string `json:"definition"`
}

// Panel is a panel or a row of a dashboard.
type Panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  Datasource `json:"datasource"`
	GridPos     struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		RefID      string     `json:"refId"`
		Expr       string     `json:"expr"`
		Legend     string     `json:"legendFormat"`
		Datasource Datasource `json:"datasource"`
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit       string `json:"unit"`
			Thresholds struct {
				Steps []struct {
					Color string   `json:"color"`
					Value *float64 `json:"value"`
				} `json:"steps"`
			} `json:"thresholds"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
}

// Datasource says which data source is asked.
type Datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// ReadDashboard reads a dashboard as Grafana would import it.
func ReadDashboard(path string) (*Dashboard, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := new(Dashboard)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// Expressions returns the queries of all panels, as Grafana would send them for a
// namespace, all pods and a short time.
func (d *Dashboard) Expressions(namespace string) []Expression {
	replace := strings.NewReplacer("$namespace", namespace, "$pod", ".+", "$__rate_interval", "30s")
	var all []Expression
	row := ""
	for _, p := range d.Panels {
		if p.Type == "row" {
			row = p.Title
		}
		for _, t := range p.Targets {
			all = append(all, Expression{
				Where: fmt.Sprintf("panel %q in %q, query %s", p.Title, row, t.RefID),
				Query: replace.Replace(t.Expr), Legend: t.Legend,
			})
		}
	}
	for _, v := range d.Templating.List {
		if metric, label, ok := labelValues(v.Definition); ok {
			all = append(all, Expression{
				Where: "variable " + v.Name, Legend: "{{" + label + "}}",
				Query: "group by (" + label + ") (" + replace.Replace(metric) + ")",
			})
		}
	}
	return all
}

var labelValuesCall = regexp.MustCompile(`^label_values\((.*), *(\w+)\)$`)

func labelValues(definition string) (metric, label string, ok bool) {
	m := labelValuesCall.FindStringSubmatch(definition)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// Rules are the groups of a Prometheus rule file.
type Rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []Rule `json:"rules"`
	} `json:"groups"`
}

// Rule is one alert or recording rule.
type Rule struct {
	Alert       string            `json:"alert"`
	Record      string            `json:"record"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// ReadRules reads a rule file.
func ReadRules(path string) (*Rules, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Rules)
	if err := yaml.UnmarshalStrict(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// All returns every rule.
func (r *Rules) All() []Rule {
	var all []Rule
	for _, g := range r.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Expressions returns the queries of all alerts.
func (r *Rules) Expressions() []Expression {
	var all []Expression
	for _, rule := range r.All() {
		all = append(all, Expression{Where: "alert " + rule.Alert, Query: rule.Expr, Alert: rule.Alert})
	}
	return all
}

// promql finds the queries of a Markdown page, a line each.
var promql = regexp.MustCompile("(?s)```promql\n(.*?)```")

// ReadRunbook returns the queries of a runbook for a namespace, and for all pods
// where it names one.
func ReadRunbook(path, namespace string) ([]Expression, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	replace := strings.NewReplacer(`namespace="N"`, `namespace="`+namespace+`"`, `pod="P"`, `pod=~".+"`)
	var all []Expression
	for _, block := range promql.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			all = append(all, Expression{Where: "runbook " + path, Query: strings.TrimSpace(replace.Replace(line))})
		}
	}
	return all, nil
}

// metric finds the names of metrics with the matchers behind them. Whatever is
// named in an expression begins with the name of its exporter, so that a metric
// cannot be taken for a function or a label.
var metric = regexp.MustCompile(`\b((?:troupe|process|go|container)_[a-z_]+)\b(\{[^}]*\})?`)

// grouping finds lists of labels, in which names are no metrics.
var grouping = regexp.MustCompile(`\b(?:by|on|without|ignoring)\s*\([^)]*\)`)

// Selectors returns the vector selectors of a query, without their ranges and offsets.
func Selectors(query string) []string {
	var all []string
	for _, m := range metric.FindAllStringSubmatch(grouping.ReplaceAllString(query, ""), -1) {
		all = append(all, m[0])
	}
	return all
}

// Metrics returns the names of the metrics in a query.
func Metrics(query string) []string {
	var all []string
	for _, m := range metric.FindAllStringSubmatch(grouping.ReplaceAllString(query, ""), -1) {
		all = append(all, m[1])
	}
	return all
}

// legendLabel finds the labels in a legend format.
var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
