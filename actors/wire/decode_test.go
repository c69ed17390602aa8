package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	const none = "" // nothing may be answered
	for _, c := range []struct {
		name, frame string
		code        Code
		id          string
		message     string // part of it
	}{
		{"empty frame", ``, CodeParse, "null", "not JSON"},
		{"cut", `{"jsonrpc":"2.0"`, CodeParse, "null", "at byte 16"},
		{"trailing", `{} {}`, CodeParse, "null", "not JSON"},
		{
			"not UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"execute\",\"params\":{\"command\":\"\xff\"}}", CodeParse,
			"null", "UTF-8",
		},
		{"deep", deep, CodeParse, "null", "depth"},
		{
			"deep in params", `{"jsonrpc":"2.0","id":1,"method":"execute","params":{"x":` + deep + `}}`, CodeParse, "null",
			"depth",
		},
		{
			"batch", ` [{"jsonrpc":"2.0","id":1,"method":"status"}]`, CodeInvalidRequest, "null",
			"batches are not supported; send one request per frame",
		},
		{"null", `null`, CodeInvalidRequest, "null", "object"},
		{"number", `7`, CodeInvalidRequest, "null", "object"},
		{"no version", `{"id":1,"method":"status"}`, CodeInvalidRequest, "1", `"jsonrpc" must be "2.0"`},
		{"version 1", `{"jsonrpc":"1.0","id":1,"method":"status"}`, CodeInvalidRequest, "1", "2.0"},
		{"version number", `{"jsonrpc":2.0,"id":1,"method":"status"}`, CodeInvalidRequest, "1", "2.0"},
		{"id bool", `{"jsonrpc":"2.0","id":true,"method":"status"}`, CodeInvalidRequest, "null", `"id" must be`},
		{"id object", `{"jsonrpc":"2.0","id":{},"method":"status"}`, CodeInvalidRequest, "null", `"id" must be`},
		{"id array", `{"jsonrpc":"2.0","id":[1],"method":"status"}`, CodeInvalidRequest, "null", `"id" must be`},
		{
			"id long", `{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 300) + `","method":"status"}`, CodeInvalidRequest, "null",
			"256 bytes",
		},
		{"no method", `{"jsonrpc":"2.0","id":1}`, CodeInvalidRequest, "1", "missing"},
		{"no method, no id", `{"jsonrpc":"2.0"}`, CodeInvalidRequest, "null", "missing"},
		{"method number", `{"jsonrpc":"2.0","id":1,"method":5}`, CodeInvalidRequest, "1", "string"},
		{"method null", `{"jsonrpc":"2.0","id":1,"method":null}`, CodeInvalidRequest, "1", "string"},
		{"response", `{"jsonrpc":"2.0","id":1,"result":{}}`, CodeInvalidRequest, "null", "is a response"},
		{
			"unknown method", `{"jsonrpc":"2.0","id":1,"method":"hook_status"}`, CodeMethodNotFound, "1",
			`unknown method "hook_status": use one of execute, control,`,
		},
		{"unknown notification", `{"jsonrpc":"2.0","method":"x"}`, CodeMethodNotFound, none, "unknown"},
		{"params array", `{"jsonrpc":"2.0","id":1,"method":"status","params":[]}`, CodeInvalidParams, "1", "by name only"},
		{"params string", `{"jsonrpc":"2.0","id":1,"method":"status","params":"x"}`, CodeInvalidParams, "1", "object"},
		{"bad notification", `{"jsonrpc":"2.0","method":"control","params":{"type":"X"}}`, CodeInvalidParams, none, "PAUSE"},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, c.frame, c.code, c.id, c.message) })
	}
}

func refuses(t *testing.T, frame string, code Code, id, message string) {
	t.Helper()
	req, err := Decode([]byte(frame))
	if err == nil {
		t.Fatalf("accepted: %+v", req)
	}
	if err.Code != code || !strings.Contains(err.Message, message) {
		t.Errorf("got %d %q, want %d with %q", err.Code, err.Message, code, message)
	}
	if string(req.ID) != id {
		t.Errorf("answers id %q, want %q", req.ID, id)
	}
	if len(err.Message) > 400 {
		t.Errorf("a message of %d bytes", len(err.Message))
	}
}

