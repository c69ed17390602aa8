package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// schema is the part of JSON Schema that the document uses.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 string            `json:"type"`
	Format               string            `json:"format"`
	Items                *schema           `json:"items"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties *schema           `json:"additionalProperties"`
	Required             []string          `json:"required"`
	Enum                 []string          `json:"enum"`
	Minimum, Maximum     *float64
	Default              *float64
}

type operation struct {
	Parameters []struct {
		Name, In string
		Schema   schema
	}
	Responses map[string]struct {
		Ref     string `json:"$ref"`
		Content map[string]struct{ Schema schema }
	}
	Security *[]map[string][]string
}

type openAPI struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct {
		Schemas   map[string]schema
		Responses map[string]struct {
			Content map[string]struct{ Schema schema }
		}
	}
}

func parseDocument(t *testing.T) (d openAPI) {
	t.Helper()
	if err := json.Unmarshal(openapi, &d); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("openapi %s", d.OpenAPI)
	}
	return d
}

// described are the Go types of the document's schemas.
var described = map[string]reflect.Type{
	"Session": reflect.TypeFor[wire.Session](), "SessionExecution": reflect.TypeFor[wire.SessionExecution](),
	"SessionList": reflect.TypeFor[sessionPage](), "MissingPod": reflect.TypeFor[wire.MissingPod](),
	"Attachment": reflect.TypeFor[wire.Attachment](), "Pod": reflect.TypeFor[wire.Pod](),
	"OutputPage": reflect.TypeFor[wire.OutputPage](), "OutputPiece": reflect.TypeFor[wire.OutputPiece](),
	"PodList": reflect.TypeFor[wire.PodList](), "Problem": reflect.TypeFor[problem](),
	"FileInfo": reflect.TypeFor[wire.FileInfo](), "FileList": reflect.TypeFor[wire.FileList](),
	"FileChange": reflect.TypeFor[wire.FileChange](), "Unpacked": reflect.TypeFor[wire.FilesUnpacked](),
}

// TestDocumentHasTheFieldsOfTheAnswers: names, types and which of them are always there.
func TestDocumentHasTheFieldsOfTheAnswers(t *testing.T) {
	schemas := parseDocument(t).Components.Schemas
	if have, want := slices.Sorted(maps.Keys(schemas)), slices.Sorted(maps.Keys(described)); !slices.Equal(have, want) {
		t.Fatalf("the document has %v, want %v", have, want)
	}
	for name, typ := range described {
		want, required := map[string]string{}, []string{}
		for _, f := range reflect.VisibleFields(typ) {
			member, option, _ := strings.Cut(f.Tag.Get("json"), ",")
			if member == "" {
				continue // embedded
			}
			want[member] = jsonType(f.Type)
			if option != "omitempty" {
				required = append(required, member)
			}
		}
		have := map[string]string{}
		for member, s := range schemas[name].Properties {
			have[member] = s.Type
			switch {
			case s.Items != nil:
				have[member] += " of " + strings.TrimPrefix(s.Items.Ref, "#/components/schemas/")
			case s.AdditionalProperties != nil:
				have[member] += " of " + s.AdditionalProperties.Type
			}
		}
		slices.Sort(required)
		documented := slices.Sorted(slices.Values(schemas[name].Required))
		if !maps.Equal(have, want) || !slices.Equal(documented, required) {
			t.Errorf("%s:\n%v\nrequires %v, want\n%v\nrequires %v", name, have, documented, want, required)
		}
	}
	for field, want := range map[string][]string{
		"Session.state":     texts(wire.SessionStates()),
		"Session.isolation": {wire.IsolationNone, wire.IsolationSession},
		"Pod.state":         texts(wire.PodStates()),
		"SessionList.scope": {scopeAll, scopeOwn},
		"FileInfo.kind":     {wire.FileRegular, wire.FileDirectory, wire.FileSymlink, wire.FileOther},
		"FileChange.kind": {
			wire.FileReady, wire.FileCreated, wire.FileModified, wire.FileModeChanged, wire.FileRemoved, wire.FileRenamed,
			wire.FileOverflow,
		},
		"SessionExecution.state": texts([]wire.State{
			wire.StateStarting, wire.StateRunning, wire.StatePaused, wire.StateCanceling, wire.StateExiting,
			wire.StateKept, wire.StateExited,
		}),
	} {
		typ, member, _ := strings.Cut(field, ".")
		if have := slices.Sorted(
			slices.Values(schemas[typ].Properties[member].Enum),
		); !slices.Equal(
			have,
			slices.Sorted(slices.Values(want)),
		) {
			t.Errorf("%s: %v, want %v", field, have, want)
		}
	}
}

// ofFiles reports whether clients/fileserver serves the path, whose tests hold its answers to the document.
func ofFiles(path string) bool {
	return strings.HasPrefix(path, "/sessions/{id}/files/") || strings.HasPrefix(path, "/sessions/{id}/uploads/")
}

func texts[T ~string](values []T) (all []string) {
	for _, v := range values {
		all = append(all, string(v))
	}
	return all
}

func jsonType(t reflect.Type) string {
	if t == reflect.TypeFor[time.Time]() {
		return "string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Slice:
		return "array of " + t.Elem().Name()
	case reflect.Map:
		return "object of " + jsonType(t.Elem())
	case reflect.Int, reflect.Int64, reflect.Uint32:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "boolean"
	}
	return t.Kind().String()
}

// TestDocumentHasTheRoutes: the paths, their methods, the parameters of a list with their bounds, and which route
// needs no token.
func TestDocumentHasTheRoutes(t *testing.T) {
	d := parseDocument(t)
	want, have := []string{}, []string{}
	for _, r := range routes {
		for method, m := range r.methods {
			want = append(want, fmt.Sprint(strings.ToLower(method), " /", r.label(), " ", len(m.verbs) == 0))
		}
	}
	for path, methods := range d.Paths {
		if ofFiles(path) {
			continue
		}
		for method, o := range methods {
			have = append(have, fmt.Sprint(method, " ", path, " ", o.Security != nil && len(*o.Security) == 0))
		}
	}
	if slices.Sort(have); !slices.Equal(have, slices.Sorted(slices.Values(want))) {
		t.Errorf("%v, want %v", have, want)
	}
	for _, p := range d.Paths["/sessions/{id}/executions/{execution}/output"]["get"].Parameters {
		if s := p.Schema; p.Name == "limit" &&
			(*s.Minimum != 1 || *s.Maximum != actors.MaxOutput || *s.Default != actors.DefaultOutput) {
			t.Errorf("%+v", s)
		}
	}
	var parameters []string
	for _, p := range d.Paths["/sessions"]["get"].Parameters {
		if p.In != "query" {
			continue
		}
		parameters = append(parameters, p.Name)
		if s := p.Schema; p.Name == "limit" &&
			(*s.Minimum != 1 || *s.Maximum != actors.MaxListed || *s.Default != actors.DefaultListed) {
			t.Errorf("%+v", s)
		}
		if p.Name == "state" && len(p.Schema.Enum) != len(wire.SessionStates()) {
			t.Errorf("%+v", p.Schema)
		}
	}
	if slices.Sort(parameters); !slices.Equal(parameters, listParameters) {
		t.Errorf("parameters %v, want %v", parameters, listParameters)
	}
}

// TestDocumentHasTheAnswers: every status that the document has for an operation comes, no other does, and each body is
// as its schema says.
func TestDocumentHasTheAnswers(t *testing.T) {
	d := parseDocument(t)
	seen := map[string]map[int]bool{} // by operation
	note := func(operation, method, path string, resp *http.Response) {
		t.Helper()
		if seen[operation] == nil {
			seen[operation] = map[int]bool{}
		}
		seen[operation][resp.StatusCode] = true
		m, p, _ := strings.Cut(operation, " ")
		d.check(t, d.Paths[p][m], resp, method+" "+path)
	}
	for operation, id := range map[string]string{
		"get /openapi.json": "", "get /sessions": "", "get /pods": "",
		"get /sessions/{id}": alices, "delete /sessions/{id}": alices, "post /sessions/{id}/attach": alices,
		"get /sessions/{id}/executions/{execution}/output":    alices,
		"get /sessions/{id}/executions/{execution}/recording": alices,
	} {
		method, path, _ := strings.Cut(operation, " ")
		method = strings.ToUpper(method)
		at := func(id string) string {
			return Prefix + strings.TrimPrefix(strings.NewReplacer("{id}", id, "{execution}", "x").Replace(path), "/")
		}
		f := newFixture(t, nil)
		send := func(path, who string, header ...string) {
			t.Helper()
			note(operation, method, path, f.do(method, path, who, header...))
		}
		send(at(id), "alice")
		send(at(id), "alice", "If-None-Match", "*")
		large := httptest.NewRequestWithContext(
			t.Context(),
			method,
			"http://localhost"+at(id),
			strings.NewReader(strings.Repeat("x", maxBody+1)),
		)
		note(operation, method, path, f.send(large))
		if path == "/openapi.json" {
			continue
		}
		send(at(id)+"?wrong=1", "alice")
		send(at(id), "mallory")
		send(at(id), "alice", "Origin", "http://evil.example")
		if strings.Contains(path, "{id}") {
			send(at(bobs), "alice")
			send(at(silent), "alice")
		} else if path == "/sessions" {
			send(at(id)+"?pod=nowhere", "alice")
			send(at(id)+"?continue=x", "alice")
		}
		f.engine.fail = fmt.Errorf("a defect")
		send(at(id), "alice")
		f.handler.wait = time.Millisecond
		for range MaxRequests / 2 {
			f.handler.permits.Enter(t.Context(), "alice")
		}
		send(at(id), "alice")
		f = newFixture(t, nil)
		f.handler.cfg.Gateway = mustGateway(t, f.engine, brokenAuth{})
		send(at(id), "alice")
	}
	for path, methods := range d.Paths {
		if ofFiles(path) {
			continue
		}
		for method, o := range methods {
			operation := method + " " + path
			want := slices.Sorted(maps.Keys(o.Responses))
			have := []string{}
			for status := range seen[operation] {
				have = append(have, fmt.Sprint(status))
			}
			if path == "/pods" {
				have = append(have, "500") // no engine fails to say which pods there are
			}
			if slices.Sort(have); !slices.Equal(slices.Compact(have), want) {
				t.Errorf("%s: answers %v, the document has %v", operation, have, want)
			}
		}
	}
}

// check compares an answer with what the document says of it.
func (d *openAPI) check(t *testing.T, o operation, resp *http.Response, what string) {
	t.Helper()
	described, ok := o.Responses[fmt.Sprint(resp.StatusCode)]
	if !ok {
		t.Errorf("%s: %d is not in the document", what, resp.StatusCode)
		return
	}
	content := described.Content
	if name, ok := strings.CutPrefix(described.Ref, "#/components/responses/"); ok {
		content = d.Components.Responses[name].Content
	}
	if resp.StatusCode == http.StatusNotModified {
		resp.Body.Close()
		return
	}
	body, ok := content[resp.Header.Get("Content-Type")]
	if !ok {
		t.Errorf("%s: %d has the type %s", what, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if err := d.valid(body.Schema, decode[any](t, resp)); err != nil {
		t.Errorf("%s: %d: %v", what, resp.StatusCode, err)
	}
}

// valid checks a value against a schema.
func (d *openAPI) valid(s schema, v any) error {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = d.Components.Schemas[name]
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Properties == nil {
			return nil
		}
		for _, member := range s.Required {
			if _, ok := v[member]; !ok {
				return fmt.Errorf("%s is missing in %v", member, v)
			}
		}
		for member, value := range v {
			p, ok := s.Properties[member]
			if !ok {
				return fmt.Errorf("%s is not in the schema", member)
			}
			if err := d.valid(p, value); err != nil {
				return fmt.Errorf("%s: %w", member, err)
			}
		}
	case []any:
		for _, item := range v {
			if err := d.valid(*s.Items, item); err != nil {
				return err
			}
		}
	case string:
		if s.Type != "string" || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			return fmt.Errorf("%q is not one of %v", v, s.Enum)
		}
	}
	return nil
}
