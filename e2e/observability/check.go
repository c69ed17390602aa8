package observability

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Checker asks a Prometheus for every expression of the dashboard, the alerts and
// the runbooks, as often as it is told to, until each has given something.
type Checker struct {
	Prometheus *Prometheus

	open   []*pending
	broken []string // expressions that Prometheus refuses, or that give what no panel can show
}

// pending is an expression or selector that has given nothing yet.
type pending struct {
	Expression
	selector bool // one operand of Query, which has to be there though the whole is empty
	text     string
	number   bool // it has given a series, but no number yet
}

// Files are where the expressions come from. Rules and Runbooks, a directory, may be empty.
type Files struct{ Dashboard, Rules, Runbooks string }

// NewChecker reads the files. namespace is that of the pods.
func NewChecker(p *Prometheus, files Files, namespace string) (*Checker, error) {
	d, err := ReadDashboard(files.Dashboard)
	if err != nil {
		return nil, err
	}
	all := d.Expressions(namespace)
	if files.Rules != "" {
		r, err := ReadRules(files.Rules)
		if err != nil {
			return nil, err
		}
		all = append(all, r.Expressions()...)
	}
	books, err := filepath.Glob(filepath.Join(files.Runbooks, "*.md"))
	if err != nil {
		return nil, err
	}
	for _, book := range books {
		queries, err := ReadRunbook(book, namespace)
		if err != nil {
			return nil, err
		}
		all = append(all, queries...)
	}
	c := &Checker{Prometheus: p}
	for _, e := range all {
		c.open = append(c.open, &pending{Expression: e, text: e.Query})
		for _, s := range Selectors(e.Query) {
			c.open = append(c.open, &pending{Expression: e, text: s, selector: true})
		}
	}
	return c, nil
}

// Open returns the number of expressions and selectors that have given nothing yet.
func (c *Checker) Open() int { return len(c.open) }

// Except takes expressions out of the check: those whose text matches, with all of
// their selectors. It returns how many expressions these were, so that an exception
// that has lost its object can be told.
func (c *Checker) Except(text *regexp.Regexp) int {
	n := 0
	c.open = slices.DeleteFunc(c.open, func(p *pending) bool {
		if !text.MatchString(p.Query) {
			return false
		}
		if !p.selector {
			n++
		}
		return true
	})
	return n
}

// Round asks for everything that is still open. The error is one of Prometheus
// itself; what is wrong with an expression is in Problems.
func (c *Checker) Round(ctx context.Context) error {
	answers := map[string][]Sample{} // panels, alerts and runbooks share selectors
	kept := c.open[:0]
	for _, p := range c.open {
		samples, asked := answers[p.text]
		if !asked {
			var err error
			if samples, err = c.Prometheus.Query(ctx, p.text); err != nil {
				if ctx.Err() != nil {
					return err
				}
				c.broken = append(c.broken, fmt.Sprintf("%s: %s: %v", p.Where, p.text, err))
				continue
			}
			answers[p.text] = samples
		}
		if !c.satisfied(p, samples) {
			kept = append(kept, p)
		}
	}
	clear(c.open[len(kept):])
	c.open = kept
	return nil
}

// satisfied reports whether p need not be asked for again: it gave a number, with the labels that
// its legend shows.
func (c *Checker) satisfied(p *pending, samples []Sample) bool {
	for _, s := range samples {
		p.number = true
		if !s.Finite() {
			continue
		}
		if !p.selector {
			for _, label := range legendLabel.FindAllStringSubmatch(p.Legend, -1) {
				if s.Labels[label[1]] == "" {
					c.broken = append(c.broken, fmt.Sprintf("%s: the legend shows %s, which %v lacks", p.Where, label[1], s.Labels))
				}
			}
		}
		return true
	}
	return false
}

// Problems returns the expressions that were refused or are still open.
func (c *Checker) Problems() []string {
	all := slices.Clone(c.broken)
	for _, p := range c.open {
		what := "is empty"
		if p.number {
			what = "is never a number"
		}
		all = append(all, fmt.Sprintf("%s: %s %s", p.Where, strings.Join(strings.Fields(p.text), " "), what))
	}
	return all
}

// Waiting reports whether an alert, or one of its selectors, has given nothing yet.
func (c *Checker) Waiting(alert string) bool {
	return slices.ContainsFunc(c.open, func(p *pending) bool { return p.Alert == alert })
}
