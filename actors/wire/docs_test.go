package wire

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func readDoc(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The page must show the messages that go over the wire now, not those of an earlier version.
func TestProtocolPageShowsEveryGoldenMessage(t *testing.T) {
	page := string(readDoc(t, "protocol.md"))
	for name, message := range encodeGolden(t) {
		if !strings.Contains(page, "\n"+string(message)) {
			t.Errorf("docs/protocol.md lacks %s:\n%s", name, message)
		}
	}
	for _, code := range errorCodes(t) {
		if !strings.Contains(page, "| "+strconv.Itoa(int(code))+" |") {
			t.Errorf("docs/protocol.md does not explain error %d", code)
		}
	}
	for _, cause := range Causes() {
		if !strings.Contains(page, "| "+strconv.Itoa(cause.Code())+" | `"+string(cause)+"` |") {
			t.Errorf("docs/protocol.md does not explain close %d %s", cause.Code(), cause)
		}
	}
	for _, reason := range Reasons() {
		if !strings.Contains(page, "`"+string(reason)+"`") {
			t.Errorf("docs/protocol.md does not explain reason %s", reason)
		}
	}
}

// errorCodes reads the error codes from errors.go, so that a new one cannot be forgotten in the
// documentation.
func errorCodes(t *testing.T) []Code {
	t.Helper()
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	var codes []Code
	for _, match := range regexp.MustCompile(`\tCode\w+ +Code = (-\d+)`).FindAllSubmatch(source, -1) {
		n, err := strconv.Atoi(string(match[1]))
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, Code(n))
	}
	if len(codes) < 15 {
		t.Fatalf("found only %d codes in errors.go", len(codes))
	}
	return codes
}

// schema is the part of JSON Schema that the OpenRPC document uses.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 string            `json:"type"`
	Items                *schema           `json:"items"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties *schema           `json:"additionalProperties"`
	Required             []string          `json:"required"`
	Enum                 []string          `json:"enum"`
}

type descriptor struct {
	Name     string `json:"name"`
	Required bool   `json:"required"`
	Schema   schema `json:"schema"`
}

type openRPC struct {
	OpenRPC string `json:"openrpc"`
	Info    struct {
		Version string `json:"version"`
	} `json:"info"`
	Methods []struct {
		Name           string       `json:"name"`
		ParamStructure string       `json:"paramStructure"`
		Params         []descriptor `json:"params"`
		Result         *descriptor  `json:"result"`
		Errors         []schema     `json:"errors"`
	} `json:"methods"`
	Notifications []struct {
		Name   string `json:"name"`
		Params schema `json:"params"`
	} `json:"x-notifications"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
		Errors  map[string]struct {
			Code Code `json:"code"`
		} `json:"errors"`
	} `json:"components"`
}

// openRPCTypes are the params and results of each method. Decode's own params are checked against
// them too.
var openRPCTypes = map[string]struct{ params, result any }{
	MethodExecute: {ExecuteParams{}, ExecuteResult{}},
	MethodControl: {ControlParams{}, ControlResult{}},
	MethodInput:   {InputParams{}, struct{}{}},
	MethodSignal:  {SignalParams{}, struct{}{}},
	MethodResize:  {ResizeParams{}, struct{}{}},
	MethodStatus:  {StatusParams{}, StatusResult{}},
	MethodResume:  {ResumeParams{}, ResumeResult{}},
	MethodClose:   {CloseParams{}, struct{}{}},
	MethodAck:     {AckParams{}, struct{}{}},
	MethodPong:    {PongParams{}, nil},
}

// enums are the values of the closed string types.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[Framing]():       {"lines", "raw"},
	reflect.TypeFor[Encoding]():      {"utf-8", "base64"},
	reflect.TypeFor[Retain]():        {"first", "unread", "last"},
	reflect.TypeFor[OnOutputLimit](): {"drop", "cancel"},
	reflect.TypeFor[OnExit]():        {"kill", "keep"},
	reflect.TypeFor[State]():         {"starting", "running", "paused", "canceling", "exiting", "kept", "exited"},
	reflect.TypeFor[Reason]():        reasonNames(),
}

func reasonNames() []string {
	var names []string
	for _, r := range Reasons() {
		names = append(names, string(r))
	}
	return names
}

