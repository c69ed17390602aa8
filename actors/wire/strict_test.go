package wire

import (
	"fmt"
	"strings"
	"testing"
)

// git-hunk#44: Python's json writes a file name that is not UTF-8 with unpaired surrogates.
func TestUnpairedSurrogatesAreRefusedWhereTheyAre(t *testing.T) {
	for _, bad := range []string{
		`\udcff`, `\uDCFF`, `\ud800`, `\uD83D`, `\ud83d\u0041`, `\ud83d\n\ude00`, `\ud83dx\ude00`, `\ude00\ud83d`,
		`\ud83d\ud83d\ude00`, `\\\udcff`, `\ud83d\ude00\udfff`, `\u00e9\udabc`,
	} {
		text := `"a` + bad + `b"`
		for _, c := range []struct{ method, params, where string }{
			{"execute", `{"argv":["ls",` + text + `]}`, "argv[1] has an unpaired surrogate"},
			{"execute", `{"argv" : [ "ls" , "b" ,` + text + ` ] }`, "argv[2] has"},
			{"execute", `{"command":` + text + `}`, "command has"},
			{"execute", `{"COMMAND":` + text + `}`, "command has"},
			{"execute", `{"command":"x","cwd":` + text + `}`, "cwd has"},
			{"execute", `{"command":"x","env":{"A":"1","B":` + text + `}}`, `env["B"] has`},
			{"execute", `{"command":"x","env":{"A":"1",` + text + `:"1"}}`, `a name in env has`},
			{"execute", `{"command":"x","execution_id":` + text + `}`, "execution_id has"},
			{"execute", `{"command":"x","traceparent":` + text + `}`, "traceparent has"},
			{"execute", `{"command":"x","retain":` + text + `}`, "retain has"},
			{"input", `{"execution_id":"x","data":` + text + `}`, "data has"},
			{"signal", `{"execution_id":"x","signal":` + text + `}`, "signal has"},
			{"control", `{"type":` + text + `}`, "type has"},
			{"ack", `{"offset":1,"execution_id":` + text + `}`, "execution_id has"},
			{"resume", `{"resume_token":` + text + `}`, "resume_token has"},
			{"resume", `{"resume_token":"t","executions":{` + text + `:1}}`, "a name in executions has"},
		} {
			frame := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, c.method, c.params)
			refuses(t, frame, CodeInvalidParams, "1", c.where)
			if _, err := DecodeParams(c.method, []byte(c.params)); err == nil || !strings.Contains(err.Message, c.where) {
				t.Errorf("from another pod, %s: %v", c.params, err)
			}
		}
	}
	for in, want := range map[string]string{
		`\ud83d\ude00`: "\U0001F600", `\uD83D\uDE00`: "\U0001F600", `\uffff`: "\uffff", `\ufffd`: "\uFFFD",
		`\\udcff`: `\udcff`, `\ud7ff\ue000`: "\ud7ff\ue000", `é`: "é",
	} {
		p, err := DecodeParams("execute", []byte(`{"argv":["`+in+`"],"x":"\udcff"}`))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := p.(*ExecuteParams).Argv[0]; got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

// null where a string belongs would be an empty argument, and a number 0.
func TestNullIsNoElement(t *testing.T) {
	for _, c := range []struct{ method, params, where string }{
		{"execute", `{"argv":[null]}`, "argv[0] must not be null"},
		{"execute", `{"argv":["a", null]}`, "argv[1] must not be null"},
		{"execute", `{"command":"x","env":{"A":null}}`, `env["A"] must not be null`},
		{"resume", `{"resume_token":"t","executions":{"x": null}}`, `executions["x"] must not be null`},
	} {
		frame := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, c.method, c.params)
		refuses(t, frame, CodeInvalidParams, "1", c.where)
	}
	// A member that is null is one that is left out.
	const fine = `{"argv":["x"],"env":null,"cwd":null,"window":null,"y":[null]}`
	if _, err := DecodeParams("execute", []byte(fine)); err != nil {
		t.Error(err)
	}
}

// Of two members with one name, another reader of the frame may take the other one.
func TestMembersAreGivenOnce(t *testing.T) {
	for _, c := range []struct{ method, params, where string }{
		{"execute", `{"argv":["ls"],"argv":["rm"]}`, "argv is given twice"},
		{"execute", `{"command":"ls","x":{"command":1},"Command":"rm"}`, "command is given twice"},
		{"execute", `{"stdin":true,"command":"ls","\u0073tdin":false}`, "stdin is given twice"},
		{"execute", `{"stdin":true,"command":"ls","ſtdin":false}`, "stdin is given twice"}, // encoding/json folds it
		{"execute", `{"command":"x","env":{"A":"1","B":"2","A":"3"}}`, `env["A"] is given twice`},
		{"execute", `{"command":"x","env":{"A":"1","\u0041":"3"}}`, `env["A"] is given twice`},
		{"resume", `{"resume_token":"t","executions":{"x":1,"x":2}}`, `executions["x"] is given twice`},
	} {
		frame := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, c.method, c.params)
		refuses(t, frame, CodeInvalidParams, "1", c.where)
	}
	for _, name := range []string{"id", "method", "jsonrpc", "params"} {
		again := map[string]string{
			"id": `"id":2`, "method": `"method":"close"`, "jsonrpc": `"jsonrpc":"2.0"`, "params": `"params":{}`,
		}[name]
		frame := `{"jsonrpc":"2.0","id":1,"method":"status","params":{},` + again + `}`
		refuses(t, frame, CodeInvalidRequest, "null", `"`+name+`" is given twice`)
	}
	// Variables of the environment may differ in case only, and unknown members are ignored.
	const fine = `{"command":"x","env":{"a":"1","A":"2"},"y":1,"y":2}`
	if p, err := DecodeParams("execute", []byte(fine)); err != nil || len(p.(*ExecuteParams).Env) != 2 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestBytesThatAreNotUTF8AreLocated(t *testing.T) {
	refuses(t, "{\"jsonrpc\":\"2.0\",\"é\":\"\xff\"}", CodeParse, "null", "not UTF-8 at byte 23")
	// A surrogate in UTF-8.
	refuses(t, "{\"jsonrpc\":\"2.0\",\"x\":\"\uFFFD\xed\xb3\xbf\"}", CodeParse, "null", "not UTF-8 at byte 25")
}

func BenchmarkDecodeExecute(b *testing.B) {
	frame := []byte(`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"argv":["make","-j4"],` +
		`"execution_id":"build-1","cwd":"/src","env":{"CI":"1","PATH":"/usr/bin"},"stdin":true,"timeout":60,"framing":"raw"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}