func TestDecodeRefusesParams(t *testing.T) {
	for _, c := range []struct{ method, params, message string }{
		{"execute", ``, "command is missing"},
		{"execute", `null`, "command is missing"},
		{"execute", `{"command":null}`, "command is missing"},
		{"execute", `{"command":5}`, "command must be a string, not a number"},
		{"execute", `{"command":["ls"]}`, "command must be a string, not an array"},
		{"execute", `{"command":{}}`, "command must be a string, not an object"},
		{"execute", `{"command":true}`, "command must be a string, not true or false"},
		{"execute", `{"command":" \n"}`, "command is blank"},
		{"execute", `{"command":"a\u0000b"}`, "command contains a NUL byte"},
		{"execute", `{"command":"ls","argv":["ls"]}`, "exclude each other"},
		{"execute", `{"argv":"ls"}`, "argv must be an array, each element a string, not a string"},
		{"execute", `{"argv":["ls",5]}`, "argv must be a string, not a number"},
		{"execute", `{"argv":[]}`, "argv[0]"},
		{"execute", `{"argv":[""]}`, "argv[0]"},
		{"execute", `{"argv":["a","\u0000"]}`, "argv[1] contains a NUL byte"},
		{"execute", `{"command":"x","cwd":5}`, "cwd must be a string"},
		{"execute", `{"command":"x","cwd":"\u0000"}`, "cwd contains"},
		{"execute", `{"command":"x","env":["A=1"]}`, "env must be an object, each value a string, not an array"},
		{"execute", `{"command":"x","env":{"A":1}}`, "must be a string, not a number"},
		{"execute", `{"command":"x","env":{"A=B":"1"}}`, `env name "A=B"`},
		{"execute", `{"command":"x","env":{"":"1"}}`, `env name ""`},
		{"execute", `{"command":"x","env":{"A":"\u0000"}}`, `env["A"] contains a NUL byte`},
		{"execute", `{"command":"x","execution_id":""}`, "execution_id"},
		{"execute", `{"command":"x","execution_id":"a/b"}`, `execution_id "a/b"`},
		{"execute", `{"command":"x","execution_id":".."}`, "execution_id"},
		{"execute", `{"command":"x","execution_id":"é"}`, "execution_id"},
		{"execute", `{"command":"x","execution_id":"` + strings.Repeat("a", 129) + `"}`, "1 to 128"},
		{"execute", `{"command":"x","stdin":"yes"}`, "stdin must be true or false, not a string"},
		{"execute", `{"command":"x","timeout":"10"}`, "timeout must be a number, not a string"},
		{"execute", `{"command":"x","timeout":0}`, "timeout must be"},
		{"execute", `{"command":"x","timeout":-1}`, "timeout must be"},
		{"execute", `{"command":"x","timeout":1e400}`, "timeout must be a number, not 1e400"},
		{"execute", `{"command":"x","timeout":1e-300}`, "timeout must be"},
		{"execute", `{"command":"x","max_duration":-0.0}`, "max_duration must be"},
		{"execute", `{"command":"x","retain":"all"}`, `unknown retain "all": use first or unread or last`},
		{"execute", `{"command":"x","retain":"unread","output_limit":5}`, `on_output_limit need retain "first"`},
		{"execute", `{"command":"x","retain":"last","on_output_limit":"drop"}`, `need retain "first"`},
		{"execute", `{"command":"x","scrollback":65536}`, `scrollback needs retain "last"`},
		{"execute", `{"command":"x","retain":"unread","scrollback":65536}`, `scrollback needs retain "last"`},
		{"execute", `{"command":"x","retain":"last","scrollback":65535}`, "must be a number of bytes, 65536 or more"},
		{"execute", `{"command":"x","retain":"last","scrollback":0}`, "scrollback must be"},
		{"execute", `{"command":"x","window":4095}`, "window must be a number of bytes, 4096 to 16777216"},
		{"execute", `{"command":"x","window":16777217}`, "window must be"},
		{"execute", `{"command":"x","window":-1}`, "window must be"},
		{"execute", `{"command":"x","window":"4096"}`, "window must be an integer, not a string"},
		{"execute", `{"command":"x","output_limit":0}`, "output_limit must be"},
		{"execute", `{"command":"x","output_limit":1.5}`, "output_limit must be an integer, not 1.5"},
		{
			"execute", `{"command":"x","output_limit":` + strings.Repeat("9", 5000) + `}`,
			"output_limit must be an integer, not 9999",
		},
		{"execute", `{"command":"x","framing":"cbor"}`, `unknown framing "cbor": use lines or raw`},
		{"execute", `{"command":"x","encoding":"latin1"}`, "use utf-8 or base64"},
		{"execute", `{"command":"x","on_exit":"x"}`, "use kill or keep"},
		{"execute", `{"command":"x","on_output_limit":"x"}`, "use drop or cancel"},
		{"control", `{}`, "type is missing"},
		{"control", `{"type":"pause"}`, `unknown control type "pause": use PAUSE, RESUME or CANCEL`},
		{"control", `{"type":"` + strings.Repeat("X", 500) + `"}`, "unknown control type"},
		{"control", `{"type":"PAUSE","execution_id":"a b"}`, "execution_id"},
		{"input", `{"data":"x"}`, "execution_id is missing"},
		{"input", `{"execution_id":"a"}`, "data is missing"},
		{"input", `{"execution_id":"a","data":"?","encoding":"base64"}`, "base64"},
		{"input", `{"execution_id":"a","data":"eQ","encoding":"base64"}`, "base64"},
		{"signal", `{"execution_id":"a"}`, "signal is missing"},
		{"signal", `{"execution_id":"a","signal":"FOO"}`, `unknown signal "FOO"`},
		{"signal", `{"execution_id":"a","signal":"int"}`, `unknown signal "int"`},
		{"signal", `{"execution_id":"a","signal":9}`, "signal must be a string"},
		{"signal", `{"execution_id":"a","signal":"STOP"}`, "use control"},
		{"signal", `{"execution_id":"a","signal":"SIGCONT"}`, "use control"},
		{"signal", `{"execution_id":"a","signal":"TSTP"}`, "use control"},
		{"signal", `{"signal":"INT"}`, "execution_id is missing"},
		{"resume", `{"resume_token":"t","window":1}`, "window must be"},
		{"input", `{"execution_id":"x","data":"a","offset":-1}`, "offset must be"},
		{"input", `{"execution_id":"x","data":"a","offset":0.5}`, "offset must be an integer, not 0.5"},
		{"ack", `{"execution_id":"x"}`, "offset must be"},
		{"ack", `{"execution_id":"x","offset":-1}`, "offset must be"},
		{"ack", `{"offset":1}`, "execution_id is missing"},
		{"ack", `{"execution_id":"x","offset":1,"completed":1}`, "completed must be true or false"},
		{"resume", `{}`, "resume_token is missing"},
		{"resume", `{"resume_token":"t","executions":[1]}`, "executions must be an object, each value an integer"},
		{"resume", `{"resume_token":"t","executions":{"a":-1}}`, `executions["a"] must be an offset of 0 or more`},
		{"resume", `{"resume_token":"t","executions":{"a":"1"}}`, "must be an integer, not a string"},
		{"resume", `{"resume_token":"t","executions":{"../a":1}}`, "execution_id"},
	} {
		frame := `{"jsonrpc":"2.0","id":"q","method":"` + c.method + `"`
		if c.params != "" {
			frame += `,"params":` + c.params
		}
		t.Run(c.method+" "+c.params[:min(60, len(c.params))], func(t *testing.T) {
			refuses(t, frame+"}", CodeInvalidParams, `"q"`, c.message)
			if _, err := DecodeParams(c.method, []byte(c.params)); c.params != "" &&
				(err == nil || err.Code != CodeInvalidParams) {
				t.Errorf("DecodeParams: %v", err)
			}
		})
	}
}

