package gateway

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/troupe-dev/troupe/actors/wire"
)

// value reads a counter or a gauge.
func value(m prometheus.Metric) float64 {
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		return -1
	}
	if out.Counter != nil {
		return out.Counter.GetValue()
	}
	return out.Gauge.GetValue()
}

func TestMetricsAreCleanAndCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	f := start(t, func(c *Config) { c.Registerer = reg })
	f.engine.handle = func(c *fakeConn, r fakeRequest) {
		if _, ok := r.params.(*wire.ControlParams); ok {
			c.client.Reply(r.id, nil, wire.Errorf(wire.CodeNoProcess, "nothing runs"))
			return
		}
		answerAll(c, r)
	}
	c, e := f.connect(t)
	for _, frame := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"status"}`,
		`{"jsonrpc":"2.0","id":1,"method":"control","params":{"type":"PAUSE"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"made-up"}`,
		`{"jsonrpc":"2.0","id":1,"method":"signal"}`,
		`{`,
	} {
		c.send(frame)
		c.recv()
	}
	m := f.gateway.metrics
	if value(m.connections) != 1 || value(m.messagesReceived) != 5 || value(m.messagesSent) != 5 ||
		value(m.bytesSent) < 100 || value(m.bytesReceived) < 100 {
		t.Errorf("connections %v, messages %v in %v out, bytes %v in %v out", value(m.connections),
			value(m.messagesReceived), value(m.messagesSent), value(m.bytesReceived), value(m.bytesSent))
	}
	for _, c := range []struct{ method, code string }{
		{"status", "0"}, {"control", "-32003"}, {"unknown", "-32601"}, {"signal", "-32602"}, {"invalid", "-32700"},
	} {
		if got := value(m.requests.WithLabelValues(c.method, c.code)); got != 1 {
			t.Errorf("requests{%s,%s} = %v", c.method, c.code, got)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "troupe_") {
			t.Errorf("%s is not troupe's", family.GetName())
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if strings.Contains(label.GetValue(), "made-up") {
					t.Errorf("a client makes labels: %v", label)
				}
			}
		}
	}
	_ = c.ws.Close(websocket.StatusNormalClosure, "")
	e.end(t)
	if f.closedBy(wire.CauseClientDone) != 1 {
		t.Error("the end was not counted")
	}
}

// TestEveryAnswerHasItsSeries: a rate over a series that appears with its first event misses that
// event.
func TestEveryAnswerHasItsSeries(t *testing.T) {
	b, err := os.ReadFile("../docs/openrpc.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Methods []struct {
			Name   string
			Errors []struct {
				Ref string `json:"$ref"`
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string][]string{}
	for _, family := range families {
		if family.GetName() != "troupe_requests_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			code, method := metric.GetLabel()[0].GetValue(), metric.GetLabel()[1].GetValue()
			have[method] = append(have[method], code)
		}
	}
	common := []string{"0", strconv.Itoa(int(wire.CodeInvalidRequest)), strconv.Itoa(int(wire.CodeInvalidParams))}
	for _, m := range doc.Methods {
		want := slices.Clone(common)
		for _, e := range m.Errors {
			want = append(want, "-"+strings.TrimPrefix(e.Ref, "#/components/errors/"))
		}
		slices.Sort(want)
		slices.Sort(have[m.Name])
		if want = slices.Compact(want); !slices.Equal(have[m.Name], want) {
			t.Errorf("%s has series for %v, openrpc.json says %v", m.Name, have[m.Name], want)
		}
	}
}
