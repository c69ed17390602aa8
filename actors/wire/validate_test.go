package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// decodeWith decodes a request with these params.
func decodeWith(t *testing.T, method string, params map[string]any) (Request, *Error) {
	t.Helper()
	frame, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		t.Fatal(err)
	}
	return Decode(frame)
}

// TestExecutionIDs: an id is a file name, a log field and a segment of a URL, wherever a client
// gives one.
func TestExecutionIDs(t *testing.T) {
	ids := map[string]bool{
		"": false, ".": false, "..": false, "...": true, ".a": true, "-": true, "_": true,
		strings.Repeat("a", MaxExecutionID): true, strings.Repeat("a", MaxExecutionID+1): false,
	}
	for c := range 256 { // a letter before it: alone, a dot is refused
		ok := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-", rune(c))
		ids["a"+string(rune(c))] = ok
	}
	for id, ok := range ids {
		for method, params := range map[string]map[string]any{
			MethodExecute: {"command": "true", "execution_id": id},
			MethodControl: {"type": ControlCancel, "execution_id": id},
			MethodInput:   {"data": "x", "execution_id": id},
			MethodSignal:  {"signal": "INT", "execution_id": id},
			MethodResize:  {"cols": 80, "rows": 24, "execution_id": id},
			MethodResume:  {"resume_token": "t", "executions": map[string]int{id: 0}},
		} {
			if method == MethodControl && id == "" {
				continue // control means all of them then
			}
			_, err := decodeWith(t, method, params)
			if (err == nil) != ok {
				t.Errorf("%s with execution_id %q: %v, want it to be taken: %v", method, id, err, ok)
			}
			if err != nil && err.Code != CodeInvalidParams {
				t.Errorf("%s with execution_id %q: code %d", method, id, err.Code)
			}
		}
	}
}

// TestVariableNames: the kernel takes a variable as NAME=value up to a NUL byte.
func TestVariableNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"A": true, "a.b-c d": true, "é": true, "": false,
		"=": false, "A=": false, "=A": false, "A\x00": false, "\x00": false,
	} {
		_, err := decodeWith(t, MethodExecute, map[string]any{"command": "true", "env": map[string]string{name: "v"}})
		if (err == nil) != ok {
			t.Errorf("name %q: %v, want it to be taken: %v", name, err, ok)
		}
	}
	for value, ok := range map[string]bool{"": true, "a=b": true, "\n": true, "\x00": false, "a\x00b": false} {
		_, err := decodeWith(t, MethodExecute, map[string]any{"command": "true", "env": map[string]string{"A": value}})
		if (err == nil) != ok {
			t.Errorf("value %q: %v, want it to be taken: %v", value, err, ok)
		}
	}
}

// TestLimitsOfARequest: a limit that is given must be above 0, and arrives as it was given.
func TestLimitsOfARequest(t *testing.T) {
	for name, with := range map[string]func(limit int) ExecuteParams{
		"timeout":      func(limit int) ExecuteParams { return ExecuteParams{Command: "true", Timeout: float64(limit)} },
		"max_duration": func(limit int) ExecuteParams { return ExecuteParams{Command: "true", MaxDuration: float64(limit)} },
		"output_limit": func(limit int) ExecuteParams { return ExecuteParams{Command: "true", OutputLimit: int64(limit)} },
	} {
		for limit, ok := range map[int]bool{-1: false, 0: false, 1: true, 1 << 40: true} {
			req, err := decodeWith(t, MethodExecute, map[string]any{"command": "true", name: limit})
			want := with(limit)
			if (err == nil) != ok || ok && !reflect.DeepEqual(req.Params, &want) {
				t.Errorf("%s %d: %+v, %v", name, limit, req.Params, err)
			}
		}
	}
}

// TestInputTakesItsEncoding: text is not base64, and an encoding that is not known is not text.
func TestInputTakesItsEncoding(t *testing.T) {
	for _, c := range []struct {
		encoding, data string
		taken          bool
	}{
		{"", "?", true},
		{"utf-8", "?", true},
		{"base64", "?", false},
		{"base64", "eA==", true},
		{"base64", "eA", false},
		{"latin1", "x", false},
		{"BASE64", "eA==", false},
	} {
		_, err := decodeWith(t, MethodInput, map[string]any{"execution_id": "x", "encoding": c.encoding, "data": c.data})
		if (err == nil) != c.taken {
			t.Errorf("%q as %q: %v, want it to be taken: %v", c.data, c.encoding, err, c.taken)
		}
	}
}

