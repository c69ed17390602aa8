package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

// Bytes that are not UTF-8 must not become another command: with rm that is another file.
func TestTextThatIsNotUTF8IsNotSent(t *testing.T) {
	for _, c := range []struct {
		params any
		want   string
	}{
		{&ExecuteParams{Argv: []string{"rm", "-f", "a\xffb"}}, `argv[2] is not UTF-8`},
		{&ExecuteParams{Argv: []string{"rm", "-f", "a\xffb"}}, `"a\xffb"`},
		{&ExecuteParams{Command: "rm a\xff"}, `command is not UTF-8`},
		{&ExecuteParams{Argv: []string{"ls"}, Cwd: "/\xed\xa0\x80"}, `cwd is not UTF-8`}, // a surrogate in UTF-8
		{&ExecuteParams{Argv: []string{"ls"}, Env: map[string]string{"A": "b", "B": "\xc3"}}, `env["B"] is not UTF-8`},
		{&ExecuteParams{Argv: []string{"ls"}, Env: map[string]string{"B\xc3": "v"}}, `a name in env is not UTF-8`},
		{&ExecuteParams{Argv: []string{"ls"}, ExecutionID: "\xff"}, `execution_id is not UTF-8`},
		{&InputParams{ExecutionID: "x", Data: "\xff"}, `data is not UTF-8`},
		{&SignalParams{ExecutionID: "x", Signal: "\xff"}, `signal is not UTF-8`},
		{&ResumeParams{ResumeToken: "\xff"}, `resume_token is not UTF-8`},
		{&ResumeParams{ResumeToken: "t", Executions: map[string]int64{"\xff": 1}}, `a name in executions is not UTF-8`},
	} {
		err := CheckText(c.params)
		if CodeOf(err) != CodeInvalidParams || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %s", c.params, err, c.want)
		}
		if b, err := AppendRequest(nil, ID("1"), "m", c.params); err == nil || len(b) != 0 {
			t.Errorf("%+v: was encoded as %s, %v", c.params, b, err)
		}
	}
	for _, fine := range []any{
		nil, &ExecuteParams{Argv: []string{"é", "\U0001F600", "\uFFFD"}, Env: map[string]string{"Ü": "ß"}},
		&StatusParams{}, json.RawMessage("\xff"), &InputParams{},
	} {
		if err := CheckText(fine); err != nil {
			t.Errorf("%+v: %v", fine, err)
		}
	}
}
