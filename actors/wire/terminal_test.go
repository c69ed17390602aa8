package wire

import (
	"reflect"
	"strings"
	"testing"
)

// TestTerminalParams: a terminal implies what it is, and what does not go with it is refused.
func TestTerminalParams(t *testing.T) {
	size := map[string]any{"cols": 80, "rows": 24}
	for name, c := range map[string]struct {
		with map[string]any
		want string // part of the message; "": it is taken
	}{
		"a size":            {map[string]any{"terminal": size}, ""},
		"what is implied":   {map[string]any{"terminal": size, "stdin": true, "framing": "raw", "retain": "last"}, ""},
		"scrollback":        {map[string]any{"terminal": size, "scrollback": 1 << 20}, ""},
		"no size":           {map[string]any{"terminal": map[string]any{}}, "terminal.cols must be a number of columns, 1 to 1000"},
		"no rows":           {map[string]any{"terminal": map[string]any{"cols": 80}}, "terminal.rows must be a number of rows, 1 to 500"},
		"a negative size":   {map[string]any{"terminal": map[string]any{"cols": -1, "rows": 24}}, "terminal.cols"},
		"too many columns":  {map[string]any{"terminal": map[string]any{"cols": 1001, "rows": 24}}, "terminal.cols"},
		"too many rows":     {map[string]any{"terminal": map[string]any{"cols": 80, "rows": 501}}, "terminal.rows"},
		"a text":            {map[string]any{"terminal": "xterm"}, "terminal must be an object"},
		"a term":            {map[string]any{"terminal": map[string]any{"cols": 80, "rows": 24, "term": "screen.xterm-256color+x"}}, ""},
		"a path as term":    {map[string]any{"terminal": map[string]any{"cols": 80, "rows": 24, "term": "../x"}}, "terminal.term"},
		"a long term":       {map[string]any{"terminal": map[string]any{"cols": 80, "rows": 24, "term": strings.Repeat("x", 65)}}, "terminal.term"},
		"lines":             {map[string]any{"terminal": size, "framing": "lines"}, "framing"},
		"first":             {map[string]any{"terminal": size, "retain": "first"}, "retain"},
		"unread":            {map[string]any{"terminal": size, "retain": "unread"}, "retain"},
		"an unknown retain": {map[string]any{"terminal": size, "retain": "all"}, "retain"},
		"an output limit":   {map[string]any{"terminal": size, "output_limit": 100}, "output_limit"},
	} {
		c.with["command"] = "true"
		r, err := decodeWith(t, MethodExecute, c.with)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Message, c.want) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p, ok := r.Params.(*ExecuteParams); ok && (!p.Stdin || p.Framing != FramingRaw || p.Retain != RetainLast) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestResizeParams(t *testing.T) {
	r, err := decodeWith(t, MethodResize, map[string]any{"execution_id": "x", "cols": 1000, "rows": 500})
	if want := (&ResizeParams{"x", 1000, 500}); err != nil || !reflect.DeepEqual(r.Params, want) {
		t.Errorf("%+v, %v", r.Params, err)
	}
	for _, p := range []map[string]any{
		{"cols": 80, "rows": 24},
		{"execution_id": "x", "rows": 24},
		{"execution_id": "x", "cols": 80},
		{"execution_id": "x", "cols": 0, "rows": 24},
		{"execution_id": "x", "cols": 80, "rows": 501},
		{"execution_id": "x", "cols": 80.5, "rows": 24},
	} {
		if _, err := decodeWith(t, MethodResize, p); err == nil || err.Code != CodeInvalidParams {
			t.Errorf("%v: %v", p, err)
		}
	}
}