func TestDecodeAccepts(t *testing.T) {
	for _, c := range []struct {
		name, frame string
		want        Request
	}{
		{
			"cc-executor puts an id into params",
			`{"jsonrpc":"2.0","method":"execute","params":{"command":"ls","id":"x","timeout":30},"id":1}`,
			Request{ID("1"), MethodExecute, &ExecuteParams{Command: "ls", Timeout: 30}},
		},
		{
			"null timeout is none", `{"jsonrpc":"2.0","id":1,"method":"execute","params":{"command":"ls","timeout":null}}`,
			Request{ID("1"), MethodExecute, &ExecuteParams{Command: "ls"}},
		},
		{
			"fractional id", `{"jsonrpc":"2.0","id":1.50,"method":"status"}`,
			Request{ID("1.50"), MethodStatus, &StatusParams{}},
		},
		{
			"escaped id", `{"jsonrpc":"2.0","id":"\u0041\n","method":"status","params":null}`,
			Request{ID(`"\u0041\n"`), MethodStatus, &StatusParams{}},
		},
		{
			"null id is a request", `{"jsonrpc":"2.0","id":null,"method":"close","params":{}}`,
			Request{NullID, MethodClose, &CloseParams{}},
		},
		{"notification", `{"jsonrpc":"2.0","method":"pong","params":{"t":1}}`, Request{nil, MethodPong, &PongParams{}}},
		{
			"short signal", `{"jsonrpc":"2.0","id":1,"method":"signal","params":{"execution_id":"a","signal":"INT"}}`,
			Request{ID("1"), MethodSignal, &SignalParams{"a", "SIGINT"}},
		},
		{
			"eof only", `{"jsonrpc":"2.0","id":1,"method":"input","params":{"execution_id":"a","eof":true}}`,
			Request{ID("1"), MethodInput, &InputParams{ExecutionID: "a", EOF: true}},
		},
		{
			"unknown members", `{"jsonrpc":"2.0","id":1,"method":"control","params":{"type":"CANCEL","x":[1]},"extra":{}}`,
			Request{ID("1"), MethodControl, &ControlParams{Type: ControlCancel}},
		},
		{
			"empty args", `{"jsonrpc":"2.0","id":1,"method":"execute","params":{"argv":["a",""],"env":{"A":""}}}`,
			Request{ID("1"), MethodExecute, &ExecuteParams{Argv: []string{"a", ""}, Env: map[string]string{"A": ""}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode([]byte(c.frame))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v %+v, want %+v %+v", got, got.Params, c.want, c.want.Params)
			}
		})
	}
}

