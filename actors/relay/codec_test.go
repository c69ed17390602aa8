package relay

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && string(x) == string(y)
}

// TestEveryMethodTravels: a method that wire gains must be given to the codec as well.
func TestEveryMethodTravels(t *testing.T) {
	valid := map[string]any{
		wire.MethodExecute: &wire.ExecuteParams{Command: "c"},
		wire.MethodControl: &wire.ControlParams{Type: wire.ControlCancel},
		wire.MethodInput:   &wire.InputParams{ExecutionID: "x", Data: "d"},
		wire.MethodSignal:  &wire.SignalParams{ExecutionID: "x", Signal: "SIGTERM"},
		wire.MethodResize:  &wire.ResizeParams{ExecutionID: "x", Cols: 80, Rows: 24},
		wire.MethodStatus:  &wire.StatusParams{}, wire.MethodResume: &wire.ResumeParams{ResumeToken: "t"},
		wire.MethodClose: &wire.CloseParams{}, wire.MethodAck: &wire.AckParams{ExecutionID: "x", Offset: 7},
		wire.MethodPong: &wire.PongParams{},
	}
	for _, method := range wire.Methods() {
		r := encodeRequest(wire.ID("1"), valid[method])
		if r == nil || r.GetMethod() != method {
			t.Errorf("%s is not encoded", method)
			continue
		}
		params, err := decodeRequest(r)
		if err != nil || !equalJSON(t, params, valid[method]) {
			t.Errorf("%s: got %+v, %v", method, params, err)
		}
	}
	if encodeRequest(nil, 3) != nil {
		t.Error("3 is a request")
	}
}

func TestAnswersTravel(t *testing.T) {
	resumed := &wire.ResumeResult{SessionID: "s", Executions: map[string]wire.ExecutionStatus{"x": {Offset: 5}}}
	got, err := decodeReply(encodeReply(wire.ID("1"), resumed, nil))
	if err != nil || !equalJSON(t, got, resumed) {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = decodeReply(encodeReply(wire.ID("1"), struct{}{}, nil))
	if raw, ok := got.(json.RawMessage); err != nil || !ok || string(raw) != "{}" {
		t.Errorf("got %v, %v", got, err)
	}
	want := &wire.Error{
		Code: wire.CodeSessionLimit, Message: "full",
		Data: &wire.ErrorData{Limit: "max-sessions", Value: 100, RetryAfterSeconds: 5},
	}
	if got, err = decodeReply(encodeReply(nil, nil, want)); got != nil || !reflect.DeepEqual(err, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMarksTravel(t *testing.T) {
	for _, want := range []any{
		&wire.Resized{ExecutionID: "x", Cols: 80, Rows: 24},
		&wire.Warning{ExecutionID: "x", Code: wire.WarnOutputLimit, Offset: 7},
		&wire.Completed{
			ExecutionID: "x", Reason: wire.ReasonSignaled, ExitCode: -15,
			Survivors: &wire.Survivors{Count: 1, Commands: []string{"sleep"}},
		},
	} {
		p := new(Piece)
		if got, ok := decodeMark(p); got != nil || !ok {
			t.Errorf("got %+v from a piece without a mark", got)
		}
		if !encodeMark(p, want) {
			t.Errorf("%+v is not encoded", want)
		}
		if got, ok := decodeMark(p); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestCauseOfANewerRelease(t *testing.T) {
	if got := knownCause("hibernated"); got != wire.CauseClientGone {
		t.Errorf("got %s", got)
	}
	if got := knownCause(string(wire.CauseDraining)); got != wire.CauseDraining {
		t.Errorf("got %s", got)
	}
}
