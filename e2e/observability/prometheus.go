package observability

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// PrometheusConfig says how a Prometheus is started.
type PrometheusConfig struct {
	Program string // path; "": prometheus in PATH
	Dir     string // for its configuration and data; the caller removes it
	Scrape  string // scrape_configs in YAML, at the left margin
	Rules   string // absolute path of a rule file; "": none
	// Command prepares a program, in another network namespace for example. nil: exec.Command.
	Command func(name string, args ...string) *exec.Cmd
	// Client reaches it where Command starts it. nil: http.DefaultClient.
	Client *http.Client
}

// Prometheus is one that runs. The caller ends it with Stop.
type Prometheus struct {
	url    string
	client *http.Client
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	log    bytes.Buffer  // complete then
	ended  error         // set then
}

// scrapeInterval makes a run of a minute look like half an hour of an ordinary one.
const scrapeInterval = "1s"

// StartPrometheus starts a Prometheus on a free loopback port and waits until it answers.
func StartPrometheus(ctx context.Context, cfg PrometheusConfig) (*Prometheus, error) {
	if cfg.Program == "" {
		cfg.Program = "prometheus"
	}
	if cfg.Command == nil {
		cfg.Command = exec.Command
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(cfg.Dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}\n",
		scrapeInterval)
	if cfg.Rules != "" {
		text += fmt.Sprintf("rule_files: [%q]\n", cfg.Rules)
	}
	text += "scrape_configs:\n" + cfg.Scrape
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p := &Prometheus{url: "http://" + addr, client: cfg.Client, done: make(chan struct{})}
	p.cmd = cfg.Command(cfg.Program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(cfg.Dir, "data"),
		"--web.listen-address="+addr, "--log.level=warn")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.ended = p.cmd.Wait()
		close(p.done)
	}()
	for {
		var answer struct{}
		if err = p.get(ctx, "/api/v1/status/buildinfo", nil, &answer); err == nil {
			return p, nil
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("prometheus ended: %w\n%s", p.ended, &p.log)
		case <-ctx.Done():
			p.Stop()
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond): // between two polls
		}
	}
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Stop ends it, and returns what it logged.
func (p *Prometheus) Stop() string {
	_ = p.cmd.Process.Kill()
	<-p.done
	return p.log.String()
}

// get asks the HTTP API.
func (p *Prometheus) get(ctx context.Context, path string, values url.Values, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+values.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: status %d: %w", path, resp.StatusCode, err)
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return nil
}

// Sample is one series at one time.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Finite reports whether the value is a number that a panel can show.
func (s Sample) Finite() bool { return !math.IsNaN(s.Value) && !math.IsInf(s.Value, 0) }

// Query evaluates an expression now. An error is one of the expression or of Prometheus.
func (p *Prometheus) Query(ctx context.Context, query string) ([]Sample, error) {
	var data struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.get(ctx, "/api/v1/query", url.Values{"query": {query}}, &data); err != nil {
		return nil, err
	}
	if data.ResultType != "vector" {
		return nil, fmt.Errorf("it gives a %s, not a vector", data.ResultType)
	}
	var all []Sample
	for _, r := range data.Result {
		s, err := sample(r.Metric, r.Value)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func sample(labels map[string]string, value [2]any) (Sample, error) {
	text, ok := value[1].(string)
	if !ok {
		return Sample{}, fmt.Errorf("the value %v is not a string", value[1])
	}
	v, err := strconv.ParseFloat(text, 64)
	return Sample{Labels: labels, Value: v}, err
}

// Series is one series over a time.
type Series struct {
	Labels map[string]string
	Times  []time.Time
	Values []float64
}

// Range evaluates an expression at each step from one time to another.
func (p *Prometheus) Range(
	ctx context.Context, query string, from, to time.Time, step time.Duration,
) ([]Series, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	err := p.get(ctx, "/api/v1/query_range", url.Values{
		"query": {query}, "start": {unix(from)}, "end": {unix(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	}, &data)
	if err != nil {
		return nil, err
	}
	var all []Series
	for _, r := range data.Result {
		s := Series{Labels: r.Metric}
		for _, v := range r.Values {
			at, isNumber := v[0].(float64)
			one, err := sample(nil, v)
			if err != nil || !isNumber {
				return nil, fmt.Errorf("the point %v is not one: %w", v, err)
			}
			s.Times = append(s.Times, time.UnixMilli(int64(at*1000)))
			s.Values = append(s.Values, one.Value)
		}
		all = append(all, s)
	}
	return all, nil
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// RuleHealth is what Prometheus says of one rule that it evaluates.
type RuleHealth struct{ Name, State, Health, LastError string }

// Rules returns the rules that are loaded.
func (p *Prometheus) Rules(ctx context.Context) ([]RuleHealth, error) {
	var data struct {
		Groups []struct{ Rules []RuleHealth }
	}
	if err := p.get(ctx, "/api/v1/rules", nil, &data); err != nil {
		return nil, err
	}
	var all []RuleHealth
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}
