package wire

import (
	"encoding/json"
	"reflect"
	"testing"
)

// The fast path takes what AppendRequest writes, and nothing that encoding/json would read otherwise.
func FuzzParseAck(f *testing.F) {
	for _, p := range []AckParams{
		{ExecutionID: "dump-1", Offset: 131072},
		{ExecutionID: "a.B_c", Offset: 0, Completed: true},
		{ExecutionID: "x", Offset: 999999999999999999},
	} {
		frame, err := AppendRequest(nil, nil, MethodAck, p)
		if err != nil {
			f.Fatal(err)
		}
		if got, ok := parseAck(frame); !ok || *got != p {
			f.Errorf("%s is read as %+v, %t", frame, got, ok)
		}
		f.Add(frame)
	}
	for _, frame := range []string{
		`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"x","offset":007}}`,
		`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"x","offset":}}`,
		`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"","offset":7}}`,
		`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"x\u0041","offset":7}}`,
		`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"x","offset":7},"id":1}`,
		`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"x","offset":9999999999999999999}}`,
	} {
		f.Add([]byte(frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, ok := parseAck(frame)
		if !ok {
			return
		}
		var env envelope
		var want ackParams
		if err := json.Unmarshal(frame, &env); err != nil {
			t.Fatalf("%s is not JSON: %v", frame, err)
		}
		if err := json.Unmarshal(env.Params, &want); err != nil || env.ID != nil {
			t.Fatalf("%s: %v, id %s", frame, err, env.ID)
		}
		checked, refusal := want.check()
		if refusal != nil || !reflect.DeepEqual(checked, got) {
			t.Errorf("%s is read as %+v, want %+v, %v", frame, got, checked, refusal)
		}
	})
}