func TestOpenRPCMatchesTheTypes(t *testing.T) {
	var doc openRPC
	if err := json.Unmarshal(readDoc(t, "openrpc.json"), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenRPC, "1.3.") || doc.Info.Version != Version {
		t.Errorf("openrpc %s, version %s", doc.OpenRPC, doc.Info.Version)
	}
	var names []string
	for _, m := range doc.Methods {
		names = append(names, m.Name)
		types := openRPCTypes[m.Name]
		properties, required := map[string]schema{}, []string(nil)
		for _, p := range m.Params {
			properties[p.Name] = p.Schema
			if p.Required {
				required = append(required, p.Name)
			}
		}
		doc.match(t, m.Name, schema{Type: "object", Properties: properties, Required: required}, reflect.TypeOf(types.params))
		if (m.Result == nil) != (types.result == nil) {
			t.Errorf("%s: result %v", m.Name, m.Result)
		} else if m.Result != nil {
			doc.match(t, m.Name+" result", m.Result.Schema, reflect.TypeOf(types.result))
		}
		if m.ParamStructure != "by-name" {
			t.Errorf("%s: params %s", m.Name, m.ParamStructure)
		}
		for _, e := range m.Errors {
			if _, ok := doc.Components.Errors[strings.TrimPrefix(e.Ref, "#/components/errors/")]; !ok {
				t.Errorf("%s: no error %q", m.Name, e.Ref)
			}
		}
	}
	if !slices.Equal(names, Methods()) {
		t.Errorf("methods %v, want %v", names, Methods())
	}
	for _, code := range errorCodes(t) {
		if e, ok := doc.Components.Errors[strconv.Itoa(-int(code))]; !ok || e.Code != code {
			t.Errorf("error %d is missing", code)
		}
	}
	if want := len(errorCodes(t)); len(doc.Components.Errors) != want {
		t.Errorf("%d errors, want %d", len(doc.Components.Errors), want)
	}
	described := map[string]bool{}
	for _, n := range doc.Notifications {
		described[n.Name] = true
		for _, golden := range goldenNotifications {
			if golden.method == n.Name && golden.params != nil {
				doc.match(t, n.Name, n.Params, reflect.TypeOf(golden.params))
			}
		}
	}
	for _, golden := range goldenNotifications {
		if !described[golden.method] {
			t.Errorf("x-notifications lacks %s", golden.method)
		}
	}
}

// match checks that s describes typ: every member with its type, and no more.
func (doc *openRPC) match(t *testing.T, where string, s schema, typ reflect.Type) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if s.Ref != "" {
		name := strings.TrimPrefix(s.Ref, "#/components/schemas/")
		if name != typ.Name() {
			t.Errorf("%s: refers to %s, want %s", where, name, typ.Name())
		}
		target, ok := doc.Components.Schemas[name]
		if !ok {
			t.Errorf("%s: no schema %s", where, name)
			return
		}
		s = target
	}
	want := map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer",
		reflect.Uint16: "integer", reflect.Float64: "number",
		reflect.Slice: "array", reflect.Map: "object", reflect.Struct: "object",
	}[typ.Kind()]
	if typ == reflect.TypeFor[[]byte]() {
		want = "string" // base64
	}
	if s.Type != want {
		t.Errorf("%s: type %q, want %q", where, s.Type, want)
		return
	}
	if values, ok := enums[typ]; ok && !slices.Equal(s.Enum, values) {
		t.Errorf("%s: enum %v, want %v", where, s.Enum, values)
	}
	switch {
	case want == "string":
	case typ.Kind() == reflect.Slice && s.Items != nil:
		doc.match(t, where+"[]", *s.Items, typ.Elem())
	case typ.Kind() == reflect.Map && s.AdditionalProperties != nil:
		doc.match(t, where+"{}", *s.AdditionalProperties, typ.Elem())
	case typ.Kind() == reflect.Struct:
		doc.matchMembers(t, where, s, typ)
	case typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map:
		t.Errorf("%s: the elements are not described", where)
	}
}

func (doc *openRPC) matchMembers(t *testing.T, where string, s schema, typ reflect.Type) {
	t.Helper()
	seen := 0
	for i := range typ.NumField() {
		if !typ.Field(i).IsExported() {
			continue
		}
		name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		property, ok := s.Properties[name]
		if !ok {
			t.Errorf("%s: lacks %s", where, name)
			continue
		}
		seen++
		doc.match(t, where+"."+name, property, typ.Field(i).Type)
		if optional := options == "omitempty" || options == "omitzero"; slices.Contains(s.Required, name) == optional {
			t.Errorf("%s.%s: required %v", where, name, !optional)
		}
	}
	if seen != len(s.Properties) {
		t.Errorf("%s: describes %d members, the type has %d", where, len(s.Properties), seen)
	}
}