func TestResumeTakesTheBeginning(t *testing.T) {
	for offset, ok := range map[int]bool{-1: false, 0: true, 1: true} {
		_, err := decodeWith(t, MethodResume, map[string]any{"resume_token": "t", "executions": map[string]int{"x": offset}})
		if (err == nil) != ok {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}

// TestRequestIDBounds: an id is kept until it is answered, so its length is bounded, and the bound
// is exact.
func TestRequestIDBounds(t *testing.T) {
	for length, ok := range map[int]bool{2: true, MaxID: true, MaxID + 1: false} {
		id := `"` + strings.Repeat("x", length-2) + `"`
		req, err := Decode([]byte(`{"jsonrpc":"2.0","id":` + id + `,"method":"status"}`))
		if (err == nil) != ok || ok && string(req.ID) != id || !ok && string(req.ID) != "null" {
			t.Errorf("%d bytes: %v, answered with %.10s", length, err, req.ID)
		}
	}
}

// TestResponsesAreNotRequests: what is half a response runs nothing, and is not answered under its
// id.
func TestResponsesAreNotRequests(t *testing.T) {
	for _, member := range []string{`"result":{}`, `"error":{}`, `"error":null`, `"result":1,"error":{}`} {
		for _, method := range []string{"", `,"method":"status"`} {
			req, err := Decode([]byte(`{"jsonrpc":"2.0","id":7,` + member + method + `}`))
			if err == nil || err.Code != CodeInvalidRequest || !strings.Contains(err.Message, "is a response") ||
				string(req.ID) != "null" {
				t.Errorf("%s%s: %+v, %v", member, method, req, err)
			}
		}
	}
}

// TestCloseCodes: clients and proxies decide by them whether to come back, so they never change.
func TestCloseCodes(t *testing.T) {
	want := map[Cause]int{
		CauseClientDone: 1000, CauseSessionEnded: 1000, CauseClientGone: 1001,
		CauseTooBig: 1009, CauseInternal: 1011, CauseDraining: 1012, CauseSessionLimit: 1013,
		CauseNoSession: 4006, CauseSessionLost: 4007,
		CausePingTimeout: 4010, CauseWriteTimeout: 4011, CauseReadTimeout: 4011, CauseSlowConsumer: 4011,
	}
	for _, cause := range Causes() {
		if cause.Code() != want[cause] {
			t.Errorf("%s: %d, want %d", cause, cause.Code(), want[cause])
		}
		delete(want, cause)
	}
	if len(want) > 0 {
		t.Errorf("not among the causes: %v", want)
	}
}

// TestInputThatCameAsBytesTravelsAsJSON: a binary input frame is relayed to another pod as a request.
func TestInputThatCameAsBytesTravelsAsJSON(t *testing.T) {
	for _, data := range []string{"a\xff\x00", "", "<html>"} {
		in := NewInput("x", []byte(data), 7, true)
		b, err := AppendRequest(nil, ID("1"), MethodInput, in)
		if err != nil {
			t.Fatal(err)
		}
		req, werr := Decode(b)
		if werr != nil {
			t.Fatalf("%s: %v", b, werr)
		}
		p, _ := req.Params.(*InputParams)
		if got, err := p.Bytes(); string(got) != data || err != nil || *p.Offset != 7 || !p.EOF || p.ExecutionID != "x" {
			t.Errorf("%q arrived as %q, %+v, %v", data, got, p, err)
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(&InputParams{ExecutionID: "x", Data: "<html>"}); err != nil || !strings.Contains(b.String(), "<html>") {
		t.Errorf("%s, %v", b.String(), err)
	}
}

// TestInputOfAnotherPodIsDecodedAsAnyOther: the short way for params as MarshalJSON writes them finds what the long
// one finds, and refuses nothing else.
func TestInputOfAnotherPodIsDecodedAsAnyOther(t *testing.T) {
	const fine = `{"data":"aGVsbG8=","encoding":"base64","execution_id":"x"`
	for raw, short := range map[string]bool{
		fine + `}`: true, fine + `,"offset":7,"eof":true}` + "\n": true, fine + `,"writer":"w","other":[1]}`: true,
		fine + `,"offset":-1}`: false, fine + `,"data":"eA=="}`: false, fine + `,"Data":"eA=="}`: false,
		fine + `,"encoding":"utf-8"}`: false, fine + `,"writer":"\xff"}`: false, fine: false, fine + `}}`: false,
		`{"data":"aGVsbG8=","encoding":"base64",}`:                         false,
		`{"data":"aGVs\nbG8=","encoding":"base64","execution_id":"x"}`:     false,
		`{"data":"aGVsbG8","encoding":"base64","execution_id":"x"}`:        false,
		`{"data":"aGVs\\u0062G8=","encoding":"base64","execution_id":"x"}`: false,
		`{"data":"","encoding":"base64","execution_id":"x","eof":true}`:    false,
		`{"data":"aGVsbG8=","encoding":"utf-8","execution_id":"x"}`:        false,
		`{"execution_id":"x","data":"aGVsbG8=","encoding":"base64"}`:       false,
	} {
		if got := decodeInput([]byte(raw)) != nil; got != short {
			t.Errorf("%s: the short way is taken: %v", raw, got)
		}
		got, err := DecodeParams(MethodInput, []byte(raw))
		var want any
		var wantErr *Error
		if notUTF8([]byte(raw)) >= 0 {
			wantErr = err
		} else {
			want, wantErr = decodeParams(MethodInput, []byte(raw))
		}
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Errorf("%s: %v, want %v", raw, err, wantErr)
		}
		if err != nil {
			continue
		}
		a, b := got.(*InputParams), want.(*InputParams)
		if !bytes.Equal(a.decoded, b.decoded) || a.ExecutionID != b.ExecutionID || a.EOF != b.EOF || a.Writer != b.Writer ||
			!reflect.DeepEqual(a.Offset, b.Offset) {
			t.Errorf("%s: %+v, want %+v", raw, a, b)
		}
	}
}