func TestDecodeParams(t *testing.T) {
	for name, c := range map[string]struct {
		method, raw string
		want        any
		code        Code
	}{
		"params":         {MethodInput, `{"execution_id":"a","data":"d"}`, &InputParams{ExecutionID: "a", Data: "d"}, 0},
		"null":           {MethodStatus, `null`, &StatusParams{}, 0},
		"unknown method": {"nosuch", `{}`, nil, CodeMethodNotFound},
		"not JSON":       {MethodInput, `{"execution_id"`, nil, CodeInvalidParams},
		"not UTF-8":      {MethodInput, "{\"execution_id\":\"a\",\"data\":\"\xff\"}", nil, CodeInvalidParams},
		"invalid":        {MethodControl, `{"type":"x"}`, nil, CodeInvalidParams},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeParams(c.method, []byte(c.raw))
			if !reflect.DeepEqual(got, c.want) || (err != nil) != (c.code != 0) || err != nil && err.Code != c.code {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if got, err := DecodeParams(MethodPong, nil); err != nil || !reflect.DeepEqual(got, &PongParams{}) {
		t.Errorf("nil: got %+v, %v", got, err)
	}
}

// Params that shared memory with the frame would change under the engine when the reader reuses its
// buffer.
func TestDecodeCopies(t *testing.T) {
	frame := []byte(`{"jsonrpc":"2.0","id":"abc","method":"input","params":{"execution_id":"a","data":"hello"}}`)
	req, err := Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	clear(frame)
	if p, ok := req.Params.(*InputParams); !ok || p.Data != "hello" || string(req.ID) != `"abc"` {
		t.Errorf("the request changed with the frame: %s %+v", req.ID, req.Params)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range goldenRequests {
		b, err := AppendRequest(nil, r.ID, r.Method, r.Params)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		req, werr := Decode(frame)
		if werr != nil {
			if _, err := AppendResponse(nil, req.ID, nil, werr); err != nil {
				t.Fatal(err)
			}
			return
		}
		written := bytes.Contains(frame, []byte("\uFFFD")) || bytes.Contains(bytes.ToLower(frame), []byte(`\ufffd`))
		if got := fmt.Sprintf("%+v", req.Params); strings.Contains(got, "\uFFFD") && !written {
			t.Fatalf("%q was read as %s", frame, got)
		}
		if len(req.ID) > 0 && !json.Valid(req.ID) {
			t.Fatalf("id %q is not JSON", req.ID)
		}
		again, err := AppendRequest(nil, req.ID, req.Method, req.Params)
		if err != nil {
			t.Fatal(err)
		}
		second, werr := Decode(again)
		if werr != nil {
			t.Fatalf("refused its own encoding %s: %v", again, werr)
		}
		if third, err := AppendRequest(nil, second.ID, second.Method, second.Params); err != nil ||
			string(third) != string(again) {
			t.Fatalf("%s became %s (%v)", again, third, err)
		}
	})
}

// The reader validates base64 and the session uses it: decoding up to 1 MiB twice would double the
// cost of stdin.
func TestInputIsDecodedOnce(t *testing.T) {
	got, werr := DecodeParams(MethodInput, []byte(`{"execution_id":"a","data":"eQo=","encoding":"base64"}`))
	if werr != nil {
		t.Fatal(werr)
	}
	p := got.(*InputParams)
	first, err := p.Bytes()
	if err != nil || string(first) != "y\n" {
		t.Fatalf("got %q, %v", first, err)
	}
	if n := testing.AllocsPerRun(10, func() { _, _ = p.Bytes() }); n != 0 {
		t.Errorf("Bytes allocates %v times", n)
	}
}
